//! One limit shared by the instances of a fleet: permits are leased from a store, by demand, and return when a lease ends.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use parking_lot::Mutex;
use tidegate_core::lease::{Demand, Leases, Node};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::{sleep_until, timeout, timeout_at},
};

use super::{Builder, InvalidLimiter, Limiter, Permit, builder::Parts};
use crate::{Call, Instant, Outcome, Refused, clock};

/// Keeps the permits of a limit that a fleet shares.
pub trait FleetStore: Send + Sync + 'static {
    /// Why the store could not answer.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Leases permits to `node` for `life`, in place of those it has, and says how many.
    ///
    /// The store counts `life` from when it hears, the node from when it asked: the node always stops first.
    fn lease(
        &self,
        node: Node,
        demand: Demand,
        life: Duration,
    ) -> impl Future<Output = Result<u32, Self::Error>> + Send;

    /// Gives back all that `node` has.
    fn give_back(&self, node: Node) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// A store in memory: for one process, and for tests.
#[derive(Clone, Debug)]
pub struct LocalFleet(Arc<Mutex<Leases>>);

impl LocalFleet {
    /// Makes a store of `limit` permits.
    pub fn new(limit: u32) -> Self {
        Self(Arc::new(Mutex::new(Leases::new(limit))))
    }

    /// Changes the limit. A lower one is reached as leases are renewed.
    pub fn resize(&self, limit: u32) {
        self.0.lock().resize(limit);
    }

    /// Permits leased now.
    pub fn leased(&self) -> u32 {
        self.0.lock().leased()
    }
}

impl FleetStore for LocalFleet {
    type Error = std::convert::Infallible;

    async fn lease(&self, node: Node, demand: Demand, life: Duration) -> Result<u32, Self::Error> {
        let now = clock::now();
        Ok(self.0.lock().lease(node, demand, now + life, now).permits)
    }

    async fn give_back(&self, node: Node) -> Result<(), Self::Error> {
        self.0.lock().give_back(node);
        Ok(())
    }
}

/// This instance's part of a limit that a fleet shares.
///
/// It asks for as many permits as it has calls, and some more, and asks again at once when callers wait. While the store
/// does not answer it goes on with what it has until its lease ends; then it admits nobody, and [`run`](Self::run) cuts
/// the calls that still run: their permits belong to the fleet again. So the sum never exceeds the limit.
#[derive(Clone)]
pub struct FleetLimiter {
    limiter: Limiter,
    shared: Arc<Shared>,
}

struct Shared {
    wanted: Arc<Notify>,
    until: watch::Receiver<Instant>,
    task: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FleetLimiter {
    /// Joins a fleet as `node`, with leases of `life`. Queue, waits and order are those of `settings`; its limit is the
    /// fleet's business, and not used. It needs a tokio runtime, and admits nobody before the store's first answer.
    ///
    /// # Errors
    /// [`InvalidLimiter`] as of any limiter.
    pub fn join<S: FleetStore>(
        store: S,
        node: Node,
        life: Duration,
        settings: Builder,
    ) -> Result<Self, InvalidLimiter> {
        let limiter = settings.limit(1).build()?;
        limiter.shared.permits.resize(0);
        let wanted = Arc::new(Notify::new());
        let (lease, until) = watch::channel(Instant::EPOCH);
        let driver = Driver { store, node, life, limiter: limiter.clone(), lease, wanted: wanted.clone() };
        let task = tokio::spawn(driver.run()).abort_handle();
        Ok(Self { limiter, shared: Arc::new(Shared { wanted, until, task }) })
    }

    /// Takes a permit, as [`Limiter::acquire`] does. Its call should be over by [`lease_ends`](Self::lease_ends), unless
    /// that has moved on by then; [`run`](Self::run) sees to it.
    ///
    /// # Errors
    /// [`Refused`] as by [`Limiter::acquire`].
    ///
    /// # Cancel safety
    /// As [`Limiter::acquire`].
    pub async fn acquire(&self, call: &Call) -> Result<Permit, Refused> {
        if let Ok(permit) = self.limiter.enter_now(Some(call)) {
            return Ok(permit);
        }
        self.shared.wanted.notify_one();
        self.limiter.acquire(call).await
    }

    /// Runs `future` under a permit, and drops it when the lease ends before it does.
    ///
    /// # Errors
    /// [`FleetError::Refused`]: it was not run. [`FleetError::LeaseLost`]: it was cut, and may have had an effect.
    ///
    /// # Cancel safety
    /// Dropping it drops `future` and gives the permit back as abandoned.
    pub async fn run<F: Future>(&self, call: &Call, future: F) -> Result<F::Output, FleetError> {
        let permit = self.acquire(call).await.map_err(FleetError::Refused)?;
        let (mut future, mut lost) = (pin!(future), pin!(self.lease_lost()));
        let output = poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => lost.as_mut().poll(cx).map(|()| None),
        });
        let output = output.await.ok_or(FleetError::LeaseLost)?;
        permit.finish(Outcome::Success);
        Ok(output)
    }

    /// When the permits return to the fleet, unless the lease is renewed before.
    pub fn lease_ends(&self) -> Instant {
        *self.shared.until.borrow()
    }

    /// Ends when the lease has ended without being renewed.
    pub async fn lease_lost(&self) {
        let mut until = self.shared.until.clone();
        loop {
            let ends = *until.borrow_and_update();
            if ends <= clock::now() {
                return;
            }
            sleep_until(clock::timer_at(ends)).await;
        }
    }

    /// Takes over another queue, wait and order while calls go on; the limit stays the fleet's business.
    ///
    /// # Errors
    /// [`InvalidLimiter`] as of any settings; nothing is changed then.
    pub fn reconfigure(&self, settings: Builder) -> Result<(), InvalidLimiter> {
        let Parts { queue, settings, .. } = settings.limit(1).into_parts()?;
        self.limiter.shared.permits.reorder(queue, settings.order);
        self.limiter.shared.watch.set(settings, false);
        Ok(())
    }

    /// The limiter below: its counts are this instance's.
    pub const fn limiter(&self) -> &Limiter {
        &self.limiter
    }
}

