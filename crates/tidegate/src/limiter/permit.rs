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
    stamp: Stamp,
}

/// When a permit was taken, in nanoseconds since the epoch; 0 if nobody wished to know. Or, with the highest bit, its place
/// among the ages. Two whole words are what a response can carry at little cost.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp(u64);

impl Stamp {
    const NONE: Self = Self(0);
    const AGED: u64 = 1 << 63;

    #[inline]
    const fn at(entered: Instant) -> Self {
        // 292 years are for ever.
        Self(entered.as_nanos() & !Self::AGED)
    }

    const fn aged(place: usize) -> Self {
        Self(place as u64 | Self::AGED)
    }

    /// Its place among the ages, if it has one.
    fn place(self) -> Option<usize> {
        let place = (self.0 & Self::AGED != 0).then_some(self.0 & !Self::AGED)?;
        Some(usize::try_from(place).expect("a place is an index"))
    }
}

impl Permit {
    #[inline]
    pub(super) fn new(shared: &Arc<Shared>, entered: Option<Instant>) -> Self {
        let stamp = match entered {
            Some(entered) if shared.watch.learns() => shared.begin(entered),
            Some(_) | None => Stamp::NONE,
        };
        Self { shared: Some(Arc::clone(shared)), stamp }
    }

    /// The permit of a nested call that its outer call counts for.
    pub(super) const fn counted_already() -> Self {
        Self { shared: None, stamp: Stamp::NONE }
    }

    /// Gives the permit back, reading the clock only if the limiter wishes to know the time.
    #[inline]
    pub fn finish(mut self, outcome: Outcome) {
        self.end(outcome, None);
    }

    /// What tells its limiter from others; of a nested call's permit, nothing.
    #[inline]
    pub(crate) fn limiter(&self) -> usize {
        self.shared.as_ref().map_or(0, |shared| Arc::as_ptr(shared).addr())
    }

    /// Whether a nested call, too, is admitted without waiting for its outer call.
    #[inline]
    pub(crate) fn counts_nested(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.nested == Nested::CountOnce)
    }

    #[inline(always)]
    fn end(&mut self, outcome: Outcome, now: Option<Instant>) {
        if let Some(shared) = self.shared.take() {
            Self::give_back(shared, self.stamp, outcome, now);
        }
    }

    /// Takes what is to be given back by value: a permit that is passed by reference would be kept in memory, with the
    /// future or the body around it, on the path of every call.
    #[inline(never)]
    fn give_back(shared: Arc<Shared>, stamp: Stamp, outcome: Outcome, now: Option<Instant>) {
        if stamp != Stamp::NONE {
            shared.end(stamp, outcome, now);
        }
        shared.permits.leave();
    }
}

impl crate::Permit for Permit {
    /// A call that is no sample, as nobody knows when it began, teaches nothing.
    #[inline]
    fn learns(&self) -> bool {
        self.stamp != Stamp::NONE
    }

    #[inline]
    fn settle(mut self, outcome: Outcome, now: Instant) {
        self.end(outcome, Some(now));
    }

    #[inline]
    fn settle_now(self, outcome: Outcome) {
        self.finish(outcome);
    }
}

impl Drop for Permit {
    #[inline(always)]
    fn drop(&mut self) {
        self.end(Outcome::Abandoned, None);
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
        self.watch.learns() && (self.watch.times_all() || self.tuner.is_sample(load))
    }

    #[inline]
    fn learns_from(&self, outcome: Outcome) -> bool {
        outcome != Outcome::Unsent && (self.watch.measures_hold() || self.tuner.is_on())
    }

    fn begin(&self, entered: Instant) -> Stamp {
        match self.watch.held_long() {
            Some(_) => Stamp::aged(self.ages.begin(entered)),
            None => Stamp::at(entered),
        }
    }

    fn end(&self, stamp: Stamp, outcome: Outcome, now: Option<Instant>) {
        let entered = match stamp.place() {
            Some(place) => self.ages.end(place),
            None => Instant::from_nanos(stamp.0),
        };
        if entered > Instant::EPOCH && self.learns_from(outcome) {
            self.ended(outcome, entered, now.unwrap_or_else(clock::now));
        }
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
pub(super) struct Ages(Mutex<(Vec<Option<Instant>>, Vec<usize>)>);

impl Ages {
    /// The place of a permit.
    pub(super) fn begin(&self, entered: Instant) -> usize {
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

    /// When the permit at this place was taken; the place is free again.
    pub(super) fn end(&self, at: usize) -> Instant {
        let (ages, free) = &mut *self.0.lock();
        free.push(at);
        ages[at].take().expect("a permit has a place of its own")
    }

    /// Permits held for longer than `limit` at `now`.
    pub(super) fn longer_than(&self, limit: Duration, now: Instant) -> u32 {
        let (ages, _) = &*self.0.lock();
        ages.iter().flatten().filter(|entered| now.since(**entered) > limit).count() as u32
    }
}
