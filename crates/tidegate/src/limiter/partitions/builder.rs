//! How a limit with partitions is set up.

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tidegate_core::{gate::MOST, limit::Fixed, share::Part};

use super::{Partitions, Shared, State};
use crate::limiter::{InvalidLimiter, waiters::Waiters};

/// The settings of a limit with partitions.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    pub(super) limit: Option<i64>,
    pub(super) queue: u32,
    pub(super) max_wait: Duration,
    pub(super) parts: Vec<(String, u32, u32)>,
}

impl Builder {
    /// Most calls in flight in all partitions. Must be given.
    pub fn limit(mut self, limit: i64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Most callers that wait in each partition; 0 for none. Default: 1000.
    pub fn queue(mut self, queue: u32) -> Self {
        self.queue = queue;
        self
    }

    /// Longest wait for a permit. Default: 500 ms.
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = max_wait;
        self
    }

    /// Adds a partition with its weight, which may borrow all that is idle.
    pub fn partition(self, name: impl Into<String>, weight: u32) -> Self {
        self.partition_up_to(name, weight, MOST)
    }

    /// Adds a partition with its weight, which never has more than `ceiling` calls in flight: for long streams, which
    /// would not give back what they borrow.
    pub fn partition_up_to(mut self, name: impl Into<String>, weight: u32, ceiling: u32) -> Self {
        self.parts.push((name.into(), weight, ceiling));
        self
    }

    /// Makes the partitions.
    ///
    /// # Errors
    /// [`InvalidPartitions`], with the partition and the remedy.
    pub fn build(self) -> Result<Partitions, InvalidPartitions> {
        let limit = self.limit.ok_or(InvalidLimiter::NoLimit)?;
        let limit = Fixed::new(limit).map_err(InvalidLimiter::Limit)?.count();
        if self.parts.is_empty() {
            return Err(InvalidPartitions::None);
        }
        let mut names: Vec<String> = Vec::new();
        let mut parts = Vec::new();
        for (name, weight, ceiling) in self.parts {
            if weight == 0 || ceiling == 0 {
                return Err(InvalidPartitions::Nothing(name));
            }
            if names.contains(&name) {
                return Err(InvalidPartitions::Twice(name));
            }
            names.push(name);
            parts.push((Part { weight, ceiling, in_flight: 0, queued: 0 }, Waiters::default()));
        }
        let state = Mutex::new(State { limit, in_flight: 0, parts });
        let shared = Shared { names, queue: self.queue, max_wait: self.max_wait, state };
        Ok(Partitions { shared: Arc::new(shared) })
    }
}

/// What is wrong with the settings of partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidPartitions {
    /// The limit is none.
    Limit(InvalidLimiter),
    /// There are no partitions.
    None,
    /// A partition with a weight or ceiling of 0 would get nothing.
    Nothing(String),
    /// Two partitions have this name.
    Twice(String),
}

impl From<InvalidLimiter> for InvalidPartitions {
    fn from(invalid: InvalidLimiter) -> Self {
        Self::Limit(invalid)
    }
}

impl fmt::Display for InvalidPartitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(invalid) => invalid.fmt(f),
            Self::None => f.write_str("no partition was given; add one, or use a limiter without partitions"),
            Self::Nothing(name) => {
                write!(
                    f,
                    "partition {name:?} would get nothing; give it a weight and a ceiling of at least 1"
                )
            }
            Self::Twice(name) => write!(f, "two partitions are called {name:?}; rename one"),
        }
    }
}

impl std::error::Error for InvalidPartitions {}
