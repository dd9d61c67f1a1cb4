//! The guards' own readings, put into a state.

use tidegate::{breaker, limiter};
use tidegate_core::{Instant, breaker::Phase};

use super::{BreakerPhase, BreakerState, ConnectionsState, Durations, InFlightState};
use crate::upstream::ConnectionStats;

impl InFlightState {
    /// A limiter's reading, and what moves its limit.
    pub(crate) fn of(now: &limiter::Snapshot, law: &'static str) -> Self {
        Self {
            limit: now.limit.map(u64::from),
            law,
            in_flight: now.in_flight.into(),
            queued: now.queued.into(),
            queue: now.queue.into(),
            admitted: now.admitted,
            refused: now.refused.iter().map(|(by, count)| (by.as_str().to_owned(), *count)).collect(),
            cancelled: now.cancelled_in_queue,
            wait: Durations::from(&now.wait),
            hold: now.hold.as_ref().map(Durations::from).unwrap_or_default(),
            held_long: now.held_long.unwrap_or(0).into(),
        }
    }
}

/// Shorter durations than 2^6 µs share a bucket: nobody looks at them one by one.
const FIRST_BOUND_MICROS: u128 = 64;

impl From<&limiter::Histogram> for Durations {
    fn from(histogram: &limiter::Histogram) -> Self {
        let mut buckets: Vec<(f64, u64)> = Vec::new();
        let mut short = 0;
        for (bound, count) in histogram.buckets() {
            if bound.as_micros() < FIRST_BOUND_MICROS {
                short += count;
            } else {
                buckets.push((bound.as_secs_f64(), count + std::mem::take(&mut short)));
            }
        }
        // The last one also holds what is longer.
        if let Some((bound, _)) = buckets.last_mut() {
            *bound = f64::INFINITY;
        }
        Self::from_buckets(buckets, histogram.sum().as_secs_f64())
    }
}

impl BreakerState {
    /// A reading at `now`.
    pub fn of(reading: &breaker::Snapshot, now: Instant) -> Self {
        let (state, retry_in_seconds) = match reading.phase {
            Phase::Closed => (BreakerPhase::Closed, None),
            Phase::Open { until } => (BreakerPhase::Open, Some(until.since(now).as_secs_f64())),
            Phase::HalfOpen => (BreakerPhase::HalfOpen, None),
        };
        Self {
            state,
            since_seconds: now.since(reading.since).as_secs_f64(),
            retry_in_seconds,
            failures: reading.failures.into(),
            opened: reading.opened,
            refused: reading.refused,
        }
    }
}

impl ConnectionsState {
    /// A reading, against the bound of the configuration.
    pub fn of(reading: ConnectionStats, max: u32) -> Self {
        Self {
            open: reading.open.into(),
            idle: reading.idle.into(),
            http2: reading.http2.into(),
            streams: reading.streams.into(),
            waiting: reading.waiting.into(),
            max: max.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use tidegate::{
        Breaker, Call, Gate as _, Outcome, Permit as _, breaker::Settings, clock, limiter::Limiter,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_limiter_is_read_whole() {
        let limiter = Limiter::builder().limit(1).measure_hold().build().unwrap();
        let now = clock::now();
        let permit = limiter.try_enter(&Call::at(now), "").unwrap();
        let state = InFlightState::of(&limiter.snapshot(), "fixed");
        assert_eq!((state.in_flight, state.limit, state.admitted), (1, Some(1), 1));
        permit.settle(Outcome::Success, now + Duration::from_millis(3));
        let state = InFlightState::of(&limiter.snapshot(), "fixed");
        assert_eq!((state.in_flight, state.hold.count), (0, 1));
        assert!((0.001..0.005).contains(&state.hold.p50_seconds), "{:?}", state.hold);
        let (last, _) = state.hold.buckets[state.hold.buckets.len() - 1];
        assert!(last.is_infinite() && state.hold.buckets.len() < 24);
        assert!(state.hold.buckets.is_sorted_by(|(a, _), (b, _)| a < b));
    }

    #[test]
    fn a_breaker_is_read_with_its_times() {
        let settings = Settings { failures: NonZeroU32::MIN, ..Settings::default() };
        let breaker = Breaker::new(settings).unwrap();
        let start = clock::now();
        let permit = breaker.try_enter(&Call::at(start), "").unwrap();
        permit.settle(Outcome::Overload { retry_after: None }, start);
        let now = start + Duration::from_secs(1);
        let open = BreakerState::of(&breaker.snapshot(now), now);
        assert_eq!((open.state, open.opened, open.since_seconds), (BreakerPhase::Open, 1, 1.0));
        assert_eq!(open.retry_in_seconds, Some(settings.open_for.as_secs_f64() - 1.0));
    }
}
