//! Estimates the queue at the upstream from latency, and keeps it short (TCP Vegas; Netflix `concurrency-limits`).

use super::{Bounds, Law, Window};

/// Takes `limit × (1 − base / latency)` for the calls that queue upstream; grows while they are few, shrinks when many.
///
/// The base is the least latency seen; it is forgotten now and then, and learnt again from a window at half the limit.
#[derive(Clone, Copy, Debug)]
pub struct Vegas {
    bounds: Bounds,
    limit: f64,
    base: Option<f64>,
    careful_from: f64,
    windows_left: u32,
}

const PROBE_EVERY: u32 = 60;
/// Windows at half the limit: one in which the queue drains, one that measures.
const PROBE: u32 = 2;
const TOLERATED_OVERLOAD: f64 = 0.02;

impl Vegas {
    /// Begins at the floor of `bounds`.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            limit: f64::from(bounds.floor()),
            base: None,
            careful_from: f64::from(bounds.ceiling()),
            windows_left: PROBE_EVERY,
        }
    }

    fn steer(&mut self, window: &Window) {
        if window.overload() > TOLERATED_OVERLOAD {
            self.careful_from = self.limit;
            self.limit = self.bounds.clamp(self.limit * (1.0 - window.overload()).clamp(0.5, 0.9));
            return;
        }
        let latency = window.latency.as_secs_f64();
        if window.served == 0 || latency <= 0.0 || f64::from(window.in_flight) * 2.0 < self.limit {
            return;
        }
        let base = self.base.map_or(latency, |base| base.min(latency));
        self.base = Some(base);
        let queued = self.limit * (1.0 - base / latency);
        // The queue that is wished for, and the one that is too long: a fifth and two fifths of the limit, never less
        // than what one more call changes.
        let (short, long) = ((self.limit * 0.2).max(1.0), (self.limit * 0.4).max(2.0));
        if queued < short {
            let step = if self.limit < self.careful_from { self.limit * 0.25 } else { self.limit.log2() };
            self.limit = self.bounds.clamp(self.limit + step.max(1.0));
        } else if queued > long {
            self.careful_from = self.limit;
            self.limit = self.bounds.clamp(self.limit - (queued - long).max(1.0));
        }
    }
}

impl Law for Vegas {
    fn limit(&self) -> u32 {
        if self.windows_left < PROBE {
            return self.bounds.clamp((self.limit / 2.0).floor()) as u32;
        }
        self.limit as u32
    }

    fn update(&mut self, window: &Window) -> u32 {
        match self.windows_left {
            0 => {
                if window.served > 0 {
                    self.base = Some(window.latency.as_secs_f64());
                }
                self.windows_left = PROBE_EVERY;
            }
            left => {
                if left >= PROBE {
                    self.steer(window);
                }
                self.windows_left = left - 1;
            }
        }
        self.limit()
    }
}