/// Keeps the lease.
struct Driver<S> {
    store: S,
    node: Node,
    life: Duration,
    limiter: Limiter,
    lease: watch::Sender<Instant>,
    wanted: Arc<Notify>,
}

/// Parts of a lease's life: between two renewals, at most for an answer, and at least between two questions.
const RENEWALS: u32 = 3;
const ANSWERS: u32 = 4;
const QUESTIONS: u32 = 50;

impl<S: FleetStore> Driver<S> {
    async fn run(self) {
        loop {
            let asked = clock::now();
            self.renew(asked).await;
            let ends = *self.lease.borrow();
            let renewal = (asked + self.life / RENEWALS).min(ends.max(asked + self.life / QUESTIONS));
            if timeout_at(clock::timer_at(renewal), self.wanted.notified()).await.is_ok() {
                sleep_until(clock::timer_at(asked + self.life / QUESTIONS)).await;
            }
        }
    }

    async fn renew(&self, asked: Instant) {
        let permits = &self.limiter.shared.permits;
        let has_lease = *self.lease.borrow() > asked;
        let calls = permits.load().in_flight() + permits.load().queued();
        // A quarter more than it needs now, so that not every new call has to ask.
        let wanted = calls + calls / 4 + 1;
        // It lets go first of what it does not want: the store may lease that to others before the answer is here.
        let limit = if has_lease { permits.limit().min(wanted) } else { 0 };
        permits.resize(limit);
        let kept = if has_lease { permits.load().in_flight().max(limit) } else { 0 };
        match timeout(self.life / ANSWERS, self.ask(Demand { kept, wanted })).await {
            Ok(Some(leased)) => {
                self.lease.send_replace(asked + self.life);
                permits.resize(leased);
            }
            Ok(None) | Err(_) if *self.lease.borrow() <= clock::now() => permits.resize(0),
            Ok(None) | Err(_) => {}
        }
    }

    async fn ask(&self, demand: Demand) -> Option<u32> {
        self.store.lease(self.node, demand, self.life).await.ok()
    }
}

/// Why a call under a fleet's limit did not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FleetError {
    /// It was refused, and not run.
    Refused(Refused),
    /// The lease ended while it ran, and it was cut.
    LeaseLost,
}

impl fmt::Display for FleetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refused) => refused.fmt(f),
            Self::LeaseLost => {
                f.write_str("cut: the lease of the fleet's permits ended, and was not renewed")
            }
        }
    }
}

impl std::error::Error for FleetError {}
