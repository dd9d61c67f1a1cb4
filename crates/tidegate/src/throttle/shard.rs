//! One shard of a throttle: its counters, and what it knows of time, behind one short lock.

use parking_lot::{Mutex, MutexGuard};
use tidegate_core::{Call, Counter, Decision, Grant, Instant, Quota, Standing};

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

/// A decision, and how to undo it.
#[derive(Clone, Copy)]
pub(super) struct Taken<C> {
    pub(super) decision: Decision,
    pub(super) charged: Charged,
    before: C,
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
    /// Decides a call that goes no later than `by`, and takes its cost.
    #[inline]
    pub(super) fn take(&mut self, key: Key, call: &Call, by: Instant) -> Taken<C> {
        let now = self.latest.max(call.now);
        self.latest = now;
        let place = self.table.place(key, &self.quota, now);
        let charged = match place {
            Place::Own { .. } => Charged::Own,
            Place::Shared { .. } => {
                self.stats.shared += 1;
                Charged::Shared
            }
        };
        let counter = self.table.counter(place);
        let before = *counter;
        let decision = counter.reserve(&self.quota, call.cost, now, now.max(by));
        if let Decision::Admit { grant, .. } = decision {
            self.last = self.last.max(grant.at());
        }
        Taken { decision, charged, before }
    }

    /// Undoes what was just taken, under the same lock, and says what is left then.
    pub(super) fn undo(&mut self, key: Key, taken: &Taken<C>) -> Option<Standing> {
        let place = self.charged(key, taken.charged)?;
        let counter = self.table.counter(place);
        if let Decision::Admit { .. } = taken.decision {
            *counter = taken.before;
        }
        Some(counter.standing(&self.quota, self.latest))
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

    #[inline]
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
