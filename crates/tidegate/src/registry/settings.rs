//! How a registry is kept.

use std::{fmt, num::NonZeroU32, path::PathBuf, time::Duration};

use tidegate_core::{Backoff, Lifetime, attempts};

use super::Preservation;
use crate::keeper;

/// How a registry is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long what was read counts as fresh where no watch lives; it is read again at 60 % to 80 % of it. Default: 60 s.
    pub ttl: Duration,
    /// The shortest time between the end of a failed attempt and the next one for the same service. Default: 5 s.
    pub minimum_retry_interval: Duration,
    /// The longest pause after a failure. Default: 125 s, so that pauses are 65 s on average in the long run.
    pub maximum_retry_interval: Duration,
    /// How much longer than `ttl` what is known may be served. Default: 24 h.
    pub max_stale: Duration,
    /// How services are preserved from their registry's trouble.
    pub preservation: Preservation,
    /// How often the source may be asked, over all services: lookups, re-reads and watches that begin. Default: 50
    /// within 10 s.
    pub attempts: attempts::Settings,
    /// The longest a call to the source may take. Default: 5 s.
    pub timeout: Duration,
    /// The most services that are known at once, unknown names included. Default: 10 000.
    pub services: usize,
    /// How long a service that nobody looks up is kept and watched. Default: 10 min.
    pub idle: Duration,
    /// Where what is known is kept over a restart. Default: nowhere.
    pub snapshot: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        const FIFTY: NonZeroU32 = NonZeroU32::new(50).expect("50 is not 0");
        Self {
            ttl: Duration::from_secs(60),
            minimum_retry_interval: Duration::from_secs(5),
            maximum_retry_interval: Duration::from_secs(125),
            max_stale: Duration::from_secs(24 * 60 * 60),
            preservation: Preservation::default(),
            attempts: attempts::Settings { attempts: FIFTY, ..attempts::Settings::default() },
            timeout: Duration::from_secs(5),
            services: 10_000,
            idle: Duration::from_secs(600),
            snapshot: None,
        }
    }
}

/// What is wrong with a registry's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidSettings {
    /// `ttl` is less than 1 s or more than a day.
    Ttl(Duration),
    /// `maximum_retry_interval` is not longer than `minimum_retry_interval`.
    Intervals(Duration, Duration),
    /// `share` is more than 100.
    Share(u32),
    /// `grace` or `window` is more than an hour, or `window` is 0.
    Preservation(&'static str, Duration),
    /// What the keeper says.
    Keeper(keeper::InvalidSettings),
}

impl fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ttl(value) => write!(f, "registry: ttl is {value:?}; it is between 1s and 24h, like 60s"),
            Self::Intervals(least, most) => write!(
                f,
                "registry: maximum_retry_interval is {most:?}; it is longer than minimum_retry_interval, {least:?}"
            ),
            Self::Share(value) => {
                write!(f, "registry: share is {value}; it is a percentage up to 100, like 15")
            }
            Self::Preservation(name, value) => {
                write!(f, "registry: {name} is {value:?}; it is between 1ms and 1h, like 30s")
            }
            Self::Keeper(invalid) => write!(f, "registry: {invalid}"),
        }
    }
}

impl std::error::Error for InvalidSettings {}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const MILLISECOND: Duration = Duration::from_millis(1);

impl Settings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`InvalidSettings`] with the first setting that is out of range.
    pub fn check(&self) -> Result<(), InvalidSettings> {
        let Preservation { grace, share, window, schemes: _ } = self.preservation;
        if self.ttl < Duration::from_secs(1) || self.ttl > DAY {
            return Err(InvalidSettings::Ttl(self.ttl));
        }
        if self.maximum_retry_interval <= self.minimum_retry_interval {
            return Err(InvalidSettings::Intervals(self.minimum_retry_interval, self.maximum_retry_interval));
        }
        if share > 100 {
            return Err(InvalidSettings::Share(share));
        }
        for (name, value) in [("grace", grace), ("window", window)] {
            if value < MILLISECOND || value > HOUR {
                return Err(InvalidSettings::Preservation(name, value));
            }
        }
        self.keeper().check().map_err(InvalidSettings::Keeper)
    }

    pub(super) fn lifetime(&self) -> Lifetime {
        Lifetime::of(self.ttl, self.max_stale)
    }

    /// The pause after a failure: never shorter than the least interval, half of the longest on average.
    pub(super) fn backoff(&self) -> Backoff {
        let cap = self.maximum_retry_interval.saturating_sub(self.minimum_retry_interval);
        let base = self.minimum_retry_interval.clamp(MILLISECOND, cap.max(MILLISECOND));
        Backoff { floor: self.minimum_retry_interval, base, cap: cap.max(base) }
    }

    /// The pause between probes of a source that is down: one to three times the least interval.
    fn probes(&self) -> Backoff {
        let Backoff { floor, base, cap } = self.backoff();
        Backoff { floor, base, cap: cap.min(self.minimum_retry_interval.saturating_mul(2)).max(base) }
    }

    pub(super) fn keeper(&self) -> keeper::Settings {
        keeper::Settings {
            lifetime: self.lifetime(),
            nothing: self.minimum_retry_interval,
            timeout: self.timeout,
            backoff: self.backoff(),
            probes: self.probes(),
            attempts: self.attempts,
            recovery: self.minimum_retry_interval,
            keys: self.services,
            idle: self.idle,
            ..keeper::Settings::default()
        }
    }
}
