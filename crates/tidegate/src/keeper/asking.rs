//! Asking the source for something else than a key's value, under the same budget and the same care for one that is down.

use std::time::Duration;

use tidegate_core::{Instant, recovery::Leave};

use super::{Fetch, Keeper, Why, source::Barred};
use crate::sync::now;

/// Leave to ask the source once. Dropped, it was not asked.
pub(crate) struct Asking<F: Fetch> {
    keeper: Keeper<F>,
    leave: Option<Leave>,
}

impl<F: Fetch> Keeper<F> {
    /// Asks for leave to ask the source.
    ///
    /// # Errors
    /// The instant before which it is no use to come back.
    pub(crate) fn ask(&self, now: Instant) -> Result<Asking<F>, Instant> {
        match self.0.source.begin(now) {
            Ok(leave) => Ok(Asking { keeper: self.clone(), leave: Some(leave) }),
            Err(Barred::Unreachable { until, .. }) => Err(until),
            Err(Barred::Throttled { retry_after }) => Err(now + retry_after),
        }
    }
}

impl<F: Fetch> Asking<F> {
    /// The source answered, whatever it said.
    pub(crate) fn answered(mut self) {
        if let Some(leave) = self.leave.take() {
            self.keeper.0.source.answered(leave, now());
        }
    }

    /// It could not be reached, on behalf of a key.
    pub(crate) fn unreachable(mut self, key: &F::Key, why: Why<F::Error>, retry_after: Option<Duration>) {
        if let Some(leave) = self.leave.take() {
            self.keeper.0.source.unreachable(leave, self.keeper.hash(key), retry_after, why, now());
        }
    }
}

impl<F: Fetch> Drop for Asking<F> {
    fn drop(&mut self) {
        if let Some(leave) = self.leave.take() {
            self.keeper.0.source.abandoned(leave, now());
        }
    }
}
