//! When to try again after a failure: counted from the END of an attempt, growing to a cap, with full jitter.

use std::{fmt, time::Duration};

use crate::{Instant, nanos};

/// A throw of dice, made by whoever has some: uniform over 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dice(pub u32);

impl Dice {
    /// The least a throw can be.
    pub const LEAST: Self = Self(0);
    /// The most a throw can be.
    pub const MOST: Self = Self(u32::MAX);

    /// A uniform part of `span`: from zero to just below the whole.
    pub fn part_of(self, span: Duration) -> Duration {
        let part = (u128::from(nanos(span)) * u128::from(self.0)) >> 32;
        Duration::from_nanos(u64::try_from(part).expect("a part is less than the whole, which has 64 bits"))
    }
}

/// The pause after the n-th failure in a row: `floor`, and a random part of `base · 2ⁿ⁻¹`, at most of `cap`.
///
/// Full jitter (Brooker, "Exponential backoff and jitter", 2015) spreads a fleet evenly; the floor keeps the promise
/// that nobody asks again sooner. In the long run a pause is `floor + cap / 2` on average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The shortest pause. Default: 0.
    pub floor: Duration,
    /// What is thrown for after the first failure; at least 1 ms. Default: 200 ms.
    pub base: Duration,
    /// The most that is thrown for; at least `base`. Default: 60 s.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { floor: Duration::ZERO, base: Duration::from_millis(200), cap: Duration::from_secs(60) }
    }
}

/// What is wrong with a backoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidBackoff {
    /// `base` is out of range.
    Base(Duration),
    /// `cap` is less than `base`, or more than a day.
    Cap(Duration),
    /// `floor` is more than a day.
    Floor(Duration),
}

impl fmt::Display for InvalidBackoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base(value) => write!(f, "backoff: base is {value:?}; it is at least 1ms, like 200ms"),
            Self::Cap(value) => write!(f, "backoff: cap is {value:?}; it is between base and 24h, like 60s"),
            Self::Floor(value) => write!(f, "backoff: floor is {value:?}; it is at most 24h, like 5s"),
        }
    }
}

impl std::error::Error for InvalidBackoff {}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Backoff {
    /// Checks the periods.
    ///
    /// # Errors
    /// [`InvalidBackoff`] with the one that is out of range.
    pub fn check(&self) -> Result<(), InvalidBackoff> {
        if self.base < Duration::from_millis(1) {
            return Err(InvalidBackoff::Base(self.base));
        }
        if self.cap < self.base || self.cap > DAY {
            return Err(InvalidBackoff::Cap(self.cap));
        }
        if self.floor > DAY {
            return Err(InvalidBackoff::Floor(self.floor));
        }
        Ok(())
    }

    /// When the next attempt may begin, after `tries` failures in a row of which the last ended at `ended`.
    ///
    /// `asked` is what the other side asked for; it is honoured up to the longest pause of this backoff, so that nobody
    /// can send a fleet to sleep.
    pub fn next(&self, tries: u32, asked: Option<Duration>, ended: Instant, dice: Dice) -> Instant {
        let doublings = tries.saturating_sub(1).min(63);
        let span = u128::from(nanos(self.base)) << doublings;
        let cap = nanos(self.cap);
        let span = u64::try_from(span).unwrap_or(u64::MAX).min(cap);
        let pause = self.floor + dice.part_of(Duration::from_nanos(span));
        let longest = self.floor + self.cap;
        let asked = asked.unwrap_or_default().min(longest);
        // What was asked for is asked of everybody: the jitter comes on top, or all would return at once.
        ended + if asked > self.floor { asked + pause.saturating_sub(self.floor) } else { pause }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Instant = Instant::from_nanos(1_700_000_000_000_000_000);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn pause(backoff: Backoff, tries: u32, dice: Dice) -> Duration {
        backoff.next(tries, None, START, dice).since(START)
    }

    #[test]
    fn the_span_doubles_to_the_cap_and_the_jitter_is_full() {
        let backoff = Backoff { floor: millis(5), base: millis(100), cap: millis(1000) };
        for (tries, span) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (6, 1000), (u32::MAX, 1000)]
        {
            assert_eq!(pause(backoff, tries, Dice::LEAST), millis(5), "{tries}");
            let most = pause(backoff, tries, Dice::MOST);
            assert!(most <= millis(5 + span) && most > millis(4 + span), "{tries}: {most:?}");
            let half = pause(backoff, tries, Dice(1 << 31));
            assert_eq!(half, millis(5) + millis(span) / 2, "{tries}");
        }
    }

    #[test]
    fn what_the_other_side_asks_for_is_honoured_within_reason_and_jittered() {
        let backoff = Backoff { floor: millis(5), base: millis(100), cap: millis(1000) };
        let next = |asked, dice| backoff.next(1, Some(asked), START, dice).since(START);
        assert_eq!(next(millis(500), Dice::LEAST), millis(500));
        assert_eq!(next(millis(500), Dice(1 << 31)), millis(550));
        assert_eq!(next(Duration::MAX, Dice::LEAST), millis(1005));
        assert_eq!(next(millis(1), Dice::LEAST), millis(5));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let good = Backoff::default();
        assert_eq!(good.check(), Ok(()));
        assert!(Backoff { base: Duration::ZERO, ..good }.check().is_err());
        assert!(Backoff { cap: millis(1), ..good }.check().is_err());
        let error = Backoff { cap: Duration::MAX, ..good }.check().unwrap_err().to_string();
        assert!(error.ends_with("it is between base and 24h, like 60s"), "{error}");
        assert!(Backoff { floor: Duration::MAX, ..good }.check().is_err());
    }

    proptest! {
        #[test]
        fn a_pause_is_never_shorter_than_the_floor_nor_longer_than_twice_floor_and_cap(
            floor in 0_u64..10_000, base in 1_u64..1000, more in 0_u64..100_000,
            tries: u32, dice: u32, asked: Option<u32>
        ) {
            let backoff = Backoff { floor: millis(floor), base: millis(base), cap: millis(base + more) };
            let asked = asked.map(|asked| millis(asked.into()));
            let pause = backoff.next(tries, asked, START, Dice(dice)).since(START);
            prop_assert!(pause >= backoff.floor);
            prop_assert!(pause <= 2 * (backoff.floor + backoff.cap));
        }
    }
}
