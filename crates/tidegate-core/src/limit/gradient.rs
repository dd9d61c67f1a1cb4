//! Follows the gradient between the latency without load and the latency now (Netflix `concurrency-limits`, Gradient2),
//! and takes errors and hung calls for what they are.

use super::{
    Bounds, Law, Window,
    pursuit::{Move, Pursuit},
};

/// Keeps the limit where latency is within a tolerance of the latency without load.
///
/// Gradient2 compares with a long average, which rises with a queue that stays, and lets the limit drift up with it.
/// This law remembers the least latency, and measures it anew: an upstream that became slower by itself is not taken
/// for an overloaded one.
#[derive(Clone, Copy, Debug)]
pub struct Gradient {
    pursuit: Pursuit,
    tolerance: f64,
}

const DEFAULT_TOLERANCE: f64 = 1.5;

impl Gradient {
    /// Begins at the floor of `bounds`, and tolerates half as much latency again as without load.
    pub fn new(bounds: Bounds) -> Self {
        Self { pursuit: Pursuit::new(bounds), tolerance: DEFAULT_TOLERANCE }
    }

    /// Begins at `limit`, brought within the bounds, instead of at their floor: for a law that takes over from another.
    #[must_use]
    pub fn beginning_at(mut self, limit: u32) -> Self {
        self.pursuit = self.pursuit.beginning_at(limit);
        self
    }

    /// Tolerates `tolerance` times the latency without load; at least 1. Default: 1.5.
    #[must_use]
    pub const fn tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance.max(1.0);
        self
    }
}

fn steer(tolerance: f64, limit: f64, base: f64, latency: f64) -> Move {
    let gradient = tolerance * base / latency;
    if gradient <= 0.5 {
        Move::Halve
    } else if gradient < 1.0 {
        // Half the way, so that a noisy window does not cost much.
        Move::Shrink(limit * (1.0 + gradient) / 2.0)
    } else {
        Move::Grow(limit.sqrt() / 2.0)
    }
}

impl Law for Gradient {
    fn limit(&self) -> u32 {
        self.pursuit.limit()
    }

    fn update(&mut self, window: &Window) -> u32 {
        let tolerance = self.tolerance;
        self.pursuit.update(window, |limit, base, latency| steer(tolerance, limit, base, latency))
    }
}
