//! How a limit with partitions is set up.

use std::{fmt, sync::Arc, time::Duration};

use tidegate_core::{
    gate::{MOST, Order},
    limit::Adaptive,
    share::Part,
};

use super::{Line, Partitions, Shared, State};
use crate::limiter::{
    self, InvalidLimiter,
    builder::{Parts, Settings},
    permit::Ages,
    stats::Stats,
    tuner::Tuner,
    waiters::Waiters,
    watch::Watch,
};
use crate::sync::Mutex;

/// The settings of a limit with partitions.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    settings: limiter::Builder,
    parts: Vec<(String, u32, u32)>,
}

/// Settings that were checked.
pub(super) struct Checked {
    pub(super) limit: Option<(u32, Option<Adaptive>)>,
    pub(super) queue: u32,
    pub(super) settings: Settings,
    pub(super) names: Vec<String>,
    pub(super) parts: Vec<Part>,
}

impl Builder {
    /// Begins with the settings of a limiter: its limit is that of all partitions together; its queue and its order are
    /// those of each.
    pub(super) const fn of(settings: limiter::Builder) -> Self {
        Self { settings, parts: Vec::new() }
    }

    /// Most calls in flight in all partitions. Must be given, unless the limit adapts.
    pub fn limit(mut self, limit: i64) -> Self {
        self.settings = self.settings.limit(limit);
        self
    }

    /// Most callers that wait in each partition; 0 for none. Default: 1000.
    pub fn queue(mut self, queue: u32) -> Self {
        self.settings = self.settings.queue(queue);
        self
    }

    /// Longest wait for a permit. Default: 500 ms.
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        self.settings = self.settings.max_wait(max_wait);
        self
    }

    /// Who goes first among those who wait in one partition. Default: [`Order::Fifo`].
    pub fn order(mut self, order: Order) -> Self {
        self.settings = self.settings.order(order);
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
        let Checked { limit, queue, settings, names, parts } = self.into_checked()?;
        let (limit, law) = limit.ok_or(InvalidLimiter::NoLimit)?;
        let tuner = Tuner::new(law);
        let watch = Watch::new(settings, &tuner);
        let stats = names.iter().map(|_| (Stats::new(settings.measure_hold), Ages::default())).collect();
        let lines =
            parts.into_iter().map(|part| Line { part, waiters: Waiters::new(settings.order), admitted: 0 });
        let state = Mutex::new(State { limit, queue, in_flight: 0, lines: lines.collect() });
        let shared = Shared { names, nested: settings.nested, watch, stats, tuner, state };
        Ok(Partitions { shared: Arc::new(shared) })
    }

    /// Checks the settings without making anything of them.
    ///
    /// # Errors
    /// [`InvalidPartitions`], as [`Partitions::reconfigure`] would say; [`build`](Self::build) needs a limit as well.
    pub fn check(&self) -> Result<(), InvalidPartitions> {
        self.settings.check()?;
        if self.parts.is_empty() {
            return Err(InvalidPartitions::None);
        }
        for (at, (name, weight, ceiling)) in self.parts.iter().enumerate() {
            if *weight == 0 || *ceiling == 0 {
                return Err(InvalidPartitions::Nothing(name.clone()));
            }
            if self.parts[..at].iter().any(|(other, ..)| other == name) {
                return Err(InvalidPartitions::Twice(name.clone()));
            }
        }
        Ok(())
    }

    pub(super) fn into_checked(self) -> Result<Checked, InvalidPartitions> {
        self.check()?;
        let Parts { limit, queue, settings } = self.settings.into_parts()?;
        let (names, parts) = self
            .parts
            .into_iter()
            .map(|(name, weight, ceiling)| (name, Part { weight, ceiling, in_flight: 0, queued: 0 }))
            .unzip();
        Ok(Checked { limit, queue, settings, names, parts })
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
    /// A running limit cannot take over partitions of other names, or in another order.
    Others,
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
            Self::Others => f.write_str(
                "a running limit cannot take over other partitions; build a new one, or keep their names",
            ),
        }
    }
}

impl std::error::Error for InvalidPartitions {}
