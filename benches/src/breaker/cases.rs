//! What breakers do when things go wrong, counted: who gets through, and what a late answer changes.

use std::{
    future,
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use futures_util::future::BoxFuture;
use tidegate::{
    Call, Outcome, Permit,
    breaker::{Breaker, Settings},
    clock,
};
use tokio::{runtime, sync::Semaphore, task, time};
use tower::{Service, ServiceExt, service_fn};
use tower_resilience_circuitbreaker::CircuitBreakerLayer;

use crate::harness::{Suite, block_on};

/// A call to the dependency: whether it went well.
type Work = BoxFuture<'static, Result<(), ()>>;

/// A breaker, whoever's: does the work, or refuses it.
type Guarded = Arc<dyn Fn(Work) -> BoxFuture<'static, ()> + Send + Sync>;

/// How long every subject stays open here.
const OPEN_FOR: Duration = Duration::from_millis(50);

pub(super) fn tables(suite: &mut Suite) {
    suite.counts("breaker: 64 callers after the open period, 1 probe", |table| {
        table.columns(["admitted"]);
        for (name, subject) in subjects() {
            table.row(name, [storm(&subject).to_string()]);
        }
        table.bar("exactly 1");
    });
    suite.counts("breaker: 10 callers while the probe is out", |table| {
        table.columns(["admitted", "after a late success of the closed era"]);
        for (name, subject) in subjects() {
            let without = while_probing(subject, Late::Stays);
            let (_, subject) =
                subjects().into_iter().find(|(other, _)| *other == name).expect("the same subjects again");
            table.row(name, [without.to_string(), while_probing(subject, Late::Succeeds).to_string()]);
        }
        table.bar("0 and 0");
    });
    suite.counts("breaker: hung upstream behind its callers' deadlines, 200 calls", |table| {
        table.columns(["forwarded"]);
        for (name, subject) in subjects() {
            table.row(name, [hung(&subject).to_string()]);
        }
        table.bar("it opens: 5");
    });
}

fn subjects() -> [(&'static str, Guarded); 4] {
    [
        ("tidegate", tidegate()),
        ("recloser", recloser()),
        ("failsafe", failsafe()),
        ("tower-resilience", tower_resilience()),
    ]
}

fn tidegate() -> Guarded {
    let settings = Settings { open_for: OPEN_FOR, ..Settings::default() };
    let breaker = Breaker::new(settings).expect("50 ms is in range");
    Arc::new(move |work| {
        let breaker = breaker.clone();
        Box::pin(async move {
            let Ok(permit) = breaker.admit(&Call::at(clock::now())) else { return };
            let outcome = match work.await {
                Ok(()) => Outcome::Success,
                Err(()) => Outcome::Overload { retry_after: None },
            };
            permit.settle(outcome, clock::now());
        })
    })
}

fn recloser() -> Guarded {
    let breaker = recloser::Recloser::custom().closed_len(5).half_open_len(1).open_wait(OPEN_FOR).build();
    let breaker = recloser::AsyncRecloser::from(breaker);
    Arc::new(move |work| {
        let call = breaker.call(work);
        Box::pin(async move { drop(call.await) })
    })
}

fn failsafe() -> Guarded {
    use failsafe::futures::CircuitBreaker;
    let policy = failsafe::failure_policy::consecutive_failures(5, failsafe::backoff::constant(OPEN_FOR));
    let breaker = failsafe::Config::new().failure_policy(policy).build();
    Arc::new(move |work| {
        let call = breaker.call(work);
        Box::pin(async move { drop(call.await) })
    })
}

fn tower_resilience() -> Guarded {
    let layer = CircuitBreakerLayer::builder()
        .consecutive_failures(5)
        .wait_duration_in_open(OPEN_FOR)
        .permitted_calls_in_half_open(1);
    let service = layer.build().expect("the settings are valid").layer_fn(service_fn(|work: Work| work));
    Arc::new(move |work| {
        let mut service = service.clone();
        Box::pin(async move {
            if let Ok(ready) = service.ready().await {
                drop(ready.call(work).await);
            }
        })
    })
}

/// Fails until the breaker must be open.
async fn open(subject: &Guarded) {
    for _ in 0..20 {
        subject(Box::pin(future::ready(Err(())))).await;
    }
}

/// Counts a caller as decided that was not let through.
struct Refused {
    mine: Arc<AtomicUsize>,
    decided: Arc<AtomicUsize>,
}

impl Drop for Refused {
    fn drop(&mut self) {
        if self.mine.load(Ordering::Relaxed) == 0 {
            self.decided.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// How many of 64 threads that come at once after the open period are let through, while none has an answer.
fn storm(subject: &Guarded) -> usize {
    const CALLERS: usize = 64;
    block_on(open(subject));
    #[expect(
        clippy::disallowed_methods,
        reason = "peers read the real clock, and this is their open period"
    )]
    thread::sleep(OPEN_FOR * 2);
    // A peer spawns a task when its state changes, and may set a timer.
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("a thread starts");
    let (together, admitted, decided) =
        (Barrier::new(CALLERS), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let _runtime = runtime.enter();
                let mine = Arc::new(AtomicUsize::new(0));
                let work = {
                    let (admitted, decided, mine) =
                        (Arc::clone(&admitted), Arc::clone(&decided), Arc::clone(&mine));
                    async move {
                        mine.store(1, Ordering::Relaxed);
                        admitted.fetch_add(1, Ordering::Relaxed);
                        decided.fetch_add(1, Ordering::Relaxed);
                        while decided.load(Ordering::Relaxed) < CALLERS {
                            thread::yield_now();
                        }
                        Ok(())
                    }
                };
                // By drop: a peer that panics must not leave those that it let through spinning for ever.
                let _refused = Refused { mine: Arc::clone(&mine), decided: Arc::clone(&decided) };
                together.wait();
                block_on(subject(Box::pin(work)));
            });
        }
    });
    admitted.load(Ordering::Relaxed)
}

