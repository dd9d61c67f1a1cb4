//! Counts over a sliding window in memory that does not depend on the count: sixteen slices and the one under way.

use std::time::Duration;

use crate::{Instant, nanos};

/// Full slices in a window; what it counts is forgotten at most one slice late, never early.
const SLICES: usize = 16;

/// A sum over the last `length`, remembered up to a sixteenth of `length` longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sliding {
    slice_nanos: u64,
    /// The number of the newest slice since the epoch.
    newest: u64,
    sums: [u32; SLICES + 1],
}

impl Sliding {
    pub(crate) fn new(length: Duration) -> Self {
        Self { slice_nanos: (nanos(length).div_ceil(SLICES as u64)).max(1), newest: 0, sums: [0; SLICES + 1] }
    }

    /// How long a slice lasts.
    pub(crate) const fn slice(&self) -> Duration {
        Duration::from_nanos(self.slice_nanos)
    }

    /// Adds `count` at `now`. A `now` older than the newest known counts as the newest: clocks read by different
    /// threads arrive out of order, and to forget late is the safe side.
    pub(crate) fn add(&mut self, count: u32, now: Instant) {
        self.forget(now);
        let newest = self.place(self.newest);
        self.sums[newest] = self.sums[newest].saturating_add(count);
    }

    /// Takes `count` of what was added at `then` away again, if it is still remembered.
    pub(crate) fn remove(&mut self, count: u32, then: Instant) {
        let slice = then.as_nanos() / self.slice_nanos;
        if slice + (SLICES as u64) >= self.newest && slice <= self.newest {
            let place = self.place(slice);
            self.sums[place] = self.sums[place].saturating_sub(count);
        }
    }

    /// The sum over the window that ends at `now`.
    pub(crate) fn sum(&self, now: Instant) -> u32 {
        let mut seen = *self;
        seen.forget(now);
        seen.sums.iter().fold(0, |sum, slice| sum.saturating_add(*slice))
    }

    /// The soonest that the sum can shrink: the end of the oldest slice that holds anything.
    pub(crate) fn shrinks_at(&self, now: Instant) -> Option<Instant> {
        let mut seen = *self;
        seen.forget(now);
        let oldest = seen.newest.saturating_sub(SLICES as u64);
        let held = (oldest..=seen.newest).find(|slice| seen.sums[seen.place(*slice)] > 0)?;
        Some(Instant::from_nanos((held + 1 + SLICES as u64).saturating_mul(self.slice_nanos)))
    }

    fn forget(&mut self, now: Instant) {
        let slice = now.as_nanos() / self.slice_nanos;
        let passed = slice.saturating_sub(self.newest).min(self.sums.len() as u64);
        for back in 0..passed {
            let place = self.place(slice - back);
            self.sums[place] = 0;
        }
        self.newest = self.newest.max(slice);
    }

    const fn place(&self, slice: u64) -> usize {
        (slice % (SLICES as u64 + 1)) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LENGTH: Duration = Duration::from_millis(1600);

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn nothing_within_the_window_is_forgotten_and_nothing_is_kept_a_slice_longer() {
        let mut sliding = Sliding::new(LENGTH);
        sliding.add(3, at(50_099));
        assert_eq!(sliding.sum(at(50_099 + 1600)), 3);
        assert_eq!(sliding.shrinks_at(at(50_099)), Some(at(51_700)));
        assert_eq!(sliding.sum(at(51_700)), 0);
        assert_eq!(sliding.shrinks_at(at(51_700)), None);
    }

    #[test]
    fn sums_saturate() {
        let mut sliding = Sliding::new(LENGTH);
        sliding.add(u32::MAX, at(0));
        sliding.add(1, at(0));
        sliding.add(1, at(100));
        assert_eq!(sliding.sum(at(100)), u32::MAX);
    }

    proptest! {
        #[test]
        fn the_sum_lies_between_the_exact_window_and_one_slice_more(
            steps in prop::collection::vec((0_u64..900, 0_u32..4), 1..60)
        ) {
            let mut sliding = Sliding::new(LENGTH);
            let (mut now, mut log) = (at(1_000_000), Vec::new());
            for (wait, count) in steps {
                now += Duration::from_millis(wait);
                sliding.add(count, now);
                log.push((now, count));
                let exact = |length: Duration| -> u32 {
                    log.iter().filter(|(then, _)| now.since(*then) < length).map(|(_, count)| count).sum()
                };
                prop_assert!(sliding.sum(now) >= exact(LENGTH));
                prop_assert!(sliding.sum(now) <= exact(LENGTH + sliding.slice()));
            }
        }
    }
}
