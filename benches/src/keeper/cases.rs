//! What keepers and caches do when the source hangs or fails.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tidegate::{
    Call, clock,
    keeper::{Failed, Fetch, Fetched, Keeper, Settings},
};
use tokio::{
    runtime,
    time::{Instant, advance, sleep, timeout},
};

use crate::harness::Suite;

/// A source that never answers, or always fails, and counts.
#[derive(Clone, Default)]
struct Counting {
    starts: Arc<AtomicU64>,
    hangs: bool,
}

impl Counting {
    async fn ask(&self) -> Result<u64, &'static str> {
        self.starts.fetch_add(1, Relaxed);
        if self.hangs {
            pending::<()>().await;
        }
        Err("down")
    }

    fn starts(&self) -> String {
        self.starts.load(Relaxed).to_string()
    }
}

impl Fetch for Counting {
    type Key = u32;
    type Value = u64;
    type Error = &'static str;

    async fn fetch(&self, _key: &u32) -> Result<Fetched<u64>, Failed<&'static str>> {
        self.ask().await.map(Fetched::value).map_err(Failed::key)
    }
}

pub(super) fn tables(suite: &mut Suite) {
    let paused = || {
        let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime with a paused clock")
    };
    suite.counts("keeper: one hung key, 50 callers a second with 1 s deadlines, 4 s", |table| {
        table.columns(["calls to the source"]);
        for (name, starts) in [
            ("tidegate Keeper", paused().block_on(ours_hung())),
            ("moka try_get_with", paused().block_on(moka_hung())),
        ] {
            table.row(name, [starts]);
        }
        table.bar("1 start");
    });
    suite.counts("keeper: a failing key, one caller in a loop for 0.5 s", |table| {
        table.columns(["calls to the source"]);
        for (name, starts) in [
            ("tidegate Keeper", paused().block_on(ours_failing())),
            ("moka try_get_with", paused().block_on(moka_failing())),
        ] {
            table.row(name, [starts]);
        }
        table.bar(
            "the backoff schedule: single digits. The loop is one caller every 10 us of a simulated clock",
        );
    });
}

/// Starts a caller every 20 ms for 4 s.
async fn callers(mut caller: impl FnMut()) {
    for _ in 0..200 {
        caller();
        sleep(Duration::from_millis(20)).await;
    }
}

async fn ours_hung() -> String {
    let source = Counting { hangs: true, ..Counting::default() };
    let keeper = Keeper::new(source.clone(), Settings::default()).expect("valid settings");
    callers(|| {
        let keeper = keeper.clone();
        tokio::spawn(async move {
            let call = Call::at(clock::now()).within(Duration::from_secs(1));
            keeper.get(&call, &1).await.value().is_some()
        });
    })
    .await;
    source.starts()
}

async fn moka_hung() -> String {
    let source = Counting { hangs: true, ..Counting::default() };
    let moka = moka::future::Cache::<u32, u64>::new(100);
    callers(|| {
        let (moka, source) = (moka.clone(), source.clone());
        tokio::spawn(async move {
            let fetch = moka.try_get_with(1, async move { source.ask().await });
            timeout(Duration::from_secs(1), fetch).await.is_ok()
        });
    })
    .await;
    source.starts()
}

const LOOP: Duration = Duration::from_millis(500);
const STEP: Duration = Duration::from_micros(10);

async fn ours_failing() -> String {
    let source = Counting::default();
    let keeper = Keeper::new(source.clone(), Settings::default()).expect("valid settings");
    let began = Instant::now();
    while began.elapsed() < LOOP {
        drop(keeper.get(&Call::at(clock::now()), &1).await);
        advance(STEP).await;
    }
    source.starts()
}

async fn moka_failing() -> String {
    let source = Counting::default();
    let moka = moka::future::Cache::<u32, u64>::new(100);
    let began = Instant::now();
    while began.elapsed() < LOOP {
        let source = source.clone();
        drop(moka.try_get_with(1, async move { source.ask().await }).await);
        advance(STEP).await;
    }
    source.starts()
}
