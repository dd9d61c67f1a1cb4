//! What an admitted call of a partition holds.

use std::sync::Arc;

use tidegate_core::limit::Sample;

use super::Shared;
use crate::{Instant, Outcome, clock};

/// One call in flight in a partition; it goes back once: when settled, or, as abandoned, when dropped.
#[must_use = "a permit that is dropped at once limits nothing"]
pub struct PartitionPermit {
    shared: Option<Arc<Shared>>,
    at: usize,
    entered: Instant,
    /// Its place among the ages, if they are kept.
    age: Option<usize>,
}

impl PartitionPermit {
    pub(super) fn new(shared: &Arc<Shared>, at: usize, entered: Instant) -> Self {
        let age = shared.watch.held_long().map(|_| shared.stats[at].1.begin(entered));
        Self { shared: Some(Arc::clone(shared)), at, entered, age }
    }

    /// The permit of a nested call that its outer call counts for.
    pub(super) const fn counted_already() -> Self {
        Self { shared: None, at: 0, entered: Instant::EPOCH, age: None }
    }

    fn give_back(&mut self, outcome: Outcome, now: Option<Instant>) {
        let Some(shared) = self.shared.take() else { return };
        let (stats, ages) = &shared.stats[self.at];
        if let Some(age) = self.age {
            ages.end(age);
        }
        if outcome != Outcome::Unsent && shared.watch.learns() {
            let now = now.unwrap_or_else(clock::now);
            let lasted = now.since(self.entered);
            stats.held(lasted);
            if shared.tuner.is_on() {
                let in_flight = shared.state.lock().in_flight;
                shared
                    .tuner
                    .record(&Sample { outcome, lasted, in_flight }, now, |limit| shared.resize(limit));
            }
        }
        shared.leave(self.at);
    }
}

impl crate::Permit for PartitionPermit {
    fn settle(mut self, outcome: Outcome, now: Instant) {
        self.give_back(outcome, Some(now));
    }

    fn settle_now(mut self, outcome: Outcome) {
        self.give_back(outcome, None);
    }
}

impl Drop for PartitionPermit {
    fn drop(&mut self) {
        self.give_back(Outcome::Abandoned, None);
    }
}

impl std::fmt::Debug for PartitionPermit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartitionPermit").field("at", &self.at).finish_non_exhaustive()
    }
}
