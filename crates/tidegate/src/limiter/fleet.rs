//! One limit shared by the instances of a fleet: permits are leased from a store, by demand, and return when a lease ends.

mod driver;
mod store;

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::{sync::watch, time::sleep_until};

pub(super) use self::driver::Wishes;
pub use self::store::{FleetStore, LocalFleet};
use self::{driver::Driver, store::Node};
use super::{Builder, InvalidLimiter, Limiter, Permit, builder::Parts};
use crate::{By, Call, Gate, Instant, Outcome, Refused, clock};

/// This instance's part of a limit that a fleet shares.
///
/// It asks for as many permits as it has calls, and some more, and asks again at once when callers wait. While the store
/// does not answer it goes on with what it has until its lease ends; then it admits nobody, and [`run`](Self::run) cuts
/// the calls that still run: their permits belong to the fleet again. So the sum never exceeds the limit.
///
/// When the last clone is dropped, a task goes on renewing the lease until the calls that still run are over, for at most
/// ten lives of a lease, and gives the permits back then. [`close`](Self::close) waits for that.
#[derive(Clone)]
pub struct FleetLimiter {
    limiter: Limiter,
    shared: Arc<Shared>,
}

struct Shared {
    wishes: Arc<Wishes>,
    until: watch::Receiver<Instant>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.wishes.leave();
    }
}

impl FleetLimiter {
    /// Joins a fleet as `node`, with leases of `life`. Queue, waits and order are those of `settings`; its limit is the
    /// fleet's business, and not used. It needs a tokio runtime, and admits nobody before the store's first answer.
    ///
    /// A short life brings the permits of a dead instance back soon, a long one lets instances go on for longer while the
    /// store is away; an instance asks three times a life. From seconds to a minute is usual.
    ///
    /// # Errors
    /// [`InvalidLimiter`] as of any limiter.
    pub fn join<S: FleetStore>(
        store: S,
        node: Node,
        life: Duration,
        settings: Builder,
    ) -> Result<Self, InvalidLimiter> {
        let wishes = Arc::new(Wishes::default());
        let limiter = settings.limit(1).wanting(wishes.clone()).build()?;
        limiter.shared.permits.resize(0);
        let (lease, until) = watch::channel(Instant::EPOCH);
        tokio::spawn(Driver::new(store, node, life, limiter.clone(), lease, wishes.clone()).run());
        Ok(Self { limiter, shared: Arc::new(Shared { wishes, until }) })
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
        loop {
            let permit = self.limiter.acquire(call).await?;
            if !self.is_over() {
                return Ok(permit);
            }
            // Now the limiter knows too, and the call waits for a new lease.
            permit.finish(Outcome::Unsent);
        }
    }

    /// Takes a permit if one is free, as [`Limiter::try_acquire`] does; see [`acquire`](Self::acquire).
    ///
    /// # Errors
    /// [`Refused`] as by [`Limiter::try_acquire`].
    pub fn try_acquire(&self, call: &Call) -> Result<Permit, Refused> {
        let permit = self.limiter.try_acquire(call)?;
        if !self.is_over() {
            return Ok(permit);
        }
        permit.finish(Outcome::Unsent);
        Err(self.limiter.refuse(By::InFlight, None))
    }

    /// Whether the lease has ended. A process that was stopped past its lease's end goes on before its driver has noticed:
    /// then the limiter is told here.
    fn is_over(&self) -> bool {
        // The driver moves the end on before it raises the limit, so that this cannot undo a renewal.
        let ends = self.shared.until.borrow();
        let is_over = *ends <= clock::now();
        if is_over {
            self.limiter.shared.permits.resize(0);
            self.shared.wishes.more();
        }
        is_over
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
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
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
        let Parts { queue, settings, .. } = settings.into_parts()?;
        self.limiter.shared.permits.reorder(queue, settings.order);
        self.limiter.shared.watch.set(settings, &self.limiter.shared.tuner);
        Ok(())
    }

    /// Leaves the fleet: admits nobody any more, and ends when the calls in flight are over and the permits are given
    /// back, or their lease has run out. The lease is renewed meanwhile, for at most ten lives of a lease.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: the instance leaves all the same.
    pub async fn close(&self) {
        self.shared.wishes.leave();
        let mut until = self.shared.until.clone();
        // Its sender goes when the driver has left.
        while until.changed().await.is_ok() {}
    }

    /// The limiter below, for layers and counts: the counts are this instance's. Who takes permits there sees to it that
    /// calls end with the lease.
    pub const fn limiter(&self) -> &Limiter {
        &self.limiter
    }
}

impl<K: ?Sized + Sync> Gate<K> for FleetLimiter {
    type Permit = Permit;

    fn try_enter(&self, call: &Call, _key: &K) -> Result<Permit, Refused> {
        self.try_acquire(call)
    }

    async fn enter(&self, call: &Call, _key: &K) -> Result<Permit, Refused> {
        self.acquire(call).await
    }
}

impl fmt::Debug for FleetLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetLimiter")
            .field("limiter", &self.limiter)
            .field("lease_ends", &self.lease_ends())
            .finish()
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
