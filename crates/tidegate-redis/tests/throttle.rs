//! The real driver over real servers: whatever happens to the store, the fleet admits no more than the limit in any
//! window of the store's clock, and goes on admitting afterwards.

mod support;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use rustix::process::Signal;
use support::{Redis, cluster::Cluster, eventually, sentinels::Sentinels};
use tidegate::{
    By, Call, Rate, clock,
    fleet::{FleetThrottle, Rule},
    throttle::{Key, KeyHasher, Seed},
};
use tidegate_core::{Algorithm, Quota};
use tidegate_redis::{Client, Namespace, RedisLedger, Settings, StoreUrl};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

const LIMIT: u32 = 200;
const WINDOW: Duration = Duration::from_millis(2500);
const NODES: u64 = 4;
const KEYS: u8 = 6;
/// How long a server hangs.
const HANGS: Duration = Duration::from_secs(5);

/// How many calls were admitted, by key and window.
type Admitted = Arc<Mutex<BTreeMap<(u8, u128), u64>>>;

struct Fleet {
    throttles: Vec<FleetThrottle>,
    admitted: Admitted,
    _callers: JoinSet<()>,
}

/// The window of now: servers and test are on one host, and so on one clock.
fn window_now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() / WINDOW.as_micros()
}

impl Fleet {
    async fn start(url: &str) -> Self {
        let quota = Quota::of(Rate::new(LIMIT, WINDOW).expect("a rate")).algorithm(Algorithm::FixedWindow);
        let rule = Rule::of(quota.build().expect("a quota")).life(Duration::from_millis(250));
        let rule = rule.build().expect("a rule");
        let (mut throttles, mut callers, admitted) = (Vec::new(), JoinSet::new(), Admitted::default());
        for _ in 0..NODES {
            let url: StoreUrl = url.parse().expect("a URL");
            let client = Client::start(&url, Settings::default()).expect("good settings");
            eventually("the store is reached", async || client.ready().await.ok()).await;
            let ledger = RedisLedger::new(client, Namespace::new("test").expect("a namespace"));
            let throttle = FleetThrottle::builder("per key", rule, ledger).build().expect("a runtime");
            for number in 0..KEYS {
                callers.spawn(call_on(throttle.clone(), number, admitted.clone()));
            }
            throttles.push(throttle);
        }
        let fleet = Self { throttles, admitted, _callers: callers };
        fleet.admits().await;
        fleet
    }

    /// Waits until every key was admitted most of a window that begins later, and checks all windows.
    async fn admits(&self) {
        let after = window_now();
        eventually("every key is admitted most of a window", async || {
            let admitted = self.admitted.lock();
            let most = |key| {
                admitted
                    .iter()
                    .any(|((k, of), calls)| *k == key && *of > after && *calls >= u64::from(LIMIT) * 3 / 4)
            };
            (0..KEYS).all(most).then_some(())
        })
        .await;
        for ((key, of), calls) in &*self.admitted.lock() {
            assert!(*calls <= u64::from(LIMIT), "key {key}: {calls} admitted in window {of}, of {LIMIT}");
        }
        for throttle in &self.throttles {
            assert_eq!(throttle.stats().largest_over, Some(0));
        }
    }
}

async fn call_on(throttle: FleetThrottle, number: u8, admitted: Admitted) {
    let key: Key = KeyHasher::seeded(Seed::of(b"test")).part(&[number]).finish();
    loop {
        let call = Call::at(clock::now());
        let window = window_now();
        if let Ok(permit) = throttle.enter(&call, &key).await {
            // It is spent at some time between the two: in either window. One of them is charged only when they are the
            // same, as the other could not be told.
            if window == window_now() {
                *admitted.lock().entry((number, window)).or_default() += 1;
            }
            tidegate::Permit::settle(permit, tidegate::Outcome::Success, clock::now());
        }
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_server_that_is_flushed_stopped_and_killed_costs_no_call_too_many() {
    let mut redis = Redis::start(&[]);
    let fleet = Fleet::start(&redis.url()).await;
    let () = redis.say("FLUSHALL").await;
    fleet.admits().await;
    redis.signal(Signal::STOP);
    let unanswered = || fleet.throttles.iter().all(|throttle| throttle.stats().unanswered > 0);
    eventually("calls are refused for want of an answer", async || unanswered().then_some(())).await;
    redis.signal(Signal::CONT);
    fleet.admits().await;
    redis.kill();
    redis.run();
    fleet.admits().await;
    let losses: Vec<u64> = fleet.throttles.iter().map(|throttle| throttle.stats().losses).collect();
    assert!(losses.iter().all(|&losses| losses >= 2), "{losses:?}");
}

#[tokio::test]
async fn while_a_server_hangs_no_call_waits_for_it_once_that_is_known() {
    let redis = Redis::start(&[]);
    let fleet = Fleet::start(&redis.url()).await;
    redis.signal(Signal::STOP);
    let known = || fleet.throttles.iter().all(|throttle| throttle.stats().is_away);
    eventually("the store is known to be away", async || known().then_some(())).await;
    // Long enough that the connection is given up, and others that are tried hang as well.
    let until = Instant::now() + HANGS;
    let mut key = 0;
    while Instant::now() < until {
        for throttle in &fleet.throttles {
            key += 1;
            let call = Call::at(clock::now());
            let entered = throttle.enter(&call, &Key::from_bits(key)).now_or_never();
            let refused = entered.expect("it waits for nothing").expect_err("nobody could grant it");
            assert_eq!(refused.by, By::Store);
        }
        sleep(Duration::from_millis(1)).await;
    }
    redis.signal(Signal::CONT);
    fleet.admits().await;
}

#[tokio::test]
async fn a_master_that_sentinels_replace_costs_no_call_too_many() {
    let mut sentinels = Sentinels::start().await;
    let fleet = Fleet::start(&sentinels.url()).await;
    sentinels.servers[0].kill();
    fleet.admits().await;
}

#[tokio::test]
async fn a_cluster_that_loses_a_master_costs_no_call_too_many() {
    let mut cluster = Cluster::start(3, true).await;
    let fleet = Fleet::start(&cluster.url()).await;
    cluster.nodes[0].kill();
    fleet.admits().await;
}
