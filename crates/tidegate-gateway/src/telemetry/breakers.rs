//! What breakers tell, as lines in the log. Their counts are read from them when somebody looks.

use tidegate::{Event, Observer};
use tidegate_core::breaker::Phase;

/// The observer of every endpoint's breaker, for `Breaker::observed`; it tells them apart by their names.
///
/// That a breaker opened is a warning; the probes of an outage are debugging; its end is information.
#[derive(Clone, Copy, Debug, Default)]
pub struct BreakerLog;

impl Observer for BreakerLog {
    fn observe(&self, event: Event<'_>) {
        // Facts of other guards are other observers' business.
        let Event::BreakerChanged { name, from, to, at, .. } = event else { return };
        match (from, to) {
            (Phase::Closed, Phase::Open { until }) => {
                let probe_in = until.since(at);
                tracing::warn!(
                    endpoint = name,
                    ?probe_in,
                    "a breaker opened: calls are kept from a failing endpoint"
                );
            }
            (_, Phase::Open { .. }) => {
                tracing::debug!(endpoint = name, "a probe failed: the breaker is open again")
            }
            (_, Phase::HalfOpen) => tracing::debug!(endpoint = name, "the breaker lets a probe pass"),
            (_, Phase::Closed) => {
                tracing::info!(endpoint = name, "the breaker closed: the endpoint answers again")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, sync::Arc, time::Duration};

    use tidegate::{Breaker, Gate as _, Permit as _, breaker::Settings};
    use tidegate_core::{Call, Outcome};

    use super::*;
    use crate::logging::captured;

    #[test]
    fn an_outage_is_one_warning_and_its_end_one_line_of_information() {
        let settings = Settings { failures: NonZeroU32::MIN, ..Settings::default() };
        let breaker = Breaker::observed(settings, "orders 127.0.0.1:9001", Arc::new(BreakerLog)).unwrap();
        let lines = captured("info", || {
            let mut now = tidegate::clock::now();
            for outcome in [
                Outcome::Overload { retry_after: None },
                Outcome::Overload { retry_after: None },
                Outcome::Overload { retry_after: None },
                Outcome::Success,
            ] {
                breaker.try_enter(&Call::at(now), "").unwrap().settle(outcome, now);
                now = now + settings.open_for + Duration::from_millis(1);
            }
        });
        let levels: Vec<&str> = lines.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(levels, ["WARN", "INFO"], "{lines}");
        assert!(lines.contains("orders 127.0.0.1:9001"), "{lines}");
    }
}
