//! How sessions are kept.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use tidegate_core::{
    Backoff, InvalidBackoff,
    attempts::{self, Attempts},
    token::{InvalidSchedule, InvalidTries, Limits, Schedule},
};

use super::Seal;
use crate::keeper;

/// How sessions are kept.
#[derive(Clone)]
pub struct Settings {
    /// What the endpoint is called among processes that share it: its issuer. Default: `token`.
    pub endpoint: Arc<str>,
    /// When tokens are refreshed. Default: at 20 % of their life before their end.
    pub schedule: Schedule,
    /// Grants of a session that may fail. Default: 5 in 5 min, then 10 min of rest; 30 s when all were the endpoint's fault.
    pub tries: Limits,
    /// Grants of all sessions together that this process sends within a while, whatever becomes of them; who comes afterwards
    /// is told when to come back. Default: as many as are due; of [`ServiceTokens`](super::ServiceTokens) 50 in 10 s.
    pub budget: Option<attempts::Settings>,
    /// How long the endpoint takes a refresh token again that was used already; `None`: not at all, [`ALWAYS`](Self::ALWAYS):
    /// as often as it is presented. Default: none.
    pub reuse_grace: Option<Duration>,
    /// The scope that refreshes ask for. Default: none, which leaves it as it is.
    pub scope: Option<Box<str>>,
    /// Grants at once; others wait in line. Default: 10.
    pub grants: usize,
    /// How long callers wait for one grant. What comes later is taken all the same. Default: 30 s.
    pub limit: Duration,
    /// How long a grant may take at all; its outcome is unknown afterwards. With a `reuse_grace` at most a third of that.
    /// Default: 2 min.
    pub give_up: Duration,
    /// How long the endpoint is left alone after three failures in a row. Default: 30 s.
    pub open_for: Duration,
    /// The life of a session's lease, renewed at a third of it. Default: 10 s.
    pub lease: Duration,
    /// How old what is known of a session may be before its store is asked whether it is still so. Default: 30 s.
    pub recheck: Duration,
    /// How long it is remembered that a session is over. Default: 30 s.
    pub reuse_window: Duration,
    /// The shortest time between two access tokens of a session that are dropped because an upstream calls them worthless,
    /// over all processes. Default: 30 s.
    pub rejected_apart: Duration,
    /// How long a session that nobody uses is kept. Default: 8 h.
    pub idle: Duration,
    /// The pause after a failure of a session. Default: 250 ms, doubling to 15 s.
    pub backoff: Backoff,
    /// The most sessions that are held in memory, 1 to 10 000 000; others are read when they are used. Default: 100 000.
    pub sessions: usize,
    /// The most callers that wait at once. Default: 100 000.
    pub waiters: usize,
    /// What seals records before they are stored. Default: nothing.
    pub seal: Option<Arc<dyn Seal>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoint: "token".into(),
            schedule: Schedule::default(),
            tries: Limits::default(),
            budget: None,
            reuse_grace: None,
            scope: None,
            grants: 10,
            limit: Duration::from_secs(30),
            give_up: Duration::from_secs(120),
            open_for: Duration::from_secs(30),
            lease: Duration::from_secs(10),
            recheck: Duration::from_secs(30),
            reuse_window: Duration::from_secs(30),
            rejected_apart: Duration::from_secs(30),
            idle: Duration::from_secs(8 * 60 * 60),
            backoff: Backoff {
                floor: Duration::from_millis(100),
                base: Duration::from_millis(250),
                cap: Duration::from_secs(15),
            },
            sessions: 100_000,
            waiters: 100_000,
            seal: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sealed = self.seal.is_some();
        f.debug_struct("Settings")
            .field("endpoint", &self.endpoint)
            .field("sealed", &sealed)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// The [`reuse_grace`](Self::reuse_grace) of an endpoint that does not rotate: nothing is used up by presenting it.
    pub const ALWAYS: Duration = Duration::MAX;

    /// Whether a grant of which nobody knows what became may be repeated within a while, and must be: later it may not.
    pub(super) fn repeats_in_time(&self) -> bool {
        self.reuse_grace.is_some_and(|grace| grace != Self::ALWAYS)
    }

    /// Whether a grant uses nothing up.
    pub(super) fn repeats_always(&self) -> bool {
        self.reuse_grace == Some(Self::ALWAYS)
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`InvalidSettings`], the first one.
    pub fn check(&self) -> Result<(), InvalidSettings> {
        self.schedule.check().map_err(InvalidSettings::Schedule)?;
        self.tries.check().map_err(InvalidSettings::Tries)?;
        self.backoff.check().map_err(InvalidSettings::Backoff)?;
        if let Some(budget) = self.budget {
            Attempts::new(budget).map_err(InvalidSettings::Budget)?;
        }
        let (shortest, day) = (Duration::from_millis(10), Duration::from_secs(24 * 60 * 60));
        for (name, time, longest) in [
            ("limit", self.limit, day),
            ("give_up", self.give_up, day),
            ("open_for", self.open_for, day),
            ("lease", self.lease, day),
            ("recheck", self.recheck, day),
            ("reuse_window", self.reuse_window, day),
            ("rejected_apart", self.rejected_apart, day),
            ("idle", self.idle, day * 366),
        ] {
            if time < shortest || time > longest {
                return Err(InvalidSettings::Time(name, time, longest));
            }
        }
        for (name, count) in [("grants", self.grants), ("sessions", self.sessions), ("waiters", self.waiters)]
        {
            if count == 0 || count > 10_000_000 {
                return Err(InvalidSettings::Count(name, count));
            }
        }
        Ok(())
    }

    /// What the keeper of the tokens is told: in its ranges, as these are in theirs.
    pub(super) fn keeper(&self) -> keeper::Settings {
        keeper::Settings {
            // A refresh ends by its own bounds.
            timeout: Duration::from_secs(3600),
            backoff: self.backoff,
            attempts: attempts::Settings { attempts: NonZeroU32::MAX, ..attempts::Settings::default() },
            keys: self.sessions,
            idle: self.idle,
            waiters: self.waiters,
            ..keeper::Settings::default()
        }
    }

    /// How long a grant may be out.
    pub(super) fn patience(&self) -> Duration {
        // Of a grant that is given up within the grace, another one can still be asked for.
        self.reuse_grace.map_or(self.give_up, |grace| self.give_up.min(grace / 3))
    }
}

/// What is wrong with [`Settings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidSettings {
    /// A time is out of range.
    Time(&'static str, Duration, Duration),
    /// A number is out of range.
    Count(&'static str, usize),
    /// The schedule.
    Schedule(InvalidSchedule),
    /// The tries of a session.
    Tries(InvalidTries),
    /// The backoff.
    Backoff(InvalidBackoff),
    /// The budget.
    Budget(attempts::InvalidSettings),
}

impl fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(name, time, longest) => {
                write!(f, "token: {name} is {time:?}; it is between 10ms and {longest:?}, like 30s")
            }
            Self::Count(name, count) => {
                write!(f, "token: {name} is {count}; it is between 1 and 10000000, like 10")
            }
            Self::Schedule(invalid) => invalid.fmt(f),
            Self::Tries(invalid) => invalid.fmt(f),
            Self::Backoff(invalid) => invalid.fmt(f),
            Self::Budget(invalid) => write!(f, "token: of the budget, {invalid}"),
        }
    }
}

impl std::error::Error for InvalidSettings {}
