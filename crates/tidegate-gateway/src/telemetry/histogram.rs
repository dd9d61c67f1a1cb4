//! Durations in fixed buckets: two additions to record, quantiles by interpolation when somebody looks.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::state::Durations;

/// Upper bounds of the buckets, in microseconds: half a millisecond to a minute, and one more for the rest.
const BOUNDS_MICROS: [u64; 17] = [
    250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// One thread's copy of a histogram. Recording is wait-free; it allocates nothing.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    nanos: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    #[inline]
    pub fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| bound * 1000 < nanos);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
    }

    /// The sum of several copies, read without stopping their writers.
    pub fn sum<'a>(copies: impl Iterator<Item = &'a Self>) -> Durations {
        let mut counts = [0u64; BOUNDS_MICROS.len() + 1];
        let mut nanos = 0u64;
        for copy in copies {
            for (count, bucket) in counts.iter_mut().zip(&copy.buckets) {
                *count += bucket.load(Relaxed);
            }
            nanos = nanos.wrapping_add(copy.nanos.load(Relaxed));
        }
        let bounds = BOUNDS_MICROS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        Durations::from_buckets(bounds.zip(counts).collect(), nanos as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_on_a_bound_belongs_to_the_bucket_below_it() {
        let histogram = Histogram::default();
        for micros in [0, 250, 251, 60_000_000, 60_000_001] {
            histogram.record(Duration::from_micros(micros));
        }
        histogram.record(Duration::MAX);
        let durations = Histogram::sum([&histogram].into_iter());
        let counts: Vec<u64> = durations.buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!((counts[0], counts[1], counts[16], counts[17]), (2, 1, 1, 2));
        assert_eq!(durations.count, 6);
    }

    #[test]
    fn quantiles_are_interpolated_inside_a_bucket() {
        let histogram = Histogram::default();
        (0..100).for_each(|_| histogram.record(Duration::from_millis(2)));
        let durations = Histogram::sum([&histogram].into_iter());
        assert!((durations.sum_seconds - 0.2).abs() < 1e-9);
        assert!((durations.p50_seconds - 0.001_75).abs() < 1e-9, "{durations:?}");
        assert!(durations.p99_seconds > durations.p50_seconds && durations.p99_seconds <= 0.0025);
    }
}
