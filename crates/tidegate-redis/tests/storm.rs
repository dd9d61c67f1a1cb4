//! Faults of every kind in a random order, one on top of another, while nodes that share a store admit calls under limits
//! of every kind: none admits a call too many, and all go on afterwards.
//!
//! Each fault comes once, or again and again for `TIDEGATE_STORM_SECONDS`. The seed is printed; `TIDEGATE_STORM_SEED`
//! repeats the order of the faults, not what becomes of them.

#[path = "support/record.rs"]
mod record;
mod support;

use std::{env, sync::Arc, time::Duration};

use fastrand::Rng;
use record::{Bound, Record, micros_now};
use rustix::process::Signal;
use support::{Redis, eventually};
use tidegate::{
    Call, Rate, clock,
    fleet::{FleetThrottle, Rule},
    throttle::Key,
};
use tidegate_core::{Algorithm, Quota};
use tidegate_redis::{Client, Namespace, RedisLedger, Settings, StoreUrl};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

const NODES: usize = 3;
const KEYS: usize = 2;
/// Callers of each key of each limit on each node.
const CALLERS: usize = 2;
const WINDOW: Duration = Duration::from_millis(2500);

/// A limit that all nodes share, and what was admitted by key.
struct Limit {
    name: &'static str,
    throttles: Vec<FleetThrottle>,
    records: [Record; KEYS],
    bound: Bound,
}

impl Limit {
    fn new(name: &'static str, quota: Quota, ledgers: &[RedisLedger], bound: Bound) -> Self {
        let mut rule = Rule::of(quota);
        if quota.algorithm() == Algorithm::FixedWindow {
            // Short beside the window: after a loss grants go on in the same one.
            rule = rule.life(Duration::from_millis(250));
        }
        let rule = rule.build().expect("a rule");
        let throttle = |ledger: &RedisLedger| {
            FleetThrottle::builder(name, rule, ledger.clone()).build().expect("a runtime")
        };
        Self { name, throttles: ledgers.iter().map(throttle).collect(), records: Default::default(), bound }
    }
}

fn limits(ledgers: &[RedisLedger]) -> Vec<Arc<Limit>> {
    let rate = |count, period| Quota::of(Rate::new(count, period).expect("a rate"));
    let windows = rate(150, WINDOW).algorithm(Algorithm::FixedWindow).build().expect("a quota");
    let sliding = rate(150, WINDOW).algorithm(Algorithm::SlidingWindow).build().expect("a quota");
    let bucket = rate(60, Duration::from_secs(1)).algorithm(Algorithm::TokenBucket).burst(90);
    let bucket = bucket.build().expect("a quota");
    [
        Limit::new("windows", windows, ledgers, Bound::Window { calls: 150, period: WINDOW }),
        Limit::new("sliding", sliding, ledgers, Bound::Span { calls: 150, period: WINDOW }),
        Limit::new("bucket", bucket, ledgers, Bound::Bucket { burst: 90, a_second: 60 }),
    ]
    .map(Arc::new)
    .into()
}

async fn call(limit: Arc<Limit>, node: usize, key: usize, mut dice: Rng) {
    let name = Key::of(&[u8::try_from(key).expect("few keys")]);
    loop {
        let from = micros_now();
        // Some have no time, and some go away while they wait.
        let now = Call::at(clock::now());
        let patience = Duration::from_millis(dice.u64(1..100));
        let now = if dice.bool() { now.within(patience) } else { now };
        let leaves_after = if dice.u8(..4) == 0 { patience / 2 } else { support::PATIENCE };
        let entered = timeout(leaves_after, limit.throttles[node].enter(&now, &name)).await;
        if let Ok(Ok(permit)) = entered {
            limit.records[key].admitted(from, micros_now());
            drop(permit);
        }
        sleep(Duration::from_micros(dice.u64(200..8000))).await;
    }
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Disconnect,
    LoseHints,
    Pause,
    PauseWrites,
    Busy,
    Stop,
    ForgetScripts,
    NoMemory,
    Replica,
    Flush,
    Restart,
}

const FAULTS: [Fault; 11] = [
    Fault::Disconnect,
    Fault::LoseHints,
    Fault::Pause,
    Fault::PauseWrites,
    Fault::Busy,
    Fault::Stop,
    Fault::ForgetScripts,
    Fault::NoMemory,
    Fault::Replica,
    Fault::Flush,
    Fault::Restart,
];

