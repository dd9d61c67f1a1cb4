//! Samples of calls gathered into windows, so that a law answers to load and not to single calls.

use std::time::Duration;

use crate::{Instant, Outcome, nanos};

/// How one call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// How it ended.
    pub outcome: Outcome,
    /// How long it lasted from its admission.
    pub lasted: Duration,
    /// Calls in flight when it ended, itself included.
    pub in_flight: u32,
}

/// What a window of calls saw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Window {
    /// Calls that were served.
    pub served: u32,
    /// Calls that told of overload: by their outcome, or abandoned after longer than a call takes.
    pub overloaded: u32,
    /// Mean time of the calls that were served; zero when there were none.
    pub latency: Duration,
    /// Most calls in flight.
    pub in_flight: u32,
}

impl Window {
    /// The share of calls that told of overload, 0 to 1.
    pub fn overload(&self) -> f64 {
        let all = self.served + self.overloaded;
        if all == 0 { 0.0 } else { f64::from(self.overloaded) / f64::from(all) }
    }
}

/// Gathers samples into windows of at least 100 ms and 16 samples (fewer where few calls are in flight), or of a second
/// with any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Windows {
    began: Option<Instant>,
    served: u32,
    overloaded: u32,
    served_nanos: u64,
    in_flight: u32,
    /// Time of a usual call, from the windows before.
    usual: Option<Duration>,
}

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);
const ENOUGH: u32 = 16;
const FEW: u32 = 4;
/// A call abandoned after this many times the usual latency hung; before, its caller was impatient.
const HUNG: u32 = 3;
/// What a call usually takes, as long as nothing is known: an upstream that hangs from the start is noticed too.
const UNKNOWN_USUAL: Duration = Duration::from_millis(300);

impl Windows {
    /// Gathers one sample; the window that it completes, if it does.
    pub fn record(&mut self, sample: &Sample, now: Instant) -> Option<Window> {
        match sample.outcome {
            Outcome::Success => {
                self.served += 1;
                self.served_nanos = self.served_nanos.saturating_add(nanos(sample.lasted));
            }
            Outcome::Overload { .. } => self.overloaded += 1,
            Outcome::Abandoned if sample.lasted > self.usual.unwrap_or(UNKNOWN_USUAL) * HUNG => {
                self.overloaded += 1;
            }
            Outcome::Abandoned | Outcome::Ignore | Outcome::Unsent => return None,
        }
        self.in_flight = self.in_flight.max(sample.in_flight);
        let age = now.since(*self.began.get_or_insert(now));
        let samples = self.served + self.overloaded;
        (age >= LONGEST || age >= SHORTEST && samples >= self.enough()).then(|| self.complete())
    }

    /// Few calls at a time are many windows away from many calls: then fewer samples will do.
    fn enough(&self) -> u32 {
        self.in_flight.saturating_mul(2).clamp(FEW, ENOUGH)
    }

    fn complete(&mut self) -> Window {
        let latency = self
            .served_nanos
            .checked_div(u64::from(self.served))
            .map_or(Duration::ZERO, Duration::from_nanos);
        let window =
            Window { served: self.served, overloaded: self.overloaded, latency, in_flight: self.in_flight };
        let usual = if self.served > 0 { Some(latency) } else { self.usual };
        *self = Self { usual, ..Self::default() };
        window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::EPOCH + Duration::from_millis(millis)
    }

    fn sample(outcome: Outcome, millis: u64) -> Sample {
        Sample { outcome, lasted: Duration::from_millis(millis), in_flight: 3 }
    }

    #[test]
    fn a_window_needs_time_and_samples() {
        let mut windows = Windows::default();
        for n in 0..5 {
            assert_eq!(windows.record(&sample(Outcome::Success, n), at(n * 100)), None, "too few");
        }
        let overload = Outcome::Overload { retry_after: None };
        let window = windows.record(&sample(overload, 9), at(600)).unwrap();
        assert_eq!((window.served, window.overloaded, window.in_flight), (5, 1, 3));
        assert_eq!((window.latency, window.overload()), (Duration::from_millis(2), 1.0 / 6.0));
        for _ in 0..50 {
            assert_eq!(windows.record(&sample(Outcome::Success, 1), at(700)), None, "too short");
        }
        assert!(windows.record(&sample(Outcome::Success, 1), at(800)).is_some());
        assert_eq!(windows.record(&sample(Outcome::Success, 1), at(900)), None);
        assert!(windows.record(&sample(Outcome::Success, 1), at(1900)).is_some(), "a second is enough");
    }

    #[test]
    fn a_hung_call_is_evidence_and_an_impatient_caller_is_not() {
        let mut windows = Windows::default();
        windows.record(&sample(Outcome::Success, 10), at(0));
        windows.record(&sample(Outcome::Success, 10), at(1000)).unwrap();
        assert_eq!(windows.record(&sample(Outcome::Abandoned, 30), at(2000)), None);
        assert_eq!(windows.record(&sample(Outcome::Ignore, 900), at(4000)), None);
        windows.record(&sample(Outcome::Abandoned, 31), at(5000));
        let window = windows.record(&sample(Outcome::Abandoned, 31), at(6000)).unwrap();
        assert_eq!((window.served, window.overloaded, window.latency), (0, 2, Duration::ZERO));
        windows.record(&sample(Outcome::Abandoned, 31), at(7000));
        assert!(
            windows.record(&sample(Outcome::Abandoned, 31), at(8000)).is_some(),
            "what is usual is remembered"
        );
    }

    #[test]
    fn an_upstream_that_hangs_from_the_start_is_noticed() {
        let mut windows = Windows::default();
        windows.record(&sample(Outcome::Abandoned, 1000), at(0));
        assert_eq!(windows.record(&sample(Outcome::Abandoned, 1000), at(1000)).unwrap().overloaded, 2);
    }
}
