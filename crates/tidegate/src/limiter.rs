//! The limiter: at most so many calls in flight, and a bounded line of those who wait.

mod acquire;
mod builder;
mod fleet;
pub(crate) mod histogram;
mod nested;
mod partitions;
mod permit;
mod permits;
mod stats;
mod tuner;
mod waiters;
mod watch;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
};

use tidegate_core::gate::MOST;
pub use tidegate_core::{
    gate::Order,
    lease::{Answer, Demand, Node},
    limit::{Adaptive, Aimd, Bounds, Fixed, Gradient, InvalidLimit, Vegas},
};

pub(crate) use self::nested::Inside;
use self::{builder::Parts, permit::Ages, permits::Permits, stats::Stats, tuner::Tuner, watch::Watch};
pub use self::{
    builder::{Builder, InvalidLimiter},
    fleet::{FleetError, FleetLimiter, FleetStore, LocalFleet},
    histogram::{BUCKETS, Histogram},
    nested::Nested,
    partitions::{Builder as PartitionsBuilder, InvalidPartitions, Partition, PartitionPermit, Partitions},
    permit::Permit,
    stats::Snapshot,
};
use crate::{By, Call, Gate, Outcome, Refused, clock};

/// Admits at most a limit of calls at a time; others wait in line for a bounded time, or are refused unsent.
///
/// A clone is another handle to the same limiter. Admission without waiting is one atomic operation; a permit that
/// comes back goes to the first in line, and nobody overtakes those who wait.
///
/// ```
/// # use tidegate::{Call, Outcome, Permit as _, clock, limiter::Limiter};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let limiter = Limiter::builder().limit(250).queue(1000).build()?;
/// let permit = limiter.acquire(&Call::at(clock::now())).await?;
/// assert_eq!(limiter.in_flight(), 1);
/// permit.settle(Outcome::Success, clock::now());
/// assert_eq!(limiter.in_flight(), 0);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Limiter {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    permits: Permits,
    nested: Nested,
    /// Who is told that callers find no permit.
    wanting: Option<Arc<fleet::Wishes>>,
    watch: Watch,
    stats: Stats,
    ages: Ages,
    tuner: Tuner,
}

impl Limiter {
    /// Makes a limiter of `limit` calls in flight with the other settings at their defaults.
    ///
    /// # Errors
    /// [`InvalidLimiter`] when the limit is not a positive number.
    pub fn new(limit: i64) -> Result<Self, InvalidLimiter> {
        Self::builder().limit(limit).build()
    }

    /// Begins a limiter; its limit must be set.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Takes a permit, waiting in line for at most `max_wait` and at most to the call's deadline.
    ///
    /// # Errors
    /// [`Refused`], and the call takes nothing: by `deadline` when that has passed, `queue-full`, `wait-too-long`
    /// (at once when the expected wait is longer than the call can wait), `nested` when a call inside this limiter
    /// would have to wait for itself, or `closed`.
    ///
    /// # Cancel safety
    /// Dropping the future frees its place in line at once; a permit that was on its way goes to the next.
    pub async fn acquire(&self, call: &Call) -> Result<Permit, Refused> {
        match self.enter_now(Some(call)) {
            Ok(permit) => Ok(permit),
            Err(Turned::Refused(refused)) => Err(refused),
            Err(Turned::Busy) => self.wait(call).await,
        }
    }

    /// Takes a permit if one is free and nobody waits for it.
    ///
    /// # Errors
    /// [`Refused`] by `in-flight`, `deadline` or `closed`; the call takes nothing.
    #[inline]
    pub fn try_acquire(&self, call: &Call) -> Result<Permit, Refused> {
        self.enter_now(Some(call)).map_err(|turned| self.turned_away(turned))
    }

    #[cold]
    fn turned_away(&self, turned: Turned) -> Refused {
        self.shared.wants_more();
        match turned {
            Turned::Refused(refused) => refused,
            Turned::Busy if self.shared.permits.load().is_closed() => self.refuse(By::Closed, None),
            Turned::Busy => self.refuse(By::InFlight, self.shared.permits.expected_wait(crate::sync::now())),
        }
    }