impl Fault {
    async fn strike(self, redis: &mut Redis, dice: &mut Rng) {
        let for_a_while = Duration::from_millis(dice.u64(5..900));
        let millis = for_a_while.as_millis();
        match self {
            Self::Disconnect => _ = redis.say::<u64>("CLIENT KILL TYPE normal").await,
            Self::LoseHints => _ = redis.say::<u64>("CLIENT KILL TYPE pubsub").await,
            Self::Pause => redis.say::<()>(&format!("CLIENT PAUSE {millis} ALL")).await,
            Self::PauseWrites => redis.say::<()>(&format!("CLIENT PAUSE {millis} WRITE")).await,
            Self::Busy => {
                let mut connection = redis.connect().await;
                let turns = dice.u32(1..10) * 1_000_000;
                let script = format!("for turn = 1, {turns} do end");
                redis::cmd("EVAL").arg(script).arg(0).query_async(&mut connection).await.expect("it runs")
            }
            Self::Stop => {
                redis.signal(Signal::STOP);
                sleep(for_a_while).await;
                redis.signal(Signal::CONT);
            }
            Self::ForgetScripts => redis.say::<()>("SCRIPT FLUSH").await,
            Self::NoMemory => {
                redis.say::<()>("CONFIG SET maxmemory 1").await;
                sleep(for_a_while).await;
                redis.say::<()>("CONFIG SET maxmemory 0").await;
            }
            Self::Replica => {
                redis.say::<()>("REPLICAOF 127.0.0.1 1").await;
                sleep(for_a_while).await;
                redis.say::<()>("REPLICAOF NO ONE").await;
            }
            Self::Flush => redis.say::<()>("FLUSHALL").await,
            Self::Restart => {
                redis.kill();
                sleep(for_a_while).await;
                redis.run();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_on_top_of_another_admits_a_call_too_many() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("TIDEGATE_STORM_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("TIDEGATE_STORM_SEED={seed}");
    let until = number("TIDEGATE_STORM_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut dice = Rng::with_seed(seed);
    let mut redis = Redis::start(&[]);
    let mut ledgers = Vec::new();
    for _ in 0..NODES {
        let url: StoreUrl = redis.url().parse().expect("a URL");
        let client = Client::start(&url, Settings::default()).expect("good settings");
        eventually("the store is reached", async || client.ready().await.ok()).await;
        ledgers.push(RedisLedger::new(client, Namespace::new("storm").expect("a namespace")));
    }
    let (limits, mut callers) = (limits(&ledgers), JoinSet::new());
    for limit in &limits {
        for node in 0..NODES {
            for key in 0..KEYS * CALLERS {
                callers.spawn(call(limit.clone(), node, key % KEYS, dice.fork()));
            }
        }
    }
    all_admit(&limits).await;
    loop {
        let mut faults = FAULTS;
        dice.shuffle(&mut faults);
        for fault in faults {
            eprintln!("{} {fault:?}", micros_now());
            fault.strike(&mut redis, &mut dice).await;
            // Sometimes it is over by the next one, sometimes not, and sometimes calls are admitted in between.
            let most = if dice.u8(..4) == 0 { 3000 } else { 300 };
            sleep(Duration::from_millis(dice.u64(..most))).await;
        }
        if until.is_none_or(|until| Instant::now() >= until) {
            break;
        }
    }
    all_admit(&limits).await;
    callers.shutdown().await;
    for limit in &limits {
        for record in &limit.records {
            record.check(&limit.bound, limit.name);
        }
        let stats: Vec<_> = limit.throttles.iter().map(FleetThrottle::stats).collect();
        assert!(stats.iter().any(|stats| stats.losses > 0), "{stats:?}");
        eprintln!("{}: {} admitted", limit.name, limit.records.iter().map(Record::count).sum::<usize>());
    }
}

/// Waits until calls of every limit and key are admitted again.
async fn all_admit(limits: &[Arc<Limit>]) {
    for limit in limits {
        for record in &limit.records {
            let before = record.count();
            eventually("calls are admitted", async || (record.count() > before).then_some(())).await;
        }
    }
}
