//! What an admitted call holds.

use std::{sync::Arc, time::Duration};

use super::Shared;
use parking_lot::Mutex;
use tidegate_core::{gate::Load, limit::Sample};

use crate::{Instant, Outcome, clock};

/// One call in flight. It goes back once: when settled, or, as abandoned, when dropped.
#[must_use = "a permit that is dropped at once limits nothing"]
pub struct Permit {
    shared: Option<Arc<Shared>>,
    entered: Option<Instant>,
    age: Option<usize>,
}

impl Permit {
    pub(super) fn new(shared: &Arc<Shared>, entered: Option<Instant>) -> Self {
        let age = shared.ages.as_ref().zip(entered).map(|(ages, entered)| ages.begin(entered));
        Self { shared: Some(Arc::clone(shared)), entered, age }
    }

    /// The permit of a nested call that its outer call counts for.
    pub(super) const fn counted_already() -> Self {
        Self { shared: None, entered: None, age: None }
    }

    /// Gives the permit back, reading the clock only if the limiter wishes to know the time.
    pub fn finish(mut self, outcome: Outcome) {
        self.give_back(outcome, None);
    }

    fn give_back(&mut self, outcome: Outcome, now: Option<Instant>) {
        let Some(shared) = self.shared.take() else { return };
        if let Some((ages, age)) = shared.ages.as_ref().zip(self.age) {
            ages.end(age);
        }
        let limit = match self.entered {
            Some(entered) if shared.learns_from(outcome) => {
                shared.ended(outcome, entered, now.unwrap_or_else(clock::now))
            }
            _ => None,
        };
        shared.permits.leave();
        if let Some(limit) = limit.filter(|limit| *limit != shared.permits.limit()) {
            shared.permits.resize(limit);
        }
    }
}

impl crate::Permit for Permit {
    fn settle(mut self, outcome: Outcome, now: Instant) {
        self.give_back(outcome, Some(now));
    }

    fn settle_now(self, outcome: Outcome) {
        self.finish(outcome);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back(Outcome::Abandoned, None);
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permit").field("entered", &self.entered).finish_non_exhaustive()
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
    fn begin(&self, entered: Instant) -> usize {
        let (ages, free) = &mut *self.0.lock();
        match free.pop() {
            Some(at) => {
                ages[at] = Some(entered);
                at
            }
            None => {
                ages.push(Some(entered));
                ages.len() - 1
            }
        }
    }

    fn end(&self, at: usize) {
        let (ages, free) = &mut *self.0.lock();
        ages[at] = None;
        free.push(at);
    }

    /// Permits held for longer than `limit` at `now`.
    pub(super) fn longer_than(&self, limit: Duration, now: Instant) -> u32 {
        let (ages, _) = &*self.0.lock();
        ages.iter().flatten().filter(|entered| now.since(**entered) > limit).count() as u32
    }
}
