//! How old a value may be: Fresh, Due for a refresh, Stale, Dead.

use std::time::Duration;

use crate::{Dice, Instant};

/// How long a value is worth something, counted from when its fetch began, which is never later than its truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// It is fresh, and nobody asks for a newer one, for this long.
    pub fresh: Duration,
    /// That much of `fresh`, at most, is cut off at random, so that values fetched together do not fall due together.
    pub spread: Duration,
    /// It is as good as fresh, while a newer one is asked for, until this old. At least `fresh`.
    pub valid: Duration,
    /// It may still be served, marked, for this much longer than `valid`.
    pub stale: Duration,
}

impl Lifetime {
    /// The lifetime of a value that is valid for `ttl` and may be served for `stale` longer: due between 60 % and 80 % of
    /// `ttl`.
    pub fn of(ttl: Duration, stale: Duration) -> Self {
        Self { fresh: ttl * 4 / 5, spread: ttl / 5, valid: ttl, stale }
    }

    /// A value that is valid for ever: until another one takes its place.
    pub const FOR_EVER: Self =
        Self { fresh: Duration::MAX, spread: Duration::ZERO, valid: Duration::MAX, stale: Duration::ZERO };

    /// The instants at which a value that was asked for at `at` ages.
    pub fn from(&self, at: Instant, dice: Dice) -> Term {
        let valid = self.valid.max(self.fresh);
        Term {
            from: at,
            due_at: at + self.fresh.saturating_sub(dice.part_of(self.spread)),
            stale_at: at + valid,
            dead_at: at + valid.saturating_add(self.stale),
        }
    }
}

/// The instants at which one value ages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// When it was asked for.
    pub from: Instant,
    /// From here on a newer one should be fetched.
    pub due_at: Instant,
    /// From here on it is stale.
    pub stale_at: Instant,
    /// From here on it is not served.
    pub dead_at: Instant,
}

/// How good a value is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// Nothing is to be done.
    Fresh,
    /// As good as fresh; a newer one should be fetched meanwhile.
    Due,
    /// Better than nothing, and marked.
    Stale,
    /// Worth nothing.
    Dead,
}

impl Term {
    /// How good the value is at `now`. At the very instant of a change it has changed.
    #[inline]
    pub fn at(&self, now: Instant) -> Freshness {
        if now < self.due_at {
            Freshness::Fresh
        } else if now < self.stale_at {
            Freshness::Due
        } else if now < self.dead_at {
            Freshness::Stale
        } else {
            Freshness::Dead
        }
    }

    /// How old the value is.
    pub const fn age(&self, now: Instant) -> Duration {
        now.since(self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1_700_000_000_000_000_000);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_value_ages_at_the_very_instants_of_its_term() {
        let term = Lifetime::of(seconds(60), seconds(100)).from(START, Dice::LEAST);
        for (after, expected) in [
            (0, Freshness::Fresh),
            (47, Freshness::Fresh),
            (48, Freshness::Due),
            (59, Freshness::Due),
            (60, Freshness::Stale),
            (159, Freshness::Stale),
            (160, Freshness::Dead),
        ] {
            assert_eq!(term.at(START + seconds(after)), expected, "after {after} s");
        }
        assert_eq!(term.at(START + seconds(60) - Duration::from_nanos(1)), Freshness::Due);
        assert_eq!(term.age(START + seconds(7)), seconds(7));
    }

    #[test]
    fn values_fetched_together_fall_due_apart_and_never_after_their_end() {
        let lifetime = Lifetime::of(seconds(60), seconds(0));
        let earliest = lifetime.from(START, Dice::MOST).due_at;
        assert!(earliest >= START + seconds(36) && earliest < START + seconds(37));
        let odd = Lifetime { fresh: seconds(9), spread: seconds(20), valid: seconds(1), stale: seconds(0) };
        let term = odd.from(START, Dice::MOST);
        assert_eq!((term.due_at, term.stale_at), (START, START + seconds(9)));
    }

    #[test]
    fn a_value_for_ever_is_fresh_as_long_as_clocks_run() {
        let term = Lifetime::FOR_EVER.from(START, Dice::MOST);
        assert_eq!(term.at(START + seconds(500_000_000)), Freshness::Fresh);
    }

    #[test]
    fn a_value_that_is_valid_for_no_time_is_stale_at_once() {
        let term = Lifetime::of(Duration::ZERO, seconds(1)).from(START, Dice::MOST);
        assert_eq!(term.at(START), Freshness::Stale);
    }
}
