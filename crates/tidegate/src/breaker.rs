//! The breaker: refuses calls to a dependency that fails, and finds out with a few probes when it is back.
//!
//! What counts as a failure, and what ends each state, is decided by [`tidegate_core::breaker`]; this is the shared
//! object around it. While closed, a successful call takes no lock and writes nothing that others read, but for one
//! sample of latency every 10 ms.

use std::{
    fmt,
    future::{self, Future},
    sync::{Arc, LazyLock},
    time::Duration,
};

use parking_lot::Mutex;
pub use tidegate_core::breaker::{Era, InvalidSettings, Phase, Settings};
use tidegate_core::{Call, Instant, Outcome, Refused, breaker::Ticket};

use crate::{
    clock,
    event::Observer,
    gate::{self, Gate},
    sync,
};

#[cfg(all(test, shuttle))]
mod interleavings;
mod slot;
#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests;

use slot::{Slot, Told};

/// A breaker that all clones share.
///
/// ```
/// use tidegate::{Call, Outcome, Permit, breaker::{Breaker, Settings}, clock};
///
/// let breaker = Breaker::new(Settings::default())?;
/// let call = Call::at(clock::now());
/// match breaker.admit(&call) {
///     Ok(permit) => permit.settle(Outcome::Success, clock::now()),
///     Err(refused) => println!("{refused}"),
/// }
/// # Ok::<(), tidegate::breaker::InvalidSettings>(())
/// ```
#[derive(Clone)]
pub struct Breaker {
    lease: Arc<Lease>,
}

/// The right to a slot; the last clone gives it back.
struct Lease {
    slot: &'static Slot,
}

/// Slots whose breakers are gone.
static VACANT: LazyLock<Mutex<Vec<&'static Slot>>> = LazyLock::new(Mutex::default);

impl Lease {
    fn new(settings: Settings, told: Option<Told>) -> Result<Self, InvalidSettings> {
        settings.check()?;
        let now = sync::now();
        let vacant = VACANT.lock().pop();
        let slot = match vacant {
            Some(slot) => {
                slot.let_to(settings, told, now)?;
                slot
            }
            None => Box::leak(Box::new(Slot::new(settings, told, now)?)),
        };
        Ok(Self { slot })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.slot.vacate();
        VACANT.lock().push(self.slot);
    }
}

impl Breaker {
    /// Makes a closed breaker that tells nobody of its changes.
    ///
    /// # Errors
    /// [`InvalidSettings`] when a period is out of range.
    pub fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        Ok(Self { lease: Arc::new(Lease::new(settings, None)?) })
    }

    /// Makes a closed breaker that tells `observer` of every change of its state, under `name`.
    ///
    /// # Errors
    /// [`InvalidSettings`] when a period is out of range.
    pub fn observed(
        settings: Settings,
        name: impl Into<Arc<str>>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, InvalidSettings> {
        let told = Told { name: name.into(), observer };
        Ok(Self { lease: Arc::new(Lease::new(settings, Some(told))?) })
    }

    /// Whether a call would be admitted at `now`. Takes nothing and promises nothing: for choosing among endpoints.
    pub fn would_admit(&self, now: Instant) -> bool {
        self.lease.slot.would_admit(now)
    }

    /// How long until a call could be admitted, as far as is known; zero when one would be now.
    pub fn retry_in(&self, now: Instant) -> Duration {
        self.lease.slot.retry_in(now)
    }

    /// Admits a call, as [`Gate::try_enter`] does: a breaker knows no keys.
    ///
    /// # Errors
    /// [`Refused`] by `breaker`, with the time until a call could be admitted; the call takes nothing.
    #[inline]
    pub fn admit(&self, call: &Call) -> Result<Permit, Refused> {
        let slot = self.lease.slot;
        match slot.closed() {
            Some(era) => Ok(Permit { slot, ticket: Ticket::new(era, call) }),
            None => slot.admit(call).map(|ticket| Permit { slot, ticket }),
        }
    }

    /// Takes other settings, at once. The state and the calls under way stay; failures counted so far are forgotten
    /// when `within` changes.
    ///
    /// # Errors
    /// [`InvalidSettings`] when a period is out of range; the old settings stay then.
    pub fn reconfigure(&self, settings: Settings) -> Result<(), InvalidSettings> {
        self.lease.slot.reconfigure(settings)
    }

    /// The state at `now`.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        self.lease.slot.snapshot(now)
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Breaker").field(&self.snapshot(clock::now())).finish()
    }
}

impl<K: ?Sized> Gate<K> for Breaker {
    type Permit = Permit;

    #[inline]
    fn try_enter(&self, call: &Call, _key: &K) -> Result<Permit, Refused> {
        self.admit(call)
    }

    /// Does what [`try_enter`](Gate::try_enter) does: nobody waits for a dependency to come back.
    fn enter(&self, call: &Call, _key: &K) -> impl Future<Output = Result<Permit, Refused>> + Send {
        future::ready(self.admit(call))
    }
}

/// What a call admitted by a [`Breaker`] holds. Settled, or abandoned by drop; after the breaker's state has changed
/// it counts nothing.
#[must_use = "a permit that is dropped is an abandoned call"]
pub struct Permit {
    slot: &'static Slot,
    ticket: Ticket,
}

impl Permit {
    /// Tells the breaker that the dependency has begun to answer, and well: a good response head, or for gRPC the
    /// first message. A probe passes with it, and a caller who leaves during the rest is no failure.
    ///
    /// Without this call a stream is judged at its end. [`settle`](gate::Permit::settle) is still due.
    pub fn answered(&mut self, now: Instant) {
        self.slot.answered(&mut self.ticket, now);
    }
}

impl gate::Permit for Permit {
    #[inline]
    fn settle(mut self, outcome: Outcome, now: Instant) {
        if self.slot.is_usual_end(&self.ticket, outcome, now) {
            self.ticket.spend();
        } else {
            let ticket = self.ticket;
            self.ticket.spend(); // An observer may panic, and the end of a call is told once.
            self.slot.settle(ticket, outcome, now);
        }
    }

    fn settle_now(mut self, outcome: Outcome) {
        if self.slot.counts(&self.ticket, outcome) {
            self.settle(outcome, clock::now());
        } else {
            self.ticket.spend();
        }
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if !self.ticket.is_spent() {
            self.abandon();
        }
    }
}

impl Permit {
    #[cold]
    fn abandon(&self) {
        if self.slot.counts(&self.ticket, Outcome::Abandoned) {
            self.slot.settle(self.ticket, Outcome::Abandoned, clock::now());
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permit").field(&self.ticket).finish()
    }
}

/// A breaker's state at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Closed, open or half-open.
    pub phase: Phase,
    /// When it came into this phase.
    pub since: Instant,
    /// The era of this phase; it only grows.
    pub era: Era,
    /// How often it opened.
    pub opened: u64,
    /// Calls it refused.
    pub refused: u64,
    /// Failures in the window; 0 unless closed.
    pub failures: u32,
    /// How long a call may wait before walking away from it is a failure, once that is known.
    pub known_latency: Option<Duration>,
    /// The settings in force.
    pub settings: Settings,
}
