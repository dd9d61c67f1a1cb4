//! Ten thousand callers that wait for one fetch: how often it is called, how often each is polled, how soon they wake.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tidegate::{
    Call, clock,
    keeper::{Failed, Fetch, Fetched, Keeper, Settings},
};
use tokio::{runtime, sync::Notify};

use crate::harness::Suite;

const WAITERS: usize = 10_000;
/// The whole is done this often; the median run is shown.
const RUNS: usize = 7;

/// A source that answers when it is told to.
#[derive(Clone, Default)]
struct Gated(Arc<State>);

#[derive(Default)]
struct State {
    calls: AtomicU64,
    open: Notify,
    polls: AtomicU64,
    answered: Mutex<Option<Instant>>,
}

impl Gated {
    async fn answer(&self) -> u64 {
        self.0.calls.fetch_add(1, Relaxed);
        self.0.open.notified().await;
        *self.0.answered.lock().expect("nobody panics with it") = Some(Instant::now());
        7
    }

    /// Drives a waiter, counting its polls, and tells when it has its answer.
    async fn wait<T>(self, answer: impl Future<Output = T>) -> Instant {
        let mut answer = pin!(answer);
        poll_fn(|context| {
            self.0.polls.fetch_add(1, Relaxed);
            answer.as_mut().poll(context)
        })
        .await;
        Instant::now()
    }

    async fn told(&self, waiters: Vec<tokio::task::JoinHandle<Instant>>) -> Told {
        while self.0.polls.load(Relaxed) < WAITERS as u64 {
            tokio::task::yield_now().await;
        }
        self.0.open.notify_one();
        let mut had = Vec::with_capacity(WAITERS);
        for waiter in waiters {
            had.push(waiter.await.expect("a waiter does not panic"));
        }
        let answered = self.0.answered.lock().expect("nobody panics with it").expect("it has answered");
        let mut woken: Vec<_> = had.into_iter().map(|had| had.duration_since(answered)).collect();
        woken.sort_unstable();
        Told {
            calls: self.0.calls.load(Relaxed),
            polls: self.0.polls.load(Relaxed) as f64 / WAITERS as f64,
            p50: woken[WAITERS / 2],
            p99: woken[WAITERS / 100 * 99],
        }
    }
}

impl Fetch for Gated {
    type Key = u32;
    type Value = u64;
    type Error = std::convert::Infallible;

    async fn fetch(&self, _key: &u32) -> Result<Fetched<u64>, Failed<Self::Error>> {
        Ok(Fetched::value(self.answer().await))
    }
}

#[derive(Clone, Copy)]
struct Told {
    calls: u64,
    polls: f64,
    p50: Duration,
    p99: Duration,
}

async fn ours() -> Told {
    let source = Gated::default();
    let keeper = Keeper::new(source.clone(), Settings::default()).expect("valid settings");
    let waiters = (0..WAITERS).map(|_| {
        let (keeper, source) = (keeper.clone(), source.clone());
        tokio::spawn(
            source.wait(async move { keeper.get(&Call::at(clock::now()), &1).await.value().is_some() }),
        )
    });
    source.told(waiters.collect()).await
}

async fn moka() -> Told {
    let source = Gated::default();
    let moka = moka::future::Cache::<u32, u64>::new(100);
    let waiters = (0..WAITERS).map(|_| {
        let (moka, source) = (moka.clone(), source.clone());
        let fetch = source.clone();
        tokio::spawn(source.wait(async move { moka.get_with(1, async move { fetch.answer().await }).await }))
    });
    source.told(waiters.collect()).await
}

pub(super) fn tables(suite: &mut Suite) {
    suite.counts("keeper: 10 000 callers wait for one fetch", |table| {
        table.columns(["calls to the source", "polls a caller", "answered after, p50", "p99"]);
        type Run = fn() -> Told;
        let runs: [(&str, Run); 2] = [
            ("tidegate Keeper", || on_two_threads().block_on(ours())),
            ("moka get_with", || on_two_threads().block_on(moka())),
        ];
        for (name, run) in runs {
            let mut told: Vec<_> = (0..RUNS).map(|_| run()).collect();
            told.sort_unstable_by_key(|told| told.p99);
            let Told { calls, polls, p50, p99 } = told[RUNS / 2];
            table.row(name, [
                calls.to_string(),
                format!("{polls:.2}"),
                format!("{:.2} ms", p50.as_secs_f64() * 1e3),
                format!("{:.2} ms", p99.as_secs_f64() * 1e3),
            ]);
        }
        table.bar("1 call, 2 polls, 1 ms at p99. Tasks of a runtime with two threads; the time includes their turns");
    });
}

fn on_two_threads() -> runtime::Runtime {
    runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime")
}
