//! Durations on a logarithmic scale: a fixed number of counters, written with two atomic additions.

use std::time::Duration;

use tidegate_core::nanos;

use crate::sync::{AtomicU64, Ordering};

/// Buckets of a histogram. Bucket `i` holds what is at most 2^i µs; the last one also what is longer (134 s).
pub const BUCKETS: usize = 28;

pub(crate) struct Recorder {
    buckets: [AtomicU64; BUCKETS],
    sum_nanos: AtomicU64,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum_nanos: AtomicU64::new(0) }
    }

    pub(crate) fn record(&self, duration: Duration) {
        let micros_up = nanos(duration).div_ceil(1000);
        let bucket = match micros_up {
            0 | 1 => 0,
            more => (u64::BITS - (more - 1).leading_zeros()) as usize,
        };
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.sum_nanos.fetch_add(nanos(duration), Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Histogram {
        Histogram {
            counts: std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed)),
            sum: Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed)),
        }
    }
}

/// A reading of durations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum: Duration,
}

impl Histogram {
    /// Each bucket's upper bound and how many it holds (not cumulated), from short to long.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.counts.iter().enumerate().map(|(at, count)| (Duration::from_micros(1 << at), *count))
    }

    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds the durations of another.
    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }

    /// All durations together.
    pub const fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn each_duration_falls_in_the_first_bucket_that_holds_it() {
        for (nanos, micros) in [
            (0, 1),
            (1, 1),
            (1000, 1),
            (1001, 2),
            (2000, 2),
            (2001, 4),
            (1_000_000, 1024),
            (u64::MAX, 1 << 27),
        ] {
            let recorder = Recorder::new();
            recorder.record(Duration::from_nanos(nanos));
            let read = recorder.read();
            let bucket = read.buckets().find(|(_, count)| *count == 1);
            assert_eq!(bucket, Some((Duration::from_micros(micros), 1)), "{nanos} ns");
            assert_eq!((read.count(), read.sum()), (1, Duration::from_nanos(nanos)));
        }
    }
}
