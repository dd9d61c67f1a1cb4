//! How a keeper keeps.

use std::{fmt, time::Duration};

use tidegate_core::{Backoff, InvalidBackoff, Lifetime, attempts};

/// The most keys a keeper may be asked to hold.
const MOST_KEYS: usize = 10_000_000;

/// How a keeper keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a value is worth something, unless its fetch says otherwise. Default: 60 s, due between 36 s and 48 s,
    /// stale for 24 h more.
    pub lifetime: Lifetime,
    /// How long it is remembered that there is nothing. Default: 5 s.
    pub nothing: Duration,
    /// The longest a fetch may take, 1 ms to 1 h. Default: 5 s.
    pub timeout: Duration,
    /// The pause after a failure of a key, from the end of the attempt. Default: 200 ms, doubling to 60 s.
    pub backoff: Backoff,
    /// The pause between probes of a source that is down. Each probe is on behalf of a key whose own pause is over, so
    /// that few keys probe less often than many. Default: 200 ms, doubling to 10 s.
    pub probes: Backoff,
    /// Fetches that may begin, over all keys. Default: 50 within 10 s.
    pub attempts: attempts::Settings,
    /// How long the keys that failed while a source was down take to try again after it came back. Default: 5 s.
    pub recovery: Duration,
    /// The most keys, 1 to 10 000 000. Default: 10 000.
    pub keys: usize,
    /// How long a key that nobody asks for is kept. Default: 10 min.
    pub idle: Duration,
    /// The most callers that wait at once. Default: 100 000.
    pub waiters: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lifetime: Lifetime::of(Duration::from_secs(60), Duration::from_secs(24 * 60 * 60)),
            nothing: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            backoff: Backoff::default(),
            probes: Backoff { cap: Duration::from_secs(10), ..Backoff::default() },
            attempts: attempts::Settings::default(),
            recovery: Duration::from_secs(5),
            keys: 10_000,
            idle: Duration::from_secs(600),
            waiters: 100_000,
        }
    }
}

impl Settings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`InvalidSettings`] with the first setting that is out of range.
    pub fn check(&self) -> Result<(), InvalidSettings> {
        self.backoff.check()?;
        self.probes.check()?;
        self.attempts.check()?;
        if self.timeout < Duration::from_millis(1) || self.timeout > Duration::from_secs(3600) {
            return Err(InvalidSettings::Timeout(self.timeout));
        }
        if self.keys == 0 || self.keys > MOST_KEYS {
            return Err(InvalidSettings::Keys(self.keys));
        }
        if self.waiters == 0 {
            return Err(InvalidSettings::Waiters);
        }
        Ok(())
    }
}

/// What is wrong with a keeper's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidSettings {
    /// `timeout` is out of range.
    Timeout(Duration),
    /// `keys` is out of range.
    Keys(usize),
    /// `waiters` is 0.
    Waiters,
    /// `backoff` or `probes` is invalid.
    Backoff(InvalidBackoff),
    /// `attempts` is invalid.
    Attempts(attempts::InvalidSettings),
}

impl From<InvalidBackoff> for InvalidSettings {
    fn from(invalid: InvalidBackoff) -> Self {
        Self::Backoff(invalid)
    }
}

impl From<attempts::InvalidSettings> for InvalidSettings {
    fn from(invalid: attempts::InvalidSettings) -> Self {
        Self::Attempts(invalid)
    }
}

impl fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout(value) => {
                write!(f, "keeper: timeout is {value:?}; it is between 1ms and 1h, like 5s")
            }
            Self::Keys(value) => {
                write!(f, "keeper: keys is {value}; it is between 1 and {MOST_KEYS}, like 10000")
            }
            Self::Waiters => {
                f.write_str("keeper: waiters is 0; nobody could wait; it is at least 1, like 100000")
            }
            Self::Backoff(invalid) => invalid.fmt(f),
            Self::Attempts(invalid) => invalid.fmt(f),
        }
    }
}

impl std::error::Error for InvalidSettings {}
