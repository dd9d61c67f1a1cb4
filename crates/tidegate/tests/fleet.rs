//! A limit shared by a fleet, on a paused clock.
#![cfg(not(any(loom, shuttle)))]

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::join_all};
use tidegate::{
    By, Call,
    clock::now,
    limiter::{Answer, Demand, FleetError, FleetLimiter, FleetStore, Limiter, LocalFleet, Node},
};
use tokio::time::sleep;

const MS: Duration = Duration::from_millis(1);
const LIFE: Duration = Duration::from_secs(3);

fn call() -> Call {
    Call::at(now())
}

fn join(store: impl FleetStore, node: u64) -> FleetLimiter {
    let settings = Limiter::builder().queue(10_000).max_wait(MS * 10_000);
    FleetLimiter::join(store, Node(node), LIFE, settings).expect("valid settings")
}

/// Calls of all instances at the dependency.
#[derive(Default)]
struct Dependency {
    live: AtomicU32,
    peak: AtomicU32,
    served: AtomicU32,
}

struct Live(Arc<Dependency>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve(dependency: Arc<Dependency>, takes: Duration) {
    let live = dependency.live.fetch_add(1, Ordering::SeqCst) + 1;
    dependency.peak.fetch_max(live, Ordering::SeqCst);
    let _live = Live(dependency.clone());
    sleep(takes).await;
    dependency.served.fetch_add(1, Ordering::SeqCst);
}

#[tokio::test(start_paused = true)]
async fn a_fleet_shares_its_permits_by_demand_and_never_exceeds_them() {
    let (store, dependency) = (LocalFleet::new(250), Arc::new(Dependency::default()));
    let fleet: Vec<_> = (0..5).map(|node| join(store.clone(), node)).collect();
    // One instance is far busier than the others.
    let mut calls = Vec::new();
    for (node, count) in [2000, 10, 10, 10, 0].into_iter().enumerate() {
        for _ in 0..count {
            let (limiter, dependency) = (fleet[node].clone(), dependency.clone());
            calls.push(tokio::spawn(async move { limiter.run(&call(), serve(dependency, MS * 200)).await }));
        }
    }
    sleep(MS * 700).await;
    let busy = fleet[0].limiter().in_flight();
    assert!(busy > 200, "the busy one has {busy}");
    assert!(join_all(calls).await.into_iter().all(|call| call.unwrap() == Ok(())));
    assert_eq!(dependency.served.load(Ordering::SeqCst), 2030);
    let peak = dependency.peak.load(Ordering::SeqCst);
    assert!((230..=250).contains(&peak), "{peak}");
}

#[tokio::test(start_paused = true)]
async fn the_permits_of_a_dead_instance_return_after_its_lease() {
    let store = LocalFleet::new(10);
    let is_cut = Arc::new(AtomicBool::new(false));
    let dead = join(CutOff(store.clone(), is_cut.clone()), 1);
    let calls = [call(); 10];
    let _held = join_all(calls.iter().map(|call| dead.acquire(call))).await;
    assert_eq!(store.leased(), 10);
    // From now on the store hears nothing of it: the process is gone.
    is_cut.store(true, Ordering::SeqCst);
    let began = now();
    let alive = join(store.clone(), 2);
    let _permit = alive.acquire(&call()).await.unwrap();
    let waited = now().since(began);
    assert!(waited > LIFE / 2 && waited <= LIFE * 3 / 2, "{waited:?}");
}

/// A store that can be cut off.
#[derive(Clone)]
struct CutOff(LocalFleet, Arc<AtomicBool>);

impl FleetStore for CutOff {
    type Error = Infallible;

    async fn lease(&self, node: Node, demand: Demand, life: Duration) -> Result<Answer, Infallible> {
        if self.1.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.0.lease(node, demand, life).await
    }

    async fn give_back(&self, node: Node, seq: u64) -> Result<(), Infallible> {
        if self.1.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.0.give_back(node, seq).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_cannot_renew_stops_before_others_get_its_permits() {
    let (store, is_cut) = (LocalFleet::new(8), Arc::new(AtomicBool::new(false)));
    let dependency = Arc::new(Dependency::default());
    let cut = join(CutOff(store.clone(), is_cut.clone()), 1);
    let endless: Vec<_> = (0..8)
        .map(|_| {
            let (limiter, dependency) = (cut.clone(), dependency.clone());
            tokio::spawn(async move { limiter.run(&call(), serve(dependency, MS * 999_999)).await })
        })
        .collect();
    sleep(MS * 500).await;
    assert_eq!(dependency.live.load(Ordering::SeqCst), 8);
    is_cut.store(true, Ordering::SeqCst);
    sleep(MS * 500).await;
    assert_eq!(dependency.live.load(Ordering::SeqCst), 8, "it goes on while its lease lasts");
    let other = join(store.clone(), 2);
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (limiter, dependency) = (other.clone(), dependency.clone());
            tokio::spawn(async move { limiter.run(&call(), serve(dependency, MS * 100)).await })
        })
        .collect();
    for call in endless {
        assert_eq!(call.await.unwrap(), Err(FleetError::LeaseLost));
    }
    let late = cut.limiter().try_acquire(&call()).unwrap_err();
    assert_eq!(late.by, By::InFlight, "without a lease nobody is admitted");
    assert!(join_all(calls).await.into_iter().all(|call| call.unwrap() == Ok(())));
    assert_eq!(dependency.peak.load(Ordering::SeqCst), 8);
    is_cut.store(false, Ordering::SeqCst);
    assert!(cut.run(&call(), async {}).await.is_ok(), "it comes back with the store");
}

/// A store whose requests and answers are late, lost, repeated and out of order.
#[derive(Clone)]
struct Unruly {
    store: LocalFleet,
    random: Arc<Mutex<fastrand::Rng>>,
}

impl Unruly {
    fn new(store: LocalFleet, seed: u64) -> Self {
        Self { store, random: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))) }
    }

    fn random(&self) -> std::sync::MutexGuard<'_, fastrand::Rng> {
        self.random.lock().expect("no test panics while it holds the dice")
    }

    /// Mostly soon; sometimes so late that nobody waits for it any more.
    fn delay(&self) -> Duration {
        let mut random = self.random();
        if random.u8(..4) == 0 { MS * random.u32(..8000) } else { MS * random.u32(..100) }
    }

    /// Once or twice, each with a delay of its own.
    fn copies(&self) -> Vec<Duration> {
        let twice = self.random().bool();
        (0..=u8::from(twice)).map(|_| self.delay()).collect()
    }
}

