//! What an admitted call holds.

use std::{sync::Arc, time::Duration};

use super::{Nested, Shared};
use parking_lot::Mutex;
use tidegate_core::{gate::Load, limit::Sample};

use crate::{Instant, Outcome, clock};

/// One call in flight. It goes back once: when settled, or, as abandoned, when dropped.
#[must_use = "a permit that is dropped at once limits nothing"]
pub struct Permit {
    shared: Option<Arc<Shared>>,
    /// When it was taken, in nanoseconds since the epoch; 0 if nobody wishes to know. Where ages are kept: its place among
    /// them. Two whole words are what a response can carry at little cost.
    stamp: u64,
}

impl Permit {
    #[inline]
    pub(super) fn new(shared: &Arc<Shared>, entered: Option<Instant>) -> Self {
        let entered = entered.unwrap_or_default();
        let stamp = match &shared.ages {
            Some(ages) => ages.begin(entered),
            None => entered.as_nanos(),
        };
        Self { shared: Some(Arc::clone(shared)), stamp }
    }

    /// The permit of a nested call that its outer call counts for.
    pub(super) const fn counted_already() -> Self {
        Self { shared: None, stamp: 0 }
    }

    /// Gives the permit back, reading the clock only if the limiter wishes to know the time.
    #[inline]
    pub fn finish(mut self, outcome: Outcome) {
        self.give_back(outcome, None);
    }

    /// What tells its limiter from others; of a nested call's permit, nothing.
    #[inline]
    pub(crate) fn limiter(&self) -> usize {
        self.shared.as_ref().map_or(0, |shared| Arc::as_ptr(shared).addr())
    }

    /// Whether a nested call, too, is admitted without waiting for its outer call.
    #[inline]
    pub(crate) fn counts_nested(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.settings.nested == Nested::CountOnce)
    }

    #[inline]
    fn give_back(&mut self, outcome: Outcome, now: Option<Instant>) {
        let Some(shared) = self.shared.take() else { return };
        if shared.learns {
            self.give_back_learning(&shared, outcome, now);
        } else {
            shared.permits.leave();
        }
    }

    fn give_back_learning(&self, shared: &Shared, outcome: Outcome, now: Option<Instant>) {
        let entered = match &shared.ages {
            Some(ages) => ages.end(self.stamp),
            None => Instant::from_nanos(self.stamp),
        };
        let limit = if entered > Instant::EPOCH && shared.learns_from(outcome) {
            shared.ended(outcome, entered, now.unwrap_or_else(clock::now))
        } else {
            None
        };
        shared.permits.leave();
        if let Some(limit) = limit.filter(|limit| *limit != shared.permits.limit()) {
            shared.permits.resize(limit);
        }
    }
}

impl crate::Permit for Permit {
    #[inline]
    fn learns(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.learns)
    }

    #[inline]
    fn settle(mut self, outcome: Outcome, now: Instant) {
        self.give_back(outcome, Some(now));
    }

    #[inline]
    fn settle_now(self, outcome: Outcome) {
        self.finish(outcome);
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        self.give_back(Outcome::Abandoned, None);
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

impl Shared {
    /// Whether a call that was admitted to `load` is timed, though it does not know when it began.
    #[inline]
    pub(super) fn wants_times(&self, load: Load) -> bool {
        self.settings.times_all() || self.tuner.as_ref().is_some_and(|tuner| tuner.is_sample(load))
    }

    #[inline]
    fn learns_from(&self, outcome: Outcome) -> bool {
        outcome != Outcome::Unsent && (self.settings.measure_hold || self.tuner.is_some())
    }

    /// Learns from a call; the limit, if it is learnt anew.
    fn ended(&self, outcome: Outcome, entered: Instant, now: Instant) -> Option<u32> {
        let lasted = now.since(entered);
        self.stats.held(lasted);
        let in_flight = self.permits.load().in_flight();
        self.tuner.as_ref()?.record(&Sample { outcome, lasted, in_flight }, now)
    }
}

/// When each permit now held was taken: kept only where permits held for long are watched for.
#[derive(Default)]
pub(super) struct Ages(Mutex<(Vec<Option<Instant>>, Vec<usize>)>);

impl Ages {
    /// The place of a permit.
    fn begin(&self, entered: Instant) -> u64 {
        let (ages, free) = &mut *self.0.lock();
        match free.pop() {
            Some(at) => {
                ages[at] = Some(entered);
                at as u64
            }
            None => {
                ages.push(Some(entered));
                ages.len() as u64 - 1
            }
        }
    }

    /// When the permit at this place was taken; the place is free again.
    fn end(&self, at: u64) -> Instant {
        let (ages, free) = &mut *self.0.lock();
        let at = usize::try_from(at).expect("a place is an index");
        free.push(at);
        ages[at].take().expect("a permit has a place of its own")
    }

    /// Permits held for longer than `limit` at `now`.
    pub(super) fn longer_than(&self, limit: Duration, now: Instant) -> u32 {
        let (ages, _) = &*self.0.lock();
        ages.iter().flatten().filter(|entered| now.since(**entered) > limit).count() as u32
    }
}