/// What the call that began before the breaker opened does while the probe is out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Late {
    Stays,
    Succeeds,
}

/// How many of 10 callers are let through while the probe is out.
fn while_probing(subject: Guarded, late: Late) -> usize {
    let runtime = runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
    runtime.block_on(async {
        let (answer, never) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let held = |by: &Arc<Semaphore>, admitted: &Arc<AtomicUsize>| -> Work {
            let (by, admitted) = (Arc::clone(by), Arc::clone(admitted));
            Box::pin(async move {
                admitted.fetch_add(1, Ordering::Relaxed);
                by.acquire().await.map(drop).map_err(drop)
            })
        };
        let (first, probe, others) = Default::default();
        task::spawn(subject(held(&answer, &first)));
        settle_down().await;
        open(&subject).await;
        time::sleep(OPEN_FOR * 2).await;
        task::spawn(subject(held(&never, &probe)));
        settle_down().await;
        assert_eq!(
            (first.load(Ordering::Relaxed), probe.load(Ordering::Relaxed)),
            (1, 1),
            "the case is set up"
        );
        if late == Late::Succeeds {
            answer.add_permits(1);
            settle_down().await;
        }
        for _ in 0..10 {
            task::spawn(subject(held(&never, &others)));
        }
        settle_down().await;
        others.load(Ordering::Relaxed)
    })
}

/// Lets every task that can run do so.
async fn settle_down() {
    for _ in 0..100 {
        task::yield_now().await;
    }
}

/// How many of 200 calls reach an upstream that never answers, one after the other, when
/// every caller gives up after 100 ms.
fn hung(subject: &Guarded) -> usize {
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime starts").block_on(async {
        let forwarded = Arc::new(AtomicUsize::new(0));
        // Warm: the latency of a healthy upstream is known.
        for _ in 0..20 {
            subject(Box::pin(async {
                time::sleep(Duration::from_millis(5)).await;
                Ok(())
            }))
            .await;
        }
        for _ in 0..200 {
            let forwarded = Arc::clone(&forwarded);
            let work = async move {
                forwarded.fetch_add(1, Ordering::Relaxed);
                future::pending().await
            };
            drop(time::timeout(Duration::from_millis(100), subject(Box::pin(work))).await);
        }
        forwarded.load(Ordering::Relaxed)
    })
}