impl FleetStore for Unruly {
    type Error = Infallible;

    async fn lease(&self, node: Node, demand: Demand, life: Duration) -> Result<Answer, Infallible> {
        let (answers, mut first) = tokio::sync::mpsc::unbounded_channel();
        for delay in self.copies() {
            let (unruly, answers) = (self.clone(), answers.clone());
            tokio::spawn(async move {
                sleep(delay).await;
                let answer = unruly.store.lease(node, demand, life).await;
                sleep(unruly.delay()).await;
                let _ = answers.send(answer);
            });
        }
        first.recv().await.expect("it is answered some time")
    }

    async fn give_back(&self, node: Node, seq: u64) -> Result<(), Infallible> {
        for delay in self.copies() {
            let unruly = self.clone();
            tokio::spawn(async move {
                sleep(delay).await;
                unruly.store.give_back(node, seq).await
            });
        }
        sleep(self.delay()).await;
        Ok(())
    }
}

/// The seed of a run: one by default, more by `TIDEGATE_SEEDS`.
fn seeds() -> std::ops::Range<u64> {
    0..std::env::var("TIDEGATE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(20)
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_kept_with_a_store_that_delays_repeats_and_reorders() {
    for seed in seeds() {
        let (store, dependency) = (LocalFleet::new(20), Arc::new(Dependency::default()));
        let unruly = Unruly::new(store.clone(), seed);
        let mut random = fastrand::Rng::with_seed(seed);
        for node in 0..30 {
            // Instances come and go; each makes a burst of calls.
            let limiter = join(unruly.clone(), node);
            for _ in 0..random.u8(1..30) {
                let (limiter, dependency, takes) = (limiter.clone(), dependency.clone(), random.u32(1..2000));
                tokio::spawn(async move { limiter.run(&call(), serve(dependency, MS * takes)).await });
            }
            sleep(MS * random.u32(..1500)).await;
        }
        sleep(MS * 60_000).await;
        assert_eq!(dependency.live.load(Ordering::SeqCst), 0, "seed {seed}");
        let (peak, served) =
            (dependency.peak.load(Ordering::SeqCst), dependency.served.load(Ordering::SeqCst));
        assert!(peak <= 20, "seed {seed}: {peak} of 20");
        assert!(peak >= 10 && served > 100, "seed {seed}: peak {peak}, {served} served");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_limiter_dropped_gives_its_permits_back_once_its_calls_are_over() {
    let store = LocalFleet::new(5);
    let limiter = join(store.clone(), 1);
    let held = limiter.acquire(&call()).await.unwrap();
    drop(limiter);
    sleep(LIFE * 3).await;
    assert!(store.leased() > 0, "its call still runs, and its lease is renewed");
    drop(held);
    sleep(MS).await;
    assert_eq!(store.leased(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_never_comes_back_is_not_waited_for_for_good() {
    let store = LocalFleet::new(5);
    let limiter = join(store.clone(), 1);
    std::mem::forget(limiter.acquire(&call()).await.unwrap());
    let began = now();
    limiter.close().await;
    assert!(now().since(began) <= LIFE * 11);
    sleep(LIFE).await;
    let other = join(store.clone(), 2);
    other.run(&call(), async {}).await.unwrap();
    assert_eq!(limiter.try_acquire(&call()).unwrap_err().by, By::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_closed_limiter_has_given_its_permits_back() {
    let store = LocalFleet::new(5);
    let limiter = join(store.clone(), 1);
    limiter.run(&call(), async {}).await.unwrap();
    assert!(store.leased() > 0);
    limiter.close().await;
    assert_eq!(store.leased(), 0);
    assert_eq!(limiter.acquire(&call()).await.unwrap_err().by, By::Closed);
    assert!(limiter.lease_ends() <= now());
    limiter.close().await;
}

#[tokio::test(start_paused = true)]
async fn closing_without_a_store_ends_with_the_lease() {
    let is_cut = Arc::new(AtomicBool::new(false));
    let limiter = join(CutOff(LocalFleet::new(5), is_cut.clone()), 1);
    limiter.run(&call(), async {}).await.unwrap();
    is_cut.store(true, Ordering::SeqCst);
    let ends = limiter.lease_ends();
    limiter.close().await;
    assert!(now() >= ends && now() <= ends + LIFE, "{:?} after", now().since(ends));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_stopped_past_its_lease_admits_nobody_on_it() {
    let store = LocalFleet::new(5);
    let limiter = join(store.clone(), 1);
    limiter.run(&call(), async {}).await.unwrap();
    // The clock has moved on, and no task has run since.
    let mut stopped = Box::pin(tokio::time::advance(LIFE * 2));
    assert!(stopped.as_mut().now_or_never().is_none());
    let refused = limiter.try_acquire(&call()).unwrap_err();
    assert_eq!((refused.by, limiter.limiter().in_flight()), (By::InFlight, 0));
    stopped.await;
    limiter.run(&call(), async {}).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn callers_of_the_limiter_below_are_heard_too() {
    let store = LocalFleet::new(50);
    let limiter = join(store.clone(), 1);
    let below = limiter.limiter().clone();
    let calls = [call(); 50];
    let began = now();
    let held = join_all(calls.iter().map(|call| below.acquire(call))).await;
    assert!(held.iter().all(Result::is_ok));
    assert!(now().since(began) < LIFE / 4, "no renewal was waited for");
}
