//! Additive increase, multiplicative decrease: one more while all is well, a tenth less when it is not.

use std::time::Duration;

use super::{Bounds, Law, Window};

/// Grows by one (by a quarter below the last limit that worked) in a window that used the limit, and shrinks to nine
/// tenths in a window with overload, or slower than its latency bound.
///
/// Without a latency bound it knows overload from errors and hung calls alone.
#[derive(Clone, Copy, Debug)]
pub struct Aimd {
    bounds: Bounds,
    limit: f64,
    /// Where growth turns careful: the limit at which it went wrong.
    careful_from: f64,
    latency: Option<Duration>,
}

const BACK_OFF: f64 = 0.9;

impl Aimd {
    /// Begins at the floor of `bounds`.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            limit: f64::from(bounds.floor()),
            careful_from: f64::from(bounds.ceiling()),
            latency: None,
        }
    }

    /// Begins at `limit`, brought within the bounds, instead of at their floor: for a law that takes over from another.
    #[must_use]
    pub fn beginning_at(mut self, limit: u32) -> Self {
        self.limit = self.bounds.clamp(limit.into());
        self
    }

    /// Takes a window whose mean latency is longer than `latency` as overload.
    #[must_use]
    pub const fn latency(mut self, latency: Duration) -> Self {
        self.latency = Some(latency);
        self
    }
}

impl Law for Aimd {
    fn limit(&self) -> u32 {
        self.limit as u32
    }

    fn update(&mut self, window: &Window) -> u32 {
        let slow = self.latency.is_some_and(|latency| window.latency > latency);
        if slow || window.overloaded > 0 {
            self.careful_from = (self.limit * BACK_OFF).max(self.careful_from * BACK_OFF);
            // What is all overload is cut in half: a hung upstream is left within a few windows.
            let keep = if window.overload() > 0.5 { 0.5 } else { BACK_OFF };
            self.limit = self.bounds.clamp(self.limit * keep);
        } else if f64::from(window.in_flight) * 2.0 >= self.limit {
            let step = if self.limit < self.careful_from { (self.limit * 0.25).max(1.0) } else { 1.0 };
            self.limit = self.bounds.clamp(self.limit + step);
        }
        self.limit()
    }
}
