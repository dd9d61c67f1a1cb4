//! What an admitted call holds of a fleet's limit.

use tidegate_core::{Instant, Outcome};

use super::{FleetThrottle, slot::Receipt};
use crate::throttle::Key;

/// What a call took of a fleet's limit. It goes back only when the call surely was not sent: what was sent, counts. So
/// dropping a permit does nothing.
#[derive(Debug)]
#[must_use = "settle it as unsent if the call is not made"]
pub struct FleetPermit<T: AsRef<FleetThrottle>> {
    throttle: T,
    key: Key,
    receipt: Receipt,
}

impl<T: AsRef<FleetThrottle>> FleetPermit<T> {
    pub(super) const fn new(throttle: T, key: Key, receipt: Receipt) -> Self {
        Self { throttle, key, receipt }
    }

    /// Tells what the call cost in the end: what was reserved beyond that goes back, and what it cost beyond its reserve
    /// is taken from credit in hand, else owed and paid before anything else is granted.
    pub fn settle_cost(self, actual: u32, now: Instant) {
        self.throttle.as_ref().settle(self.key, self.receipt, actual, now);
    }
}

impl<T: AsRef<FleetThrottle> + Send> crate::Permit for FleetPermit<T> {
    fn settle(self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Unsent => self.throttle.as_ref().refund(self.key, self.receipt, now),
            Outcome::Success | Outcome::Ignore | Outcome::Overload { .. } | Outcome::Abandoned => {}
        }
    }
}
