//! A ledger waits for what nodes have to tell it, on a real server whose clock the test sets.

use std::time::Duration;

use tidegate::{Rate, throttle::Key};
use tidegate_core::{Algorithm, Quota, lease::Node};

use super::*;
use crate::{
    Settings, StoreUrl, support,
    watch::{HOLD, NOTICED_WITHIN},
};

#[tokio::test]
async fn a_ledger_waits_for_a_node_that_has_much_to_tell_and_not_for_ever() {
    let redis = support::Redis::start(&[]);
    let url: StoreUrl = redis.url().parse().unwrap();
    let client =
        Client::start(&url, Settings { deadline: support::PATIENCE, ..Settings::default() }).unwrap();
    client.ready().await.unwrap();
    let ledger = RedisLedger(Arc::new(Watched::new(client, Namespace::new("test").unwrap())));
    let life = Duration::from_millis(100);
    let quota =
        Quota::of(Rate::new(10, Duration::from_secs(3600)).unwrap()).algorithm(Algorithm::FixedWindow);
    let rule = Rule::of(quota.build().unwrap()).life(life).build().unwrap();
    let (start, second, mut seq) = (1_764_000_123_456_789_u64, 1_000_000, 0);
    let pause = u64::try_from((NOTICED_WITHIN + life).as_micros()).unwrap();
    let mut retry_in = async |at: u64| {
        seq += 1;
        let ask = Ask {
            node: Node(1),
            seq,
            least: 1,
            need: 1,
            want: 1,
            back: 0,
            of: 0,
            debt: 0,
            seen: Seen::default(),
        };
        let seeing = Seeing { clock: Some(start + at), run_id: Some("a") };
        let subject = Subject { limit: "per client", key: Key::of(b"alice") };
        let question = ledger.question(subject, &rule, &ask);
        let route = Route { rule, bucket: 0 };
        ledger.grant_all(route, &[question], &seeing, None).await.unwrap()[0].retry_in
    };
    let hold = async |at: u64| {
        let seeing = Seeing { clock: Some(start + at), run_id: Some("a") };
        ledger.0.ask(&HOLD, 0, &seeing).await.unwrap();
    };
    assert_eq!(retry_in(0).await, pause);
    for at in 1..30 {
        hold(at * second).await;
        assert_eq!(retry_in(at * second + 1).await, pause - 1, "after {at} s");
    }
    hold(30 * second).await;
    assert_eq!(retry_in(30 * second).await, pause - second, "it waits no longer");
    assert_eq!(retry_in(29 * second + pause).await, 0);
}
