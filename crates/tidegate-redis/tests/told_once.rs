//! After a loss of the store's memory, what a node saw is told once: by the ledger's client, and not by the limit as well.

mod support;

use std::time::Duration;

use support::{Redis, eventually};
use tidegate::{
    Call, Rate, clock,
    fleet::{FleetThrottle, Rule},
    throttle::Key,
};
use tidegate_core::{Algorithm, Quota};
use tidegate_redis::{Client, Namespace, RedisLedger, Settings, StoreUrl};

const KEYS: u32 = 300;

fn key(number: u32) -> Key {
    Key::of(&number.to_le_bytes())
}

#[tokio::test]
async fn what_was_granted_before_a_loss_is_told_once() {
    let redis = Redis::start(&[]);
    let url: StoreUrl = redis.url().parse().expect("a URL");
    let settings = Settings { deadline: support::PATIENCE, ..Settings::default() };
    let client = Client::start(&url, settings).expect("good settings");
    eventually("the store is reached", async || client.ready().await.ok()).await;
    let ledger = RedisLedger::new(client, Namespace::new("test").expect("a namespace"));
    // Credit is asked for again by whoever misses it, and by nobody else.
    let rate = Rate::new(1000, Duration::from_secs(1000 * 3600)).expect("a rate");
    let quota = Quota::of(rate).algorithm(Algorithm::FixedWindow).build().expect("a quota");
    let rule = Rule::of(quota).life(Duration::from_millis(200)).build().expect("a rule");
    let throttle = FleetThrottle::builder("once", rule, ledger).patience(support::PATIENCE);
    let throttle = throttle.build().expect("a runtime");
    let calls = async |key: Key| {
        eventually("it is admitted", async || {
            throttle.enter(&Call::at(clock::now()), &key).await.ok().map(drop)
        })
        .await;
    };
    for number in 0..KEYS {
        calls(key(number)).await;
    }
    let asked = throttle.stats().asked;
    let () = redis.say("FLUSHALL").await;
    // The first call after it finds the loss, and is admitted when all had the time to tell.
    let refused = async || throttle.enter(&Call::at(clock::now()), &key(KEYS)).await.is_err().then_some(());
    eventually("the loss is found", async || match throttle.stats().losses {
        0 => refused().await.and(None),
        losses => Some(losses),
    })
    .await;
    calls(key(KEYS + 1)).await;
    for number in 0..KEYS {
        let used = async || throttle.inspect(&key(number)).await.ok().filter(|account| account.used >= 1);
        eventually("the ledger knows what was granted", used).await;
    }
    let asked = throttle.stats().asked - asked;
    assert!(asked < u64::from(KEYS) / 2, "{asked} questions of the limit, beside those of the client");
    assert_eq!(throttle.stats().losses, 1);
    // Who calls again finds no other loss.
    for number in 0..10 {
        calls(key(number)).await;
    }
    assert_eq!(throttle.stats().losses, 1);
}
