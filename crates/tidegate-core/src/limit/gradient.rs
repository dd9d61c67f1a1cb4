//! Follows the gradient between the latency without load and the latency now (Netflix `concurrency-limits`, Gradient2),
//! and takes errors and hung calls for what they are.

use super::{
    Bounds, Law, Window,
    baseline::{Baseline, Reading},
};

/// Keeps the limit where latency is within a tolerance of the latency without load.
///
/// Gradient2 compares with a long average, which rises with a queue that stays, and lets the limit drift up with it.
/// This law remembers the least latency, and measures it anew: an upstream that became slower by itself is not taken
/// for an overloaded one.
#[derive(Clone, Copy, Debug)]
pub struct Gradient {
    bounds: Bounds,
    limit: f64,
    tolerance: f64,
    baseline: Baseline,
    /// Below this limit all was well before: growth towards it is fast.
    careful_from: f64,
}

const DEFAULT_TOLERANCE: f64 = 1.5;
/// Overload up to this share of a window's calls does not shrink the limit more than latency asks for.
pub(super) const TOLERATED_OVERLOAD: f64 = 0.02;

impl Gradient {
    /// Begins at the floor of `bounds`, and tolerates half as much latency again as without load.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            limit: f64::from(bounds.floor()),
            tolerance: DEFAULT_TOLERANCE,
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

    /// Tolerates `tolerance` times the latency without load; at least 1. Default: 1.5.
    #[must_use]
    pub const fn tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance.max(1.0);
        self
    }

    fn steer(&mut self, base: f64, latency: f64, window: &Window) {
        let gradient = (self.tolerance * base / latency).clamp(0.5, 1.0);
        if gradient < 1.0 {
            if gradient <= 0.5 {
                self.baseline.cut(self.limit, latency);
                self.limit *= gradient;
            } else {
                // Half the way, so that a noisy window does not cost much.
                self.limit *= (1.0 + gradient) / 2.0;
            }
            self.careful_from = self.limit;
        } else if f64::from(window.in_flight) * 2.0 >= self.limit {
            let step =
                if self.limit < self.careful_from { self.limit * 0.25 } else { self.limit.sqrt() / 2.0 };
            // A limit's worth of calls is evidence for a whole step, fewer for less.
            self.limit += step.max(1.0) * (f64::from(window.served) / self.limit).min(1.0);
        }
    }
}

impl Law for Gradient {
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
