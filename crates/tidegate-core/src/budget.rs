//! The retry budget: retries as a share of calls, so that retries cannot multiply an outage (finagle `RetryBudget`,
//! tower `retry::budget`, linkerd service profiles count the same way).

use std::{fmt, time::Duration};

use crate::{By, Instant, Refused, sliding::Sliding};

/// What a retry costs, so that a percentage is a whole number.
const RETRY: u64 = 100;

/// How many retries a number of calls allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Retries as a share of calls, in percent, 0 to 1000. 0 allows none at all. Default: 20.
    pub percent: u32,
    /// Retries a second that are allowed whatever the calls, saved up over `within`. Default: 10.
    pub min_per_second: u32,
    /// How long calls and retries are remembered, 1 s to 1 h. Default: 10 s.
    pub within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { percent: 20, min_per_second: 10, within: Duration::from_secs(10) }
    }
}

/// What is wrong with a retry budget's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidSettings {
    /// `percent` is out of range.
    Percent(u32),
    /// `within` is out of range.
    Within(Duration),
}

impl fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(value) => {
                write!(f, "retry budget: percent is {value}; it is between 0 and 1000, like 20")
            }
            Self::Within(value) => {
                write!(f, "retry budget: within is {value:?}; it is between 1s and 1h, like 10s")
            }
        }
    }
}

impl std::error::Error for InvalidSettings {}

/// A retry that the budget has paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    at: Instant,
}

/// The account of calls and retries over the last while.
#[derive(Clone, Debug)]
pub struct Budget {
    settings: Settings,
    calls: Sliding,
    retries: Sliding,
}

impl Budget {
    /// Opens an account without calls.
    ///
    /// # Errors
    /// [`InvalidSettings`] when a number is out of range.
    pub fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        if settings.percent > 1000 {
            return Err(InvalidSettings::Percent(settings.percent));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&settings.within) {
            return Err(InvalidSettings::Within(settings.within));
        }
        let sliding = Sliding::new(settings.within);
        Ok(Self { settings, calls: sliding, retries: sliding })
    }

    /// Learns of `calls` first attempts.
    pub fn deposit(&mut self, calls: u32, now: Instant) {
        self.calls.add(calls, now);
    }

    /// Takes one retry.
    ///
    /// # Errors
    /// [`Refused`] by [`By::RetryBudget`] when the share is used up.
    pub fn withdraw(&mut self, now: Instant) -> Result<Withdrawal, Refused> {
        if self.left(now) == 0 {
            let regained = self.retries.shrinks_at(now).filter(|_| self.settings.percent > 0);
            return Err(match regained {
                Some(at) => Refused::after(By::RetryBudget, at.since(now)),
                None => Refused::new(By::RetryBudget),
            });
        }
        self.retries.add(1, now);
        Ok(Withdrawal { at: now })
    }

    /// Takes back a retry that surely was not sent.
    pub fn refund(&mut self, withdrawal: Withdrawal) {
        self.retries.remove(1, withdrawal.at);
    }

    /// Retries that the budget would allow at `now`.
    pub fn left(&self, now: Instant) -> u32 {
        if self.settings.percent == 0 {
            return 0;
        }
        let earned = u64::from(self.calls.sum(now)) * u64::from(self.settings.percent);
        let reserve = u64::from(self.settings.min_per_second) * self.settings.within.as_secs() * RETRY;
        let spent = u64::from(self.retries.sum(now)) * RETRY;
        u32::try_from((earned + reserve).saturating_sub(spent) / RETRY).unwrap_or(u32::MAX)
    }

    /// The settings in force.
    pub const fn settings(&self) -> Settings {
        self.settings
    }

    /// How long deposits may be gathered before they are told, without blurring the window.
    pub const fn slice(&self) -> Duration {
        self.calls.slice()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Instant = Instant::from_nanos(1_700_000_000_000_000_000);

    fn budget(percent: u32, min_per_second: u32) -> Budget {
        Budget::new(Settings { percent, min_per_second, ..Settings::default() }).unwrap()
    }

    #[test]
    fn a_fifth_of_the_calls_may_be_retried() {
        let mut budget = budget(20, 0);
        assert_eq!(budget.withdraw(START), Err(Refused::new(By::RetryBudget)));
        budget.deposit(14, START);
        assert_eq!(budget.left(START), 2);
        assert!(budget.withdraw(START).is_ok());
        assert!(budget.withdraw(START).is_ok());
        let refused = budget.withdraw(START).unwrap_err();
        assert_eq!(refused.by, By::RetryBudget);
        let wait = refused.retry_after.unwrap();
        assert!(wait > Duration::from_secs(10) && wait <= Duration::from_millis(10_625), "{wait:?}");
    }

    #[test]
    fn a_quiet_client_may_always_retry_a_little() {
        let mut budget = budget(20, 3);
        let admitted = (0..100).filter(|_| budget.withdraw(START).is_ok()).count();
        assert_eq!(admitted, 30, "3 a second over 10 s");
        assert_eq!(budget.left(START + Duration::from_millis(10_625)), 30);
    }

    #[test]
    fn zero_percent_turns_retries_off() {
        let mut budget = budget(0, 10);
        budget.deposit(1000, START);
        assert_eq!(budget.withdraw(START), Err(Refused::new(By::RetryBudget)));
    }

    #[test]
    fn a_retry_that_was_not_sent_is_taken_back_once_and_not_after_it_was_forgotten() {
        let mut budget = budget(100, 0);
        budget.deposit(1, START);
        let withdrawal = budget.withdraw(START).unwrap();
        assert_eq!(budget.left(START), 0);
        budget.refund(withdrawal);
        assert_eq!(budget.left(START), 1);
        let later = START + Duration::from_secs(60);
        budget.deposit(1, later);
        let spent = budget.withdraw(later).unwrap();
        budget.refund(withdrawal);
        assert_eq!(budget.left(later), 0, "a refund of the last minute gives this one nothing");
        budget.refund(spent);
        assert_eq!(budget.left(later), 1);
    }

    #[test]
    fn numbers_out_of_range_say_what_is_in_range() {
        let error = Budget::new(Settings { percent: 1001, ..Settings::default() }).unwrap_err();
        assert_eq!(error.to_string(), "retry budget: percent is 1001; it is between 0 and 1000, like 20");
        let error = Budget::new(Settings { within: Duration::ZERO, ..Settings::default() }).unwrap_err();
        assert_eq!(error.to_string(), "retry budget: within is 0ns; it is between 1s and 1h, like 10s");
    }

    proptest! {
        #[test]
        fn retries_never_exceed_the_share_and_the_reserve(
            steps in prop::collection::vec((0_u64..2_000, 0_u32..20, 0_u32..20), 1..80),
            percent in 1_u32..200,
            min_per_second in 0_u32..3,
        ) {
            let mut budget = budget(percent, min_per_second);
            let within = budget.settings().within;
            let (mut now, mut calls, mut retries) = (START, Vec::new(), Vec::new());
            for (wait, made, wanted) in steps {
                now += Duration::from_millis(wait);
                budget.deposit(made, now);
                calls.push((now, made));
                let sum = |log: &[(Instant, u32)], length: Duration| -> u32 {
                    log.iter().filter(|(then, _)| now.since(*then) < length).map(|(_, n)| n).sum()
                };
                let most = sum(&calls, within + budget.slice()) * percent / 100 + min_per_second * 10;
                for _ in 0..wanted {
                    if budget.withdraw(now).is_ok() {
                        retries.push((now, 1));
                        prop_assert!(sum(&retries, within) <= most);
                    }
                }
            }
        }
    }
}
