//! Estimates the queue at the upstream from latency, and keeps it short (TCP Vegas; Netflix `concurrency-limits`).

use super::{
    Bounds, Law, Window,
    baseline::{Baseline, Reading},
    gradient::TOLERATED_OVERLOAD,
};

/// Takes `limit × (1 − base / latency)` for the calls that queue upstream; grows while they are few, shrinks when they
/// are many. The base is the latency without load, measured anew from time to time.
#[derive(Clone, Copy, Debug)]
pub struct Vegas {
    bounds: Bounds,
    limit: f64,
    baseline: Baseline,
    careful_from: f64,
}

/// The queue that is wished for, and the one that is too long, as shares of the limit.
const SHORT: f64 = 0.2;
const LONG: f64 = 0.4;
/// A queue of this share is cut in half at once, and judged by what that changes.
const SEVERE: f64 = 0.7;

impl Vegas {
    /// Begins at the floor of `bounds`.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            limit: f64::from(bounds.floor()),
            baseline: Baseline::new(),
            careful_from: f64::from(bounds.ceiling()),
        }
    }

    /// Begins at `limit`, brought within the bounds, instead of at their floor: for a law that takes over from another.
    #[must_use]
    pub fn beginning_at(mut self, limit: u32) -> Self {
        self.limit = self.bounds.clamp(limit.into());
        self
    }

    fn steer(&mut self, base: f64, latency: f64, window: &Window) {
        let queued = self.limit * (1.0 - base / latency);
        // Never less than what one more call changes.
        let (short, long) = ((self.limit * SHORT).max(1.0), (self.limit * LONG).max(2.0));
        if queued > long {
            if queued > self.limit * SEVERE {
                self.baseline.cut(self.limit, latency);
                self.limit /= 2.0;
            } else {
                self.limit -= (queued - long).max(1.0);
            }
            self.careful_from = self.limit;
        } else if queued < short && f64::from(window.in_flight) * 2.0 >= self.limit {
            let step = if self.limit < self.careful_from { self.limit * 0.25 } else { self.limit.log2() };
            // A limit's worth of calls is evidence for a whole step, fewer for less.
            self.limit += step.max(1.0) * (f64::from(window.served) / self.limit).min(1.0);
        }
    }
}

impl Law for Vegas {
    fn limit(&self) -> u32 {
        self.bounds.clamp(self.baseline.apply(self.limit)) as u32
    }

    fn update(&mut self, window: &Window) -> u32 {
        if window.overload() > TOLERATED_OVERLOAD {
            // One hang is many windows of overload: where it went wrong is forgotten slowly.
            self.careful_from = self.limit.max(self.careful_from * 0.9);
            self.limit *= (1.0 - window.overload()).clamp(0.5, 0.9);
        } else if window.served > 0 {
            match self.baseline.read(window) {
                Reading::Hold => {}
                Reading::Compare { base, latency } => self.steer(base, latency, window),
                Reading::Restore { limit } => self.limit = limit,
            }
        }
        self.limit = self.bounds.clamp(self.limit);
        self.limit()
    }
}
