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
    /// When it was taken; the epoch if nobody wishes to know.
    entered: Instant,
    /// Its place among the ages, one more than the index; 0 if they are not kept.
    age: u32,
}

impl Permit {
    #[inline]
    pub(super) fn new(shared: &Arc<Shared>, entered: Option<Instant>) -> Self {
        let age = match entered {
            Some(entered) if shared.watch.learns() && shared.watch.held_long().is_some() => {
                shared.ages.begin(entered)
            }
            _ => 0,
        };
        Self { shared: Some(Arc::clone(shared)), entered: entered.unwrap_or_default(), age }
    }

    /// The permit of a nested call that its outer call counts for.
    pub(super) const fn counted_already() -> Self {
        Self { shared: None, entered: Instant::EPOCH, age: 0 }
    }

    /// Gives the permit back, reading the clock only if the limiter wishes to know the time.
    #[inline]
    pub fn finish(mut self, outcome: Outcome) {
        self.give_back(outcome, None);
    }

    #[inline]
    fn give_back(&mut self, outcome: Outcome, now: Option<Instant>) {
        let Some(shared) = self.shared.take() else { return };
        if shared.watch.learns() || self.age != 0 {
            self.give_back_learning(&shared, outcome, now);
        } else {
            shared.permits.leave();
        }
    }

    fn give_back_learning(&self, shared: &Shared, outcome: Outcome, now: Option<Instant>) {
        if let Some(age) = self.age.checked_sub(1) {
            shared.ages.end(age);
        }
        if self.entered > Instant::EPOCH && shared.learns_from(outcome) {
            shared.ended(outcome, self.entered, now.unwrap_or_else(clock::now));
        }
        shared.permits.leave();
    }
}

impl crate::Permit for Permit {
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
        f.debug_struct("Permit").field("entered", &self.entered).finish_non_exhaustive()
    }
}

impl Shared {
    /// Whether a call that was admitted to `load` is timed, though it does not know when it began.
    #[inline]
    pub(super) fn wants_times(&self, load: Load) -> bool {
        self.watch.learns() && (self.watch.times_all() || self.tuner.is_sample(load))
    }

    #[inline]
    fn learns_from(&self, outcome: Outcome) -> bool {
        outcome != Outcome::Unsent && (self.watch.measures_hold() || self.tuner.is_on())
    }

    /// Learns from a call.
    fn ended(&self, outcome: Outcome, entered: Instant, now: Instant) {
        let lasted = now.since(entered);
        self.stats.held(lasted);
        if self.tuner.is_on() {
            let in_flight = self.permits.load().in_flight();
            self.tuner.record(&Sample { outcome, lasted, in_flight }, now, |limit| {
                if limit != self.permits.limit() {
                    self.permits.resize(limit);
                }
            });
        }
    }
}

/// When each permit now held was taken: kept only where permits held for long are watched for.
#[derive(Default)]
pub(super) struct Ages(Mutex<(Vec<Option<Instant>>, Vec<u32>)>);

impl Ages {
    /// The place of a permit, counted from 1.
    pub(super) fn begin(&self, entered: Instant) -> u32 {
        let (ages, free) = &mut *self.0.lock();
        match free.pop() {
            Some(at) => {
                ages[at as usize] = Some(entered);
                at + 1
            }
            None => {
                ages.push(Some(entered));
                ages.len() as u32
            }
        }
    }

    pub(super) fn end(&self, at: u32) {
        let (ages, free) = &mut *self.0.lock();
        ages[at as usize] = None;
        free.push(at);
    }

    /// Permits held for longer than `limit` at `now`.
    pub(super) fn longer_than(&self, limit: Duration, now: Instant) -> u32 {
        let (ages, _) = &*self.0.lock();
        ages.iter().flatten().filter(|entered| now.since(**entered) > limit).count() as u32
    }
}
