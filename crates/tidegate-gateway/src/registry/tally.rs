//! What became of looking a service up for a call: counted for each upstream, a copy a worker.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::{state::Durations, telemetry::Sharded};

/// What a lookup came to, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Lookup {
    /// A watch that is caught up tells every change.
    Live,
    /// Read not longer ago than the ttl.
    Fresh,
    /// Read longer ago.
    Stale,
    /// Read from disk.
    Snapshot,
    /// The registry says that there is none.
    NotFound,
    /// The registry cannot be asked.
    Unavailable,
    /// The registry was asked as often as it may be.
    Throttled,
    /// Every endpoint takes no calls.
    Closed,
    /// The call's deadline passed before the registry answered.
    Deadline,
}

impl Lookup {
    pub(crate) const ALL: [Self; 9] = [
        Self::Live,
        Self::Fresh,
        Self::Stale,
        Self::Snapshot,
        Self::NotFound,
        Self::Unavailable,
        Self::Throttled,
        Self::Closed,
        Self::Deadline,
    ];

    /// The name used in metrics and state.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Snapshot => "snapshot",
            Self::NotFound => "not-found",
            Self::Unavailable => "unavailable",
            Self::Throttled => "throttled",
            Self::Closed => "closed",
            Self::Deadline => "deadline",
        }
    }
}

/// Upper bounds of the buckets of ages, in seconds; one more for the rest.
const AGES: [u64; 8] = [1, 10, 60, 300, 1800, 3600, 21_600, 86_400];

/// One worker's copy.
#[derive(Debug, Default)]
struct Copy {
    found: [AtomicU64; Lookup::ALL.len()],
    ages: [AtomicU64; AGES.len() + 1],
    age_millis: AtomicU64,
}

/// What lookups came to, and how old the answers were that were not the registry's word of now.
#[derive(Debug)]
pub(crate) struct Tally(Sharded<Copy>);

impl Default for Tally {
    fn default() -> Self {
        Self(Sharded::new(std::thread::available_parallelism().map_or(1, usize::from)))
    }
}

impl Tally {
    /// Counts a lookup.
    #[inline]
    pub(crate) fn count(&self, found: Lookup) {
        self.0.here().found[found as usize].fetch_add(1, Relaxed);
    }

    /// Notes how old an answer was.
    pub(crate) fn aged(&self, age: Duration) {
        let copy = self.0.here();
        let bucket = AGES.partition_point(|bound| Duration::from_secs(*bound) < age);
        copy.ages[bucket].fetch_add(1, Relaxed);
        copy.age_millis.fetch_add(u64::try_from(age.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Lookups by what they came to.
    pub(crate) fn lookups(&self) -> BTreeMap<&'static str, u64> {
        let sum = |found: Lookup| self.0.all().map(|copy| copy.found[found as usize].load(Relaxed)).sum();
        Lookup::ALL.into_iter().map(|found| (found.as_str(), sum(found))).collect()
    }

    /// The ages.
    pub(crate) fn ages(&self) -> Durations {
        let sum = |at: usize| self.0.all().map(|copy| copy.ages[at].load(Relaxed)).sum();
        let bounds = AGES.iter().map(|seconds| *seconds as f64).chain([f64::INFINITY]);
        let millis: u64 = self.0.all().map(|copy| copy.age_millis.load(Relaxed)).sum();
        Durations::from_buckets(
            bounds.enumerate().map(|(at, bound)| (bound, sum(at))).collect(),
            millis as f64 / 1e3,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_and_ages_are_counted_apart() {
        let tally = Tally::default();
        tally.count(Lookup::Live);
        tally.count(Lookup::Stale);
        tally.count(Lookup::Stale);
        for seconds in [0, 1, 90, 1_000_000] {
            tally.aged(Duration::from_secs(seconds));
        }
        let lookups = tally.lookups();
        assert_eq!((lookups["live"], lookups["stale"], lookups["not-found"]), (1, 2, 0));
        let ages = tally.ages();
        let counts: Vec<u64> = ages.buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 0, 0, 1, 0, 0, 0, 0, 1]);
        assert_eq!((ages.count, ages.sum_seconds), (4, 1_000_091.0));
    }
}
