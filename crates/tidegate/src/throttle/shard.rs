//! One shard of a throttle: its counters, and what it knows of time, behind one short lock.

use parking_lot::{Mutex, MutexGuard};
use tidegate_core::{Counter, Decision, Grant, Instant, Quota, Standing};

use super::{
    Mode, Stats,
    key::Key,
    table::{Place, Table},
};

/// A shard on cache lines of its own.
#[repr(align(128))]
pub(super) struct Shard<C>(Mutex<State<C>>);

/// What is behind the lock. The quota is here too, so that a change of it needs no lock of its own.
pub(super) struct State<C> {
    pub(super) quota: Quota,
    pub(super) mode: Mode,
    /// The latest instant any call has brought: calls are locked out of the order of their clock readings, and
    /// counters want time to run forwards.
    latest: Instant,
    /// The latest instant any call was admitted for.
    last: Instant,
    table: Table<C>,
    stats: Stats,
}

/// Which counter a call was charged to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Charged {
    /// The key's own.
    #[default]
    Own,
    /// The one it shared, having none of its own.
    Shared,
}

impl From<Place> for Charged {
    fn from(place: Place) -> Self {
        match place {
            Place::Own { .. } => Self::Own,
            Place::Shared { .. } => Self::Shared,
        }
    }
}

/// How a decision ended, for the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Admitted,
    Refused,
    /// Would have been refused, had the limit been enforced.
    Shadowed,
    /// Undone, because another limit refused.
    Undone,
}

impl<C: Counter> Shard<C> {
    pub(super) fn new(quota: Quota, mode: Mode, buckets: usize) -> Self {
        Self(Mutex::new(State {
            quota,
            mode,
            latest: Instant::EPOCH,
            last: Instant::EPOCH,
            table: Table::new(buckets),
            stats: Stats::default(),
        }))
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.0.lock()
    }
}

impl<C: Counter> State<C> {
    /// Finds the counter of a key for a call at `now`, which is this shard's time from then on.
    #[inline(always)]
    pub(super) fn locate(&mut self, key: Key, now: Instant) -> Place {
        self.latest = self.latest.max(now);
        self.table.place(key, &self.quota, self.latest)
    }

    /// Decides a call that goes no later than `by`, and takes its cost.
    #[inline(always)]
    pub(super) fn reserve(&mut self, place: Place, cost: u32, by: Instant) -> Decision {
        if let Place::Shared { .. } = place {
            self.stats.shared += 1;
        }
        let decision = self.table.counter(place).reserve(&self.quota, cost, self.latest, by.max(self.latest));
        if let Decision::Admit(grant) = decision {
            self.last = self.last.max(grant.at());
        }
        decision
    }

    /// A counter as it is, to put back if need be.
    pub(super) fn counter(&mut self, place: Place) -> C {
        *self.table.counter(place)
    }

    /// The counter that a key is decided by, if there is one.
    pub(super) fn known(&mut self, key: Key) -> Option<C> {
        if self.table.is_empty() {
            return None;
        }
        let place = self.table.find(key).unwrap_or_else(|| self.table.shared(key));
        Some(*self.table.counter(place))
    }

    /// Replaces a counter.
    pub(super) fn put(&mut self, place: Place, counter: C) {
        *self.table.counter(place) = counter;
    }

    /// The latest instant any call has brought.
    pub(super) const fn latest(&self) -> Instant {
        self.latest
    }

    #[inline]
    pub(super) fn standing(&mut self, place: Place) -> Standing {
        self.table.counter(place).standing(&self.quota, self.latest)
    }

    /// Puts a counter back as it was, under the same lock, and says what is left then.
    pub(super) fn put_back(&mut self, key: Key, charged: Charged, before: C) -> Option<Standing> {
        let place = self.charged(key, charged)?;
        *self.table.counter(place) = before;
        Some(self.standing(place))
    }

    /// Gives back what was taken earlier.
    pub(super) fn refund(&mut self, key: Key, grant: Grant, charged: Charged, now: Instant) {
        self.latest = self.latest.max(now);
        let last = self.last.max(self.latest);
        if let Some(place) = self.charged(key, charged) {
            self.table.counter(place).refund(&self.quota, grant, self.latest, last);
        }
        self.stats.refunded += 1;
    }

    /// Where a charge is now. What was charged to a counter of the key's own that was forgotten has regenerated; what
    /// was charged to a shared one has been inherited by the key's own, if it has one by now.
    fn charged(&self, key: Key, charged: Charged) -> Option<Place> {
        match (self.table.find(key), charged) {
            (Some(place), _) => Some(place),
            (None, Charged::Own) => None,
            (None, Charged::Shared) => Some(self.table.shared(key)),
        }
    }

    #[inline(always)]
    pub(super) fn count(&mut self, ended: Ended) {
        let count = match ended {
            Ended::Admitted => &mut self.stats.admitted,
            Ended::Refused => &mut self.stats.refused,
            Ended::Shadowed => &mut self.stats.shadow_refused,
            Ended::Undone => &mut self.stats.undone,
        };
        *count += 1;
    }

    /// Carries every counter over to a changed quota.
    pub(super) fn update(&mut self, quota: Quota) {
        for counter in self.table.counters() {
            counter.update(&self.quota, &quota);
        }
        self.quota = quota;
    }

    pub(super) fn stats(&self) -> Stats {
        let (keys, capacity) = (self.table.held(), self.table.capacity());
        Stats { keys, capacity, bytes: self.table.bytes() + size_of::<Shard<C>>(), ..self.stats }
    }
}
