//! When a breaker opens and how it closes.

use std::{fmt, num::NonZeroU32, time::Duration};

/// The shortest `within` and `open_for`.
pub const SHORTEST_PERIOD: Duration = Duration::from_millis(1);

/// The longest `within` and `open_for`.
pub const LONGEST_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);

/// When a breaker opens and how it closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Failures within `within` that open it. Default: 5.
    pub failures: NonZeroU32,
    /// The sliding window in which failures count; they are forgotten up to a sixteenth of it later. Default: 10 s.
    pub within: Duration,
    /// How long it refuses before it tries probes. Default: 5 s.
    pub open_for: Duration,
    /// Calls let through while half-open; all of them must pass to close it. Default: 1.
    pub probes: NonZeroU32,
}

impl Default for Settings {
    fn default() -> Self {
        const FIVE: NonZeroU32 = NonZeroU32::new(5).expect("5 is not 0");
        Self {
            failures: FIVE,
            within: Duration::from_secs(10),
            open_for: Duration::from_secs(5),
            probes: NonZeroU32::MIN,
        }
    }
}

impl Settings {
    /// Checks the periods.
    ///
    /// # Errors
    /// [`InvalidSettings`] when a period is not between [`SHORTEST_PERIOD`] and [`LONGEST_PERIOD`].
    pub fn check(&self) -> Result<(), InvalidSettings> {
        let valid = SHORTEST_PERIOD..=LONGEST_PERIOD;
        if !valid.contains(&self.within) {
            return Err(InvalidSettings::Within(self.within));
        }
        if !valid.contains(&self.open_for) {
            return Err(InvalidSettings::OpenFor(self.open_for));
        }
        Ok(())
    }
}

/// What is wrong with a breaker's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidSettings {
    /// `within` is out of range.
    Within(Duration),
    /// `open_for` is out of range.
    OpenFor(Duration),
}

impl fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, value) = match self {
            Self::Within(value) => ("within", value),
            Self::OpenFor(value) => ("open_for", value),
        };
        write!(f, "breaker: {name} is {value:?}; it is between 1ms and 24h, like 10s")
    }
}

impl std::error::Error for InvalidSettings {}
