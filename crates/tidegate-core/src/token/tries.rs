//! Grants of one session that failed: too many within a while, and it cools down.
//!
//! They belong to the session and travel with it, so that a fleet counts them together and rotation does not reset them.

use std::{fmt, num::NonZeroU32, time::Duration};

use crate::Instant;

/// How many grants of a session may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Grants that may fail within `within`. Default: 5.
    pub failures: NonZeroU32,
    /// How long failures count, from the first of them. Default: 5 min.
    pub within: Duration,
    /// How long no grant is asked for afterwards. Default: 10 min.
    pub cooldown: Duration,
    /// The same when all of them were the endpoint's, which may be back long before. Default: 30 s.
    pub rest: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const FIVE: NonZeroU32 = NonZeroU32::new(5).expect("5 is not 0");
        Self {
            failures: FIVE,
            within: Duration::from_secs(300),
            cooldown: Duration::from_secs(600),
            rest: Duration::from_secs(30),
        }
    }
}

/// A period is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTries(&'static str, Duration);

impl fmt::Display for InvalidTries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token: {} is {:?}; it is between 1s and 24h, like 5m", self.0, self.1)
    }
}

impl std::error::Error for InvalidTries {}

impl Limits {
    /// Checks the periods.
    ///
    /// # Errors
    /// [`InvalidTries`] with the one that is out of range.
    pub fn check(&self) -> Result<(), InvalidTries> {
        let range = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
        let periods =
            [("tries.within", self.within), ("tries.cooldown", self.cooldown), ("tries.rest", self.rest)];
        for (name, period) in periods {
            if !range.contains(&period) {
                return Err(InvalidTries(name, period));
            }
        }
        Ok(())
    }
}

/// Whose failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The endpoint's: transport, 5xx, 429. A cooldown of such failures alone is short, and ends as soon as it answers
    /// somebody.
    Endpoint,
    /// This session's, as far as is known.
    Session,
}

/// The failures of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Failures that count.
    pub failures: u32,
    /// When the first of them was.
    pub since: Instant,
    /// Until when it cools down.
    pub cooling_until: Instant,
    /// When it began to.
    pub cooling_since: Instant,
    /// Whether a failure was the session's own.
    pub own: bool,
}

impl Tries {
    /// Whether a grant may be asked for, given when the endpoint last answered anybody.
    ///
    /// # Errors
    /// When it may be.
    pub fn may(&self, answered_at: Option<Instant>, now: Instant) -> Result<(), Instant> {
        let lifted = !self.own && answered_at.is_some_and(|at| at > self.cooling_since);
        if now < self.cooling_until && !lifted { Err(self.cooling_until) } else { Ok(()) }
    }

    /// Learns that a grant failed that was really asked for.
    #[must_use]
    pub fn failed(self, blame: Blame, limits: &Limits, now: Instant) -> Self {
        let over = self.failures == 0 || now.since(self.since) >= limits.within;
        let (before, since, own) = if over { (0, now, false) } else { (self.failures, self.since, self.own) };
        let own = own || blame == Blame::Session;
        if before + 1 >= limits.failures.get() {
            // After the cooldown all of them may fail again.
            let cooling_until = now + if own { limits.cooldown } else { limits.rest };
            return Self { failures: 0, since: now, cooling_until, cooling_since: now, own };
        }
        Self { failures: before + 1, since, own, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1_700_000_000_000_000_000);

    fn at(seconds: u64) -> Instant {
        START + Duration::from_secs(seconds)
    }

    fn failures(count: u64, blame: Blame) -> Tries {
        (0..count).fold(Tries::default(), |tries, n| tries.failed(blame, &Limits::default(), at(n)))
    }

    #[test]
    fn five_failures_within_five_minutes_cool_down_for_ten() {
        let four = failures(4, Blame::Session);
        assert_eq!(four.may(None, at(4)), Ok(()));
        let five = failures(5, Blame::Session);
        assert_eq!(five.may(None, at(5)), Err(at(604)));
        assert_eq!(five.may(Some(at(100)), at(603)), Err(at(604)), "its own failures are not lifted");
        assert_eq!(five.may(None, at(604)), Ok(()));
        let again = five.failed(Blame::Session, &Limits::default(), at(604));
        assert_eq!(again.may(None, at(605)), Ok(()), "after the cooldown five may fail again");
    }

    #[test]
    fn failures_that_lie_far_apart_do_not_cool_down() {
        let mut tries = Tries::default();
        for n in 0..100 {
            tries = tries.failed(Blame::Session, &Limits::default(), at(n * 100));
            assert_eq!(tries.may(None, at(n * 100)), Ok(()), "failure {n}");
        }
    }

    #[test]
    fn a_cooldown_for_failures_of_the_endpoint_ends_when_it_answers_anybody() {
        let five = failures(5, Blame::Endpoint);
        assert_eq!(five.may(Some(at(3)), at(5)), Err(at(34)), "it answered before");
        assert_eq!(five.may(Some(at(20)), at(21)), Ok(()));
        // Nobody else may ask it: then it is not left alone for longer than its breaker would.
        assert_eq!(five.may(None, at(34)), Ok(()));
    }

    #[test]
    fn periods_out_of_range_are_named() {
        assert_eq!(Limits::default().check(), Ok(()));
        let limits = Limits { cooldown: Duration::ZERO, ..Limits::default() };
        let text = "token: tries.cooldown is 0ns; it is between 1s and 24h, like 5m";
        assert_eq!(limits.check().unwrap_err().to_string(), text);
    }
}
