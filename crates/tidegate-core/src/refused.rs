//! Why a call may not go, and when to come back: one small answer for every gate.

use std::{fmt, time::Duration};

/// Which rule refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum By {
    /// A quota of calls per time is used up.
    Quota,
    /// No permit is free, and the caller did not wish to wait.
    InFlight,
    /// The queue for permits is full.
    QueueFull,
    /// The expected or actual wait for a permit was longer than the caller could wait.
    WaitTooLong,
    /// The breaker is open.
    Breaker,
    /// The call's deadline has passed.
    Deadline,
    /// The allowance of retries is used up.
    RetryBudget,
    /// Too many failed attempts: cooling down.
    Cooldown,
    /// The process is short of memory.
    Pressure,
    /// A call already inside this gate asked for a second permit of it, which could wait for itself.
    Nested,
    /// The gate was closed.
    Closed,
    /// The store that a fleet shares does not answer, and no credit is left in hand.
    Store,
}

impl By {
    /// The name used in problem documents, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quota => "quota",
            Self::InFlight => "in-flight",
            Self::QueueFull => "queue-full",
            Self::WaitTooLong => "wait-too-long",
            Self::Breaker => "breaker",
            Self::Deadline => "deadline",
            Self::RetryBudget => "retry-budget",
            Self::Cooldown => "cooldown",
            Self::Pressure => "pressure",
            Self::Nested => "nested",
            Self::Closed => "closed",
            Self::Store => "store",
        }
    }
}

/// A refusal: the call was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which rule refused.
    pub by: By,
    /// How long to wait before the same call could be admitted, where that is known.
    pub retry_after: Option<Duration>,
}

impl Refused {
    /// Makes a refusal that cannot say when to return.
    pub const fn new(by: By) -> Self {
        Self { by, retry_after: None }
    }

    /// Makes a refusal that says when to return.
    pub const fn after(by: By, retry_after: Duration) -> Self {
        Self { by, retry_after: Some(retry_after) }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused by {}, not sent", self.by.as_str())?;
        match self.retry_after {
            Some(after) => write!(f, "; retry after {after:?}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_that_nothing_was_sent_and_when_to_return() {
        let refused = Refused::after(By::Quota, Duration::from_millis(250));
        assert_eq!(refused.to_string(), "refused by quota, not sent; retry after 250ms");
        assert!(size_of::<Refused>() <= 24);
    }
}
