//! Whether a process is short of memory, and which calls it sheds then: what is sheddable first, what is critical never.

use std::fmt;

use crate::Priority;

/// What a look at memory showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Bytes that are used and cannot be given back at once.
    pub used: u64,
    /// Bytes that may be used; `None`: nobody says.
    pub limit: Option<u64>,
    /// Hundredths of a percent of the last 10 s in which some task waited for memory (PSI `some avg10`), where the
    /// kernel tells.
    pub stalled: Option<u32>,
}

/// From where on memory is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Percent of the limit in use from which on what is sheddable is shed. Default: 85.
    pub high: u32,
    /// Percent of the limit in use from which on only what is critical goes. Default: 95.
    pub critical: u32,
    /// Percent of time waited for memory from which on what is sheddable is shed. Default: 20.
    pub stalled_high: u32,
    /// Percent of time waited for memory from which on only what is critical goes. Default: 60.
    pub stalled_critical: u32,
    /// How many percent below the mark that was passed the level is left again. Default: 5.
    pub slack: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { high: 85, critical: 95, stalled_high: 20, stalled_critical: 60, slack: 5 }
    }
}

/// What is wrong with [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidLimits {
    /// A mark is more than 100 % or at most the slack.
    Mark(&'static str, u32),
    /// The high mark is above the critical one.
    Order(&'static str, u32, u32),
}

impl fmt::Display for InvalidLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mark(name, value) => {
                write!(
                    f,
                    "pressure: {name} is {value}%; it is more than the slack and at most 100%, like 85%"
                )
            }
            Self::Order(name, high, critical) => {
                write!(f, "pressure: {name} is {high}%, above the critical mark of {critical}%; write less")
            }
        }
    }
}

impl std::error::Error for InvalidLimits {}

impl Limits {
    /// Checks the marks.
    ///
    /// # Errors
    /// [`InvalidLimits`], the first one that is wrong.
    pub fn check(&self) -> Result<(), InvalidLimits> {
        for (name, mark) in [
            ("high", self.high),
            ("critical", self.critical),
            ("stalled_high", self.stalled_high),
            ("stalled_critical", self.stalled_critical),
        ] {
            if mark > 100 || mark <= self.slack {
                return Err(InvalidLimits::Mark(name, mark));
            }
        }
        for (name, high, critical) in
            [("high", self.high, self.critical), ("stalled_high", self.stalled_high, self.stalled_critical)]
        {
            if high > critical {
                return Err(InvalidLimits::Order(name, high, critical));
            }
        }
        Ok(())
    }
}

/// How short memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// There is enough, or nobody knows. Nothing is shed.
    #[default]
    None,
    /// What is sheddable is shed.
    High,
    /// Only what is critical goes.
    Critical,
}

impl Level {
    /// The word for it in metrics and on the state page.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// Whether calls of a priority are shed.
    #[inline]
    pub const fn sheds(self, priority: Priority) -> bool {
        match (self, priority) {
            (_, Priority::Critical) | (Self::None, _) | (Self::High, Priority::Normal) => false,
            (Self::High | Self::Critical, Priority::Sheddable) | (Self::Critical, Priority::Normal) => true,
        }
    }

    /// The level after `reading`: entered at its mark, left only some way below it.
    #[must_use]
    pub fn after(self, reading: &Reading, limits: &Limits) -> Self {
        let used = reading.limit.filter(|limit| *limit > 0).map(|limit| {
            u32::try_from(u128::from(reading.used) * 10_000 / u128::from(limit)).unwrap_or(u32::MAX)
        });
        let level = |value: Option<u32>, high: u32, critical: u32| {
            let passes = |mark: u32, level: Self| {
                let slack = if self >= level { limits.slack } else { 0 };
                value.is_some_and(|value| value >= (mark - slack.min(mark)) * 100)
            };
            if passes(critical, Self::Critical) {
                Self::Critical
            } else if passes(high, Self::High) {
                Self::High
            } else {
                Self::None
            }
        };
        let by_use = level(used, limits.high, limits.critical);
        by_use.max(level(reading.stalled, limits.stalled_high, limits.stalled_critical))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(percent: u64) -> Reading {
        Reading { used: percent * 10, limit: Some(1000), stalled: None }
    }

    fn after(level: Level, reading: Reading) -> Level {
        level.after(&reading, &Limits::default())
    }

    #[test]
    fn a_level_is_entered_at_its_mark_and_left_some_way_below() {
        for (from, percent, to) in [
            (Level::None, 84, Level::None),
            (Level::None, 85, Level::High),
            (Level::None, 95, Level::Critical),
            (Level::High, 81, Level::High),
            (Level::High, 79, Level::None),
            (Level::Critical, 91, Level::Critical),
            (Level::Critical, 89, Level::High),
            (Level::Critical, 10, Level::None),
        ] {
            assert_eq!(after(from, used(percent)), to, "{from:?} at {percent} %");
        }
    }

    #[test]
    fn waiting_for_memory_counts_like_using_it() {
        let stalled = |stalled| Reading { stalled: Some(stalled), ..used(10) };
        assert_eq!(after(Level::None, stalled(1999)), Level::None);
        assert_eq!(after(Level::None, stalled(2000)), Level::High);
        assert_eq!(after(Level::None, stalled(6000)), Level::Critical);
        assert_eq!(after(Level::Critical, stalled(1400)), Level::None);
    }

    #[test]
    fn what_nobody_knows_sheds_nothing() {
        assert_eq!(after(Level::Critical, Reading { used: u64::MAX, ..Reading::default() }), Level::None);
        assert_eq!(after(Level::None, Reading { used: 1, limit: Some(0), stalled: None }), Level::None);
        assert_eq!(
            after(Level::None, Reading { used: u64::MAX, limit: Some(1), stalled: None }),
            Level::Critical
        );
    }

    #[test]
    fn what_is_sheddable_goes_first_and_what_is_critical_never() {
        let shed = |level: Level| {
            [Priority::Sheddable, Priority::Normal, Priority::Critical].map(|priority| level.sheds(priority))
        };
        assert_eq!(shed(Level::None), [false, false, false]);
        assert_eq!(shed(Level::High), [true, false, false]);
        assert_eq!(shed(Level::Critical), [true, true, false]);
    }

    #[test]
    fn marks_out_of_range_are_named() {
        let good = Limits::default();
        assert_eq!(good.check(), Ok(()));
        let error = Limits { high: 101, ..good }.check().unwrap_err().to_string();
        assert_eq!(error, "pressure: high is 101%; it is more than the slack and at most 100%, like 85%");
        let error = Limits { high: 97, ..good }.check().unwrap_err().to_string();
        assert_eq!(error, "pressure: high is 97%, above the critical mark of 95%; write less");
        assert!(Limits { stalled_high: 5, ..good }.check().is_err());
    }
}
