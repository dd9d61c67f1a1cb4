//! When a token is refreshed: a lead before its end, jittered, and never so long that it is refreshed all the time.

use std::{fmt, time::Duration};

use crate::{Dice, Instant, Lifetime, Term};

/// A token is taken to live at least this long, whatever its endpoint says: a life of 0 would ask with every call.
pub const SHORTEST_LIFE: Duration = Duration::from_secs(1);
/// The longest lead, as a time.
pub const LONGEST_LEAD: Duration = Duration::from_secs(24 * 60 * 60);
/// A lead that is a time is at most this part of a life, so that a token of a short life serves for two thirds of it.
const LEAD_PART: u32 = 3;
/// A lead that is a percentage is at most this many hundredths, so that no token is refreshed all the time.
const MOST_PERCENT: u32 = 90;
/// A token counts as over at most this part of its life before its end.
const SKEW_PART: u32 = 6;

/// How long before its end a token is refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// This many hundredths of its life.
    Percent(u32),
    /// This long.
    Time(Duration),
}

/// When tokens are refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// How long before its end a token is refreshed: as a percentage at most 90 % of its life, as a time at most a third of
    /// it. Default: 20 %.
    pub lead: Lead,
    /// The least lead that a percentage comes to, unless that is more than a third of a life. Default: 10 s.
    pub least: Duration,
    /// Hundredths of a life by which refreshes of tokens granted together lie apart; at most half of the lead
    /// without the skew. Default: 10.
    pub jitter_percent: u32,
    /// How long before its end a token counts as over: for clocks that differ and the time calls take. At most half
    /// of the lead, and a sixth of the life. Default: 30 s.
    pub skew: Duration,
    /// The life of a token whose endpoint does not tell. Default: 5 min.
    pub unknown: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            lead: Lead::Percent(20),
            least: Duration::from_secs(10),
            jitter_percent: 10,
            skew: Duration::from_secs(30),
            unknown: Duration::from_secs(300),
        }
    }
}

/// What is wrong with a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidSchedule {
    /// The lead is more than the whole, or than a day.
    Lead(Lead),
    /// More than the whole life.
    Jitter(u32),
    /// The life of tokens that do not tell is shorter than [`SHORTEST_LIFE`].
    Unknown(Duration),
}

impl fmt::Display for InvalidSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lead(Lead::Percent(value)) => {
                write!(f, "token: the lead is {value}%; it is at most 100%, like 20%")
            }
            Self::Lead(Lead::Time(value)) => {
                write!(f, "token: the lead is {value:?}; it is at most 24h, like 60s")
            }
            Self::Jitter(value) => write!(f, "token: the jitter is {value}%; it is at most 100%, like 10%"),
            Self::Unknown(value) => {
                write!(
                    f,
                    "token: the life of tokens that do not tell is {value:?}; it is at least 1s, like 5m"
                )
            }
        }
    }
}

impl std::error::Error for InvalidSchedule {}

impl Schedule {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`InvalidSchedule`], the first one that is out of range.
    pub fn check(&self) -> Result<(), InvalidSchedule> {
        let fits = match self.lead {
            Lead::Percent(percent) => percent <= 100,
            Lead::Time(time) => time <= LONGEST_LEAD,
        };
        if !fits {
            return Err(InvalidSchedule::Lead(self.lead));
        }
        if self.jitter_percent > 100 {
            return Err(InvalidSchedule::Jitter(self.jitter_percent));
        }
        if self.unknown < SHORTEST_LIFE {
            return Err(InvalidSchedule::Unknown(self.unknown));
        }
        Ok(())
    }

    /// When a token that was asked for at `from` and lives for `life` falls due, and when it is over. There is no stale
    /// token: it is served, or not.
    pub fn term(&self, from: Instant, life: Option<Duration>, dice: Dice) -> Term {
        let life = life.unwrap_or(self.unknown).max(SHORTEST_LIFE);
        let lead = match self.lead {
            Lead::Percent(percent) => {
                (life / 100 * percent.min(MOST_PERCENT)).max(self.least.min(life / LEAD_PART))
            }
            Lead::Time(time) => time.min(life / LEAD_PART),
        };
        let skew = self.skew.min(lead / 2).min(life / SKEW_PART);
        // Later rather than sooner: a lead is what an operator asked for at most. A quarter of it is left for the grant.
        let spread = (life / 100 * self.jitter_percent).min((lead - skew) / 2);
        Lifetime { fresh: life - lead + spread, spread, valid: life - skew, stale: Duration::ZERO }
            .from(from, dice)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Instant = Instant::from_nanos(1_700_000_000_000_000_000);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ages(schedule: Schedule, life: u64, dice: Dice) -> (u64, u64) {
        let term = schedule.term(START, Some(seconds(life)), dice);
        (term.due_at.since(START).as_secs(), term.dead_at.since(START).as_secs())
    }

    #[test]
    fn a_token_of_an_hour_falls_due_after_48_to_54_minutes_and_is_over_half_a_minute_early() {
        let schedule = Schedule::default();
        assert_eq!(ages(schedule, 3600, Dice::MOST), (48 * 60, 3570));
        assert_eq!(ages(schedule, 3600, Dice::LEAST), (48 * 60 + 345, 3570));
    }

    #[test]
    fn a_lead_longer_than_the_life_refreshes_at_most_every_20_of_30_seconds() {
        let schedule = Schedule { lead: Lead::Time(seconds(60)), ..Schedule::default() };
        assert_eq!(ages(schedule, 30, Dice::MOST), (20, 25));
        assert_eq!(ages(schedule, 30, Dice::LEAST), (22, 25));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let good = Schedule::default();
        assert_eq!(good.check(), Ok(()));
        let percent = Schedule { lead: Lead::Percent(101), ..good }.check().unwrap_err().to_string();
        assert_eq!(percent, "token: the lead is 101%; it is at most 100%, like 20%");
        assert!(Schedule { lead: Lead::Time(Duration::MAX), ..good }.check().is_err());
        assert!(Schedule { jitter_percent: 101, ..good }.check().is_err());
        assert!(Schedule { unknown: Duration::ZERO, ..good }.check().is_err());
    }

    proptest! {
        #[test]
        fn a_token_serves_as_long_as_it_is_told_to_before_it_falls_due_and_falls_due_before_it_is_over(
            life in prop::option::of(0_u64..200_000), percent in 0_u32..=100, time in prop::option::of(0_u64..80_000),
            jitter in 0_u32..=100, skew in 0_u64..1000, dice: u32
        ) {
            let lead = time.map_or(Lead::Percent(percent), |time| Lead::Time(seconds(time)));
            let schedule = Schedule { lead, jitter_percent: jitter, skew: seconds(skew), ..Schedule::default() };
            let life = life.map(seconds);
            let term = schedule.term(START, life, Dice(dice));
            let life = life.unwrap_or(schedule.unknown).max(SHORTEST_LIFE);
            let percent = if time.is_none() { percent.clamp(34, 90) } else { 34 };
            prop_assert!(term.due_at.since(START) >= life / 100 * (100 - percent) - Duration::from_nanos(1));
            prop_assert!(term.stale_at == term.dead_at);
            let lead = (START + life).since(term.due_at);
            prop_assert!(term.dead_at.since(term.due_at) >= lead / 4, "there is time to refresh it");
            prop_assert!(term.dead_at.since(START) <= life);
            prop_assert!(term.dead_at.since(START) >= life * 4 / 5);
        }
    }
}
