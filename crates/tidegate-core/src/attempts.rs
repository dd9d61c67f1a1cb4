//! A budget of attempts per window; who uses it up cools down.

use std::{fmt, num::NonZeroU32, time::Duration};

use crate::{By, Instant, Refused, sliding::Sliding};

/// How many attempts may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Attempts within `within`. Default: 50.
    pub attempts: NonZeroU32,
    /// The sliding window in which attempts count, 1 ms to 24 h; they are forgotten up to a sixteenth of it later.
    /// Default: 10 s.
    pub within: Duration,
    /// How long no attempt is made once they are used up, at most 24 h; 0: until the window has room again. Default: 0.
    pub cooldown: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        const FIFTY: NonZeroU32 = NonZeroU32::new(50).expect("50 is not 0");
        Self { attempts: FIFTY, within: Duration::from_secs(10), cooldown: Duration::ZERO }
    }
}

/// What is wrong with a budget of attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidSettings {
    /// `within` is out of range.
    Within(Duration),
    /// `cooldown` is out of range.
    Cooldown(Duration),
}

impl fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Within(value) => {
                write!(f, "attempts: within is {value:?}; it is between 1ms and 24h, like 10s")
            }
            Self::Cooldown(value) => {
                write!(f, "attempts: cooldown is {value:?}; it is at most 24h, like 30s")
            }
        }
    }
}

impl std::error::Error for InvalidSettings {}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Settings {
    /// Checks the periods.
    ///
    /// # Errors
    /// [`InvalidSettings`] with the one that is out of range.
    pub fn check(&self) -> Result<(), InvalidSettings> {
        if self.within < Duration::from_millis(1) || self.within > DAY {
            return Err(InvalidSettings::Within(self.within));
        }
        if self.cooldown > DAY {
            return Err(InvalidSettings::Cooldown(self.cooldown));
        }
        Ok(())
    }
}

/// The attempts made within the last while.
#[derive(Clone, Debug)]
pub struct Attempts {
    settings: Settings,
    made: Sliding,
    /// Until when no attempt is made.
    cooling_until: Instant,
}

impl Attempts {
    /// A budget of which nothing is used.
    ///
    /// # Errors
    /// [`InvalidSettings`] when a period is out of range.
    pub fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        settings.check()?;
        Ok(Self { settings, made: Sliding::new(settings.within), cooling_until: Instant::EPOCH })
    }

    /// Makes an attempt, if the budget has one.
    ///
    /// # Errors
    /// [`Refused`] by [`By::Cooldown`] when the attempts are used up, with the time until there may be another.
    pub fn attempt(&mut self, now: Instant) -> Result<(), Refused> {
        if now < self.cooling_until {
            return Err(Refused::after(By::Cooldown, self.cooling_until.since(now)));
        }
        if self.made.sum(now) >= self.settings.attempts.get() {
            let room = self.made.shrinks_at(now).unwrap_or(now);
            self.cooling_until = room.max(now + self.settings.cooldown);
            return Err(Refused::after(By::Cooldown, self.cooling_until.since(now)));
        }
        self.made.add(1, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Instant = Instant::from_nanos(1_700_000_000_000_000_000);

    fn settings(attempts: u32, within: u64, cooldown: u64) -> Settings {
        Settings {
            attempts: NonZeroU32::new(attempts).unwrap(),
            within: Duration::from_secs(within),
            cooldown: Duration::from_secs(cooldown),
        }
    }

    #[test]
    fn who_uses_the_budget_up_cools_down_and_then_may_again() {
        let mut attempts = Attempts::new(settings(3, 10, 30)).unwrap();
        (0..3).for_each(|_| attempts.attempt(START).unwrap());
        let refused = attempts.attempt(START).unwrap_err();
        assert_eq!(refused, Refused::after(By::Cooldown, Duration::from_secs(30)));
        let later = START + Duration::from_secs(29);
        assert_eq!(attempts.attempt(later).unwrap_err().retry_after, Some(Duration::from_secs(1)));
        assert_eq!(attempts.attempt(START + Duration::from_secs(30)), Ok(()));
    }

    #[test]
    fn without_a_cooldown_the_refusal_tells_when_the_window_has_room() {
        let mut attempts = Attempts::new(settings(1, 16, 0)).unwrap();
        attempts.attempt(START).unwrap();
        let wait = attempts.attempt(START).unwrap_err().retry_after.unwrap();
        assert!(wait >= Duration::from_secs(16) && wait <= Duration::from_secs(17), "{wait:?}");
        assert_eq!(attempts.attempt(START + wait), Ok(()));
    }

    #[test]
    fn periods_out_of_range_are_named() {
        assert!(Attempts::new(Settings { within: Duration::ZERO, ..Settings::default() }).is_err());
        let error = Attempts::new(Settings { cooldown: Duration::MAX, ..Settings::default() }).unwrap_err();
        assert!(error.to_string().ends_with("it is at most 24h, like 30s"));
    }

    proptest! {
        #[test]
        fn never_more_attempts_than_the_budget_in_any_window(
            waits in prop::collection::vec(0_u64..4000, 1..200), limit in 1_u32..6, cooldown in 0_u64..5
        ) {
            let mut attempts = Attempts::new(settings(limit, 5, cooldown)).unwrap();
            let (mut now, mut made) = (START, Vec::new());
            for wait in waits {
                now += Duration::from_millis(wait);
                if attempts.attempt(now).is_ok() {
                    made.push(now);
                }
                let recent = made.iter().filter(|then| now.since(**then) < Duration::from_secs(5)).count();
                prop_assert!(recent <= limit as usize);
            }
        }
    }
}
