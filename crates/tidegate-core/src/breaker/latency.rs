//! How long an answer takes, as far as is known: the estimator of TCP's retransmission timer (RFC 6298).

use std::time::Duration;

use crate::nanos;

/// Nothing shorter is evidence of anything, however fast the dependency is known to be.
pub const SHORTEST_EVIDENCE: Duration = Duration::from_millis(10);

/// How long a call is given while no latency is known (RFC 6298 §2.1 gives a packet the same).
pub const UNKNOWN_LATENCY: Duration = Duration::from_secs(1);

/// A smoothed latency and its mean deviation, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Latency {
    /// Nothing was ever answered. Leaves on the first answer, for good.
    #[default]
    Unknown,
    /// What answers took.
    Known { smoothed: u64, deviation: u64 },
}

impl Latency {
    /// Learns that an answer took `elapsed`.
    pub(super) fn observe(&mut self, elapsed: Duration) {
        let sample = nanos(elapsed);
        *self = match *self {
            Self::Unknown => Self::Known { smoothed: sample, deviation: sample / 2 },
            Self::Known { smoothed, deviation } => Self::Known {
                deviation: blend(deviation, smoothed.abs_diff(sample), 4),
                smoothed: blend(smoothed, sample, 8),
            },
        };
    }

    /// What an answer takes at most, as far as is known: the smoothed latency and four deviations.
    pub(super) fn bound(&self) -> Option<Duration> {
        match *self {
            Self::Unknown => None,
            Self::Known { smoothed, deviation } => {
                let bound = Duration::from_nanos(smoothed.saturating_add(deviation.saturating_mul(4)));
                Some(bound.max(SHORTEST_EVIDENCE))
            }
        }
    }
}

/// Moves `old` one `parts`-th of the way to `new`.
const fn blend(old: u64, new: u64, parts: u64) -> u64 {
    if new >= old { old + (new - old) / parts } else { old - (old - new) / parts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_covers_jitter_and_follows_a_slower_dependency() {
        let mut latency = Latency::default();
        assert_eq!(latency.bound(), None);
        for step in 0..100 {
            latency.observe(Duration::from_millis(if step % 2 == 0 { 40 } else { 60 }));
        }
        let bound = latency.bound().unwrap();
        assert!(bound > Duration::from_millis(60) && bound < Duration::from_millis(150), "{bound:?}");
        for _ in 0..100 {
            latency.observe(Duration::from_secs(1));
        }
        assert!(latency.bound().unwrap() >= Duration::from_millis(990));
    }

    #[test]
    fn a_very_fast_dependency_does_not_make_every_abandoned_call_evidence() {
        let mut latency = Latency::default();
        latency.observe(Duration::from_micros(30));
        assert_eq!(latency.bound(), Some(SHORTEST_EVIDENCE));
    }

    #[test]
    fn absurd_samples_saturate() {
        let mut latency = Latency::default();
        latency.observe(Duration::MAX);
        latency.observe(Duration::ZERO);
        latency.observe(Duration::MAX);
        assert!(latency.bound().is_some());
    }
}
