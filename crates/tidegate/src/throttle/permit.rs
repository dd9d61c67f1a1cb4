//! What an admitted call holds, and how it goes back.

use tidegate_core::{Grant, Instant, Outcome};

use super::{Throttle, key::Key, shard::Charged};
use crate::clock;

/// What a call took of a quota. It goes back only when the call surely was not sent: what was sent, counts, however
/// it ended and even if nobody waited for it. So dropping a permit does nothing.
#[derive(Debug)]
#[must_use = "settle it as unsent if the call is not made"]
pub struct Permit<T: AsRef<Throttle>> {
    throttle: T,
    key: Key,
    receipt: Receipt,
}

/// What was taken, and from which counter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Receipt {
    pub(super) grant: Grant,
    pub(super) charged: Charged,
}

impl Receipt {
    pub(super) fn at(&self) -> Instant {
        self.grant.at()
    }
}

impl<T: AsRef<Throttle>> Permit<T> {
    pub(super) fn new(throttle: T, key: Key, receipt: Receipt) -> Self {
        Self { throttle, key, receipt }
    }
}

impl<T: AsRef<Throttle> + Send> crate::Permit for Permit<T> {
    fn settle(self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Unsent => self.throttle.as_ref().refund(self.key, self.receipt, now),
            Outcome::Success | Outcome::Ignore | Outcome::Overload { .. } | Outcome::Abandoned => {}
        }
    }
}

/// A reservation whose turn has not come: dropped, it goes back.
pub(super) struct Waiting<T: AsRef<Throttle>>(Option<Permit<T>>);

impl<T: AsRef<Throttle>> Waiting<T> {
    pub(super) fn new(permit: Permit<T>) -> Self {
        Self(Some(permit))
    }

    pub(super) fn over(mut self) -> Permit<T> {
        self.0.take().expect("a wait is over once")
    }
}

impl<T: AsRef<Throttle>> Drop for Waiting<T> {
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            permit.throttle.as_ref().refund(permit.key, permit.receipt, clock::now());
        }
    }
}
