//! What a call holds of the gates it passed, given back the last one taken first.

use tidegate::{
    Permit as _, breaker,
    limiter::{self, FleetLimiter},
};
use tidegate_core::{Instant, Outcome};

use crate::in_flight::Slot;

/// What a call holds of the gates it passed.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Of the route's own limit.
    pub(crate) of_route: Option<limiter::Permit>,
    /// Of the upstream's.
    pub(crate) slot: Option<Slot>,
    /// Of the endpoint's breaker.
    pub(crate) probe: Option<breaker::Permit>,
}

impl Held {
    /// Gives the breaker's permit back.
    pub(crate) fn settle_probe(&mut self, outcome: Outcome, now: Instant) {
        if let Some(probe) = self.probe.take() {
            probe.settle(outcome, now);
        }
    }

    /// Gives the permits of calls in flight back.
    pub(super) fn settle_slots(&mut self, outcome: Outcome, now: Instant) {
        if let Some(slot) = self.slot.take() {
            slot.settle(outcome, now);
        }
        if let Some(permit) = self.of_route.take() {
            permit.settle(outcome, now);
        }
    }

    /// The lease that the call's permit is of, if a fleet shares it.
    pub(crate) fn lease(&self) -> Option<&FleetLimiter> {
        self.slot.as_ref().and_then(Slot::lease)
    }
}
