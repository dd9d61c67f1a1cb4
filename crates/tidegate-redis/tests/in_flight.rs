//! Calls in flight over a fleet: instances of the real driver share the permits of one limit through a real server.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use support::{Redis, eventually};
use tidegate::{
    Call, Limiter, clock,
    fleet::Node,
    limiter::{Answer, Demand, FleetError, FleetLimiter, FleetStore as _},
};
use tidegate_redis::{Client, Namespace, RedisFleet, RedisLedger, Settings, StoreUrl};
use tokio::{task::JoinSet, time::sleep};

const LIMIT: u32 = 12;
const LIFE: Duration = Duration::from_millis(400);

/// What the dependency sees.
#[derive(Default)]
struct Dependency {
    running: AtomicI64,
    peak: AtomicI64,
    served: AtomicU64,
}

/// Counts a call as running until it is dropped.
struct Running(Arc<Dependency>);

impl Running {
    fn begin(dependency: &Arc<Dependency>) -> Self {
        let now = dependency.running.fetch_add(1, SeqCst) + 1;
        dependency.peak.fetch_max(now, SeqCst);
        Self(dependency.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
        self.0.served.fetch_add(1, SeqCst);
    }
}

async fn join(url: &str, number: u64) -> FleetLimiter {
    let url: StoreUrl = url.parse().expect("a URL");
    let client = Client::start(&url, Settings::default()).expect("good settings");
    eventually("the store is reached", async || client.ready().await.ok()).await;
    let ledger = RedisLedger::new(client, Namespace::new("test").expect("a namespace"));
    let store = RedisFleet::new(&ledger, "database", LIMIT);
    FleetLimiter::join(store, Node(number), LIFE, Limiter::builder().queue(100)).expect("good settings")
}

/// Callers of one instance, more than the fleet's limit, without a rest.
fn load(limiter: &FleetLimiter, dependency: &Arc<Dependency>) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    for _ in 0..LIMIT + 3 {
        let (limiter, dependency) = (limiter.clone(), dependency.clone());
        callers.spawn(async move {
            loop {
                let call = Call::at(clock::now()).within(Duration::from_secs(5));
                let served = limiter
                    .run(&call, async {
                        let _running = Running::begin(&dependency);
                        sleep(Duration::from_millis(3)).await;
                    })
                    .await;
                if let Err(FleetError::Refused(_)) = served {
                    sleep(Duration::from_millis(10)).await;
                }
            }
        });
    }
    callers
}

#[tokio::test]
async fn a_fleet_never_has_more_in_flight_than_its_limit() {
    let mut redis = Redis::start(&[]);
    let dependency = Arc::new(Dependency::default());
    let mut instances = Vec::new();
    for number in 0..3 {
        let limiter = join(&redis.url(), number).await;
        instances.push((load(&limiter, &dependency), limiter));
    }
    let serve_on = async |what: &str| {
        let before = dependency.served.load(SeqCst);
        eventually(what, async || (dependency.served.load(SeqCst) > before + 1000).then_some(())).await;
        assert!(dependency.peak.load(SeqCst) <= i64::from(LIMIT), "{what}: {}", dependency.peak.load(SeqCst));
    };
    serve_on("the fleet serves").await;
    assert_eq!(dependency.peak.load(SeqCst), i64::from(LIMIT), "it uses what it has");
    let () = redis.say("FLUSHALL").await;
    serve_on("it serves after its leases were flushed").await;
    redis.kill();
    eventually("nobody is admitted without a lease", async || {
        (dependency.running.load(SeqCst) == 0).then_some(())
    })
    .await;
    redis.run();
    serve_on("it serves with an empty store").await;
    instances.pop();
    let dead = instances.pop();
    drop(dead);
    let all = async || (instances[0].1.limiter().limit() == Some(LIMIT)).then_some(());
    eventually("the one that is left has all permits", all).await;
    serve_on("it serves alone").await;
}

#[tokio::test]
async fn leases_of_another_life_are_refused_while_others_hold_any() {
    let redis = Redis::start(&[]);
    let url: StoreUrl = redis.url().parse().expect("a URL");
    let settings = Settings { deadline: support::PATIENCE, ..Settings::default() };
    let client = Client::start(&url, settings).expect("good settings");
    eventually("the store is reached", async || client.ready().await.ok()).await;
    let ledger = RedisLedger::new(client, Namespace::new("test").expect("a namespace"));
    let store = RedisFleet::new(&ledger, "database", LIMIT);
    let demand = |seq| Demand { seq, kept: 0, wanted: 3 };
    let (long, short) = (Duration::from_secs(3600), LIFE);
    let leased = store.lease(Node(1), demand(1), long).await.expect("it answers");
    assert_eq!(leased, Answer::Leased(0), "a new ledger learns first");
    let refused = store.lease(Node(2), demand(1), short).await.expect_err("others have another life");
    assert_eq!(
        refused.to_string(),
        "permits of `database` are leased for 3600s by other instances and for 400ms by this one; give all the same life \
         of a lease, or let the others end first"
    );
    assert!(
        matches!(store.lease(Node(2), demand(2), long).await, Ok(Answer::Leased(_))),
        "the same is taken"
    );
    // Those of a third limit are its own matter.
    let other = RedisFleet::new(&ledger, "cache", LIMIT);
    assert!(other.lease(Node(2), demand(1), short).await.is_ok());
}
