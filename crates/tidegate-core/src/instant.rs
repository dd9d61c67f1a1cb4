//! The one way core speaks of time: a monotonic count of nanoseconds that a driver reads once per call.

use std::{
    ops::{Add, AddAssign, Sub},
    time::Duration,
};

/// A point on a monotonic clock, in nanoseconds.
///
/// The epoch belongs to whoever reads the clock; Tidegate's own driver anchors it to the Unix epoch at process
/// start and never lets it step, so that windows align with the wall clock and durations stay true. Arithmetic
/// saturates: an instant out of range means "never", not a panic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The epoch of the clock.
    pub const EPOCH: Self = Self(0);
    /// Later than every instant a clock will show (year 2554 on a clock that starts in 1970).
    pub const NEVER: Self = Self(u64::MAX);

    /// Makes the instant `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`, or zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Whole nanoseconds of `duration`, saturating at `u64::MAX` (584 years).
pub const fn nanos(duration: Duration) -> u64 {
    let nanos = duration.as_nanos();
    if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_panicking() {
        let second = Duration::from_secs(1);
        assert_eq!(Instant::NEVER + second, Instant::NEVER);
        assert_eq!(Instant::EPOCH - second, Instant::EPOCH);
        assert_eq!(Instant::EPOCH.since(Instant::NEVER), Duration::ZERO);
        assert_eq!(Instant::EPOCH + Duration::MAX, Instant::NEVER);
        assert_eq!((Instant::EPOCH + second).since(Instant::EPOCH), second);
    }
}
