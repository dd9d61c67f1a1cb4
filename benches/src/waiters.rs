//! Ten thousand tasks that wait for one thing: how often it is fetched, how often each is polled, how soon their wakers are
//! called, and how soon they have run.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Wake, Waker},
    time::{Duration, Instant},
};

use tokio::{
    runtime::{self, Runtime},
    sync::Notify,
};

use crate::harness::Counts;

const WAITERS: usize = 10_000;
/// One in so many notes when its waker is called: to note it for each would cost more than to wake it.
const NOTED: usize = 16;

/// What a source waits at before it answers.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<State>);

#[derive(Default)]
struct State {
    calls: AtomicU64,
    open: Notify,
    polls: AtomicU64,
    passed: Mutex<Option<Instant>>,
}

/// Notes when it is called.
struct Noting {
    waker: Waker,
    called: OnceLock<Instant>,
}

impl Wake for Noting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.called.get_or_init(Instant::now);
        self.waker.wake_by_ref();
    }
}

/// When a waiter was woken, if it noted that, and when it had its answer.
struct Had {
    woken: Option<Instant>,
    answered: Instant,
}

impl Gate {
    /// What a fetch does: counts, and waits until all wait.
    pub(crate) async fn pass(&self) {
        self.0.calls.fetch_add(1, Relaxed);
        self.0.open.notified().await;
        *self.0.passed.lock().expect("nobody panics with it") = Some(Instant::now());
    }

    /// Has the waiters wait, opens, and tells what became of them.
    pub(crate) async fn told<W: Future<Output = bool> + Send + 'static>(
        &self,
        waiter: impl Fn() -> W,
    ) -> Told {
        let waiters: Vec<_> =
            (0..WAITERS).map(|at| tokio::spawn(self.clone().wait(at % NOTED == 0, waiter()))).collect();
        while self.0.polls.load(Relaxed) < WAITERS as u64 {
            tokio::task::yield_now().await;
        }
        self.0.open.notify_one();
        let mut had = Vec::with_capacity(WAITERS);
        for waiter in waiters {
            had.push(waiter.await.expect("a waiter does not panic"));
        }
        let passed = self.0.passed.lock().expect("nobody panics with it").expect("it was opened");
        let sorted = |instants: &mut dyn Iterator<Item = Instant>| {
            let mut after: Vec<_> = instants.map(|at| at.duration_since(passed)).collect();
            after.sort_unstable();
            after
        };
        Told {
            calls: self.0.calls.load(Relaxed),
            polls: self.0.polls.load(Relaxed) as f64 / WAITERS as f64,
            woken: Spread::of(&sorted(&mut had.iter().filter_map(|had| had.woken))),
            answered: Spread::of(&sorted(&mut had.iter().map(|had| had.answered))),
        }
    }

    async fn wait(self, notes: bool, answer: impl Future<Output = bool>) -> Had {
        let mut answer = pin!(answer);
        let mut noting: Option<Arc<Noting>> = None;
        let good = poll_fn(|context| {
            self.0.polls.fetch_add(1, Relaxed);
            if !notes {
                return answer.as_mut().poll(context);
            }
            let noting = noting.get_or_insert_with(|| {
                Arc::new(Noting { waker: context.waker().clone(), called: OnceLock::new() })
            });
            answer.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(noting))))
        })
        .await;
        assert!(good, "every waiter is answered");
        Had { woken: noting.and_then(|noting| noting.called.get().copied()), answered: Instant::now() }
    }
}

#[derive(Clone, Copy)]
struct Spread {
    p50: Duration,
    p99: Duration,
}

impl Spread {
    fn of(sorted: &[Duration]) -> Self {
        let at = |hundredth: usize| sorted.get(sorted.len() * hundredth / 100).copied().unwrap_or_default();
        Self { p50: at(50), p99: at(99) }
    }
}

/// What became of one run.
#[derive(Clone, Copy)]
pub(crate) struct Told {
    calls: u64,
    polls: f64,
    woken: Spread,
    answered: Spread,
}

/// A subject, run once.
pub(crate) type Run<'a> = &'a dyn Fn(&Runtime) -> Told;

/// Runs the subjects in turns, each on a runtime of its own with two threads, and adds a row for each.
pub(crate) fn rows<const N: usize>(table: &mut Counts, runs: usize, subjects: [(&str, Run<'_>); N]) {
    table.columns([
        "calls to the source",
        "polls a caller",
        "woken after, p50",
        "p99",
        "answered after, p50",
        "p99 ",
    ]);
    let mut told: Vec<Vec<Told>> = vec![Vec::new(); N];
    for _ in 0..runs {
        for (told, (_, run)) in told.iter_mut().zip(&subjects) {
            let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
            told.push(run(&runtime.expect("a runtime")));
        }
    }
    for (told, (name, _)) in told.iter_mut().zip(&subjects) {
        let median = |of: fn(&Told) -> Duration| {
            let mut all: Vec<_> = told.iter().map(of).collect();
            all.sort_unstable();
            format!("{:.2} ms", all[runs / 2].as_secs_f64() * 1e3)
        };
        let calls = told.iter().map(|told| told.calls).max().unwrap_or_default();
        let polls = told.iter().map(|told| told.polls).fold(0.0, f64::max);
        table.row(
            name,
            [
                calls.to_string(),
                format!("{polls:.2}"),
                median(|told| told.woken.p50),
                median(|told| told.woken.p99),
                median(|told| told.answered.p50),
                median(|told| told.answered.p99),
            ],
        );
    }
    table.bar(&format!(
        "1 call, 2 polls, woken within 1 ms at p99. Tasks of a runtime with two threads, counted from the source's answer; a task \
         that was woken takes its turn, and has then its answer. Medians of {runs} runs, the most calls and polls of them"
    ));
}
