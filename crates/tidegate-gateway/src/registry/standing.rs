//! How a service stands for those who call it, and what they are told when there is no endpoint.

use std::time::Duration;

use tidegate_core::Instant;

use super::tally::Lookup;

/// Why a call finds no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEndpoint {
    /// What the registry says, or does not say.
    pub why: Why,
    /// When to come back, where that is known.
    pub retry_after: Option<Duration>,
}

/// What the registry says of a service without endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is no such service, or it has no instance.
    NotFound,
    /// The registry could not be asked.
    Unavailable,
    /// The registry was asked as often as it may be.
    Throttled,
    /// Its instances take no calls: their weight is 0, or their addresses cannot be called.
    Closed,
}

/// How a service stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing is known and the registry is being asked; goes to either of the others within the registry's timeout.
    Pending,
    /// There are endpoints.
    Serving,
    /// There are none.
    Absent {
        why: Why,
        /// When the registry is asked again.
        until: Option<Instant>,
    },
}

impl Why {
    /// What is said of it where nobody said more.
    pub(super) const fn told(self) -> &'static str {
        match self {
            Self::NotFound => "the registry knows no instance of it",
            Self::Unavailable => "the registry could not be asked",
            Self::Throttled => "the registry was asked as often as it may be",
            Self::Closed => "its instances take no calls",
        }
    }

    pub(super) const fn found(self) -> Lookup {
        match self {
            Self::NotFound => Lookup::NotFound,
            Self::Unavailable => Lookup::Unavailable,
            Self::Throttled => Lookup::Throttled,
            Self::Closed => Lookup::Closed,
        }
    }
}

impl Standing {
    pub(super) const fn why(self) -> Option<Why> {
        match self {
            Self::Pending | Self::Serving => None,
            Self::Absent { why, .. } => Some(why),
        }
    }

    /// How it is logged.
    pub(super) const fn name(self, found: Lookup) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Serving => found.as_str(),
            Self::Absent { why, .. } => why.found().as_str(),
        }
    }
}