    /// Runs `future` under a permit, and counts its end, whatever it returns, as a success.
    ///
    /// Where the result can tell of overload, take a permit with [`acquire`](Self::acquire) and settle it instead.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire); the future is not polled then.
    ///
    /// # Cancel safety
    /// Dropping it drops `future` and gives the permit back as abandoned.
    pub async fn run<F: Future>(&self, call: &Call, future: F) -> Result<F::Output, Refused> {
        let permit = self.acquire(call).await?;
        let mut future = pin!(future);
        let output = poll_fn(|cx| {
            let _inside = Inside::of(self.id());
            future.as_mut().poll(cx)
        })
        .await;
        permit.finish(Outcome::Success);
        Ok(output)
    }

    /// Calls in flight now, exactly.
    pub fn in_flight(&self) -> u32 {
        self.shared.permits.load().in_flight()
    }

    /// Callers waiting in line now, exactly.
    pub fn queued(&self) -> u32 {
        self.shared.permits.load().queued()
    }

    /// The limit; `None` when it is off.
    pub fn limit(&self) -> Option<u32> {
        Some(self.shared.permits.limit()).filter(|limit| *limit < MOST)
    }

    /// Changes the limit. A larger one lets waiters in at once; a smaller one is reached as permits come back,
    /// and those who wait keep their places. An adaptive limit goes on from there by its own law.
    pub fn resize(&self, limit: Fixed) {
        self.shared.permits.resize(limit.count());
    }

    /// Takes over other settings while calls go on: permits, places in line and counts stay. An adaptive limit begins
    /// anew where its law begins; settings without a limit leave the limit, and the law that moves it, alone. What a nested call gets and whether holds are measured stay as they were built.
    ///
    /// # Errors
    /// [`InvalidLimiter`] as of any settings; nothing is changed then.
    pub fn reconfigure(&self, settings: Builder) -> Result<(), InvalidLimiter> {
        let Parts { limit, queue, settings } = settings.into_parts()?;
        self.shared.permits.reorder(queue, settings.order);
        if let Some((limit, law)) = limit {
            self.shared.tuner.replace(law, || self.shared.permits.resize(limit));
        }
        self.shared.watch.set(settings, &self.shared.tuner);
        Ok(())
    }

    /// Admits nobody any more: those who wait are refused by `closed`, those in flight finish.
    ///
    /// The future ends when the last permit is back. The limiter is closed even if the future is dropped.
    pub fn close(&self) -> impl Future<Output = ()> + Send + 'static {
        self.shared.permits.close();
        let shared = Arc::clone(&self.shared);
        poll_fn(move |cx| shared.permits.poll_drained(cx.waker()))
    }

    /// What happened so far, for pages and metrics.
    pub fn snapshot(&self) -> Snapshot {
        stats::snapshot(&self.shared)
    }

    /// What tells it from other limiters.
    #[inline]
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }

    /// The part of admission that needs no waiting. Without a call there is no deadline and no start time.
    #[inline(always)]
    pub(crate) fn enter_now(&self, call: Option<&Call>) -> Result<Permit, Turned> {
        if call.is_some_and(|call| call.deadline.is_some_and(|deadline| deadline <= call.now)) {
            return Err(Turned::Refused(self.refuse(By::Deadline, None)));
        }
        if self.shared.nested == Nested::CountOnce && self.is_inside() {
            return Ok(Permit::counted_already());
        }
        let Some(load) = self.shared.permits.try_enter() else { return Err(Turned::Busy) };
        let entered = match call {
            Some(call) => Some(call.now),
            None if self.shared.wants_times(load) => Some(clock::now()),
            None => None,
        };
        Ok(Permit::new(&self.shared, entered))
    }

    pub(crate) fn refuse(&self, by: By, retry_after: Option<std::time::Duration>) -> Refused {
        self.shared.stats.refused(by);
        Refused { by, retry_after }
    }

    fn is_inside(&self) -> bool {
        nested::is_inside(self.id())
    }
}

impl Shared {
    /// A limit that is leased from a fleet may grow when callers find no permit.
    fn wants_more(&self) {
        if let Some(wishes) = &self.wanting {
            wishes.more();
        }
    }
}

/// Why a call was not admitted at once.
pub(crate) enum Turned {
    /// It will not be.
    Refused(Refused),
    /// It would have to wait.
    Busy,
}

impl<K: ?Sized + Sync> Gate<K> for Limiter {
    type Permit = Permit;

    fn try_enter(&self, call: &Call, _key: &K) -> Result<Permit, Refused> {
        self.try_acquire(call)
    }

    async fn enter(&self, call: &Call, _key: &K) -> Result<Permit, Refused> {
        self.acquire(call).await
    }
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter")
            .field("limit", &self.limit())
            .field("load", &self.shared.permits.load())
            .finish_non_exhaustive()
    }
}
