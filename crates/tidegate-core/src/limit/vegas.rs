//! Estimates the queue at the upstream from latency, and keeps it short (TCP Vegas; Netflix `concurrency-limits`).

use super::{
    Bounds, Law, Window,
    pursuit::{Move, Pursuit},
};

/// Takes `limit × (1 − base / latency)` for the calls that queue upstream; grows while they are few, shrinks when they
/// are many. The base is the latency without load, measured anew from time to time.
#[derive(Clone, Copy, Debug)]
pub struct Vegas(Pursuit);

/// The queue that is wished for, and the one that is too long, as shares of the limit. The base is the least of many noisy
/// windows: a usual window without a queue looks like a fifth of one.
const SHORT: f64 = 0.3;
const LONG: f64 = 0.45;
/// A queue of this share is cut in half at once, and judged by what that changes.
const SEVERE: f64 = 0.65;

impl Vegas {
    /// Begins at the floor of `bounds`.
    pub fn new(bounds: Bounds) -> Self {
        Self(Pursuit::new(bounds))
    }

    /// Begins at `limit`, brought within the bounds, instead of at their floor: for a law that takes over from another.
    #[must_use]
    pub fn beginning_at(self, limit: u32) -> Self {
        Self(self.0.beginning_at(limit))
    }
}

fn steer(limit: f64, base: f64, latency: f64) -> Move {
    let queued = limit * (1.0 - base / latency);
    // Never less than what one more call changes.
    let (short, long) = ((limit * SHORT).max(1.0), (limit * LONG).max(2.0));
    if queued > long {
        if queued > limit * SEVERE { Move::Halve } else { Move::Shrink(limit - (queued - long).max(1.0)) }
    } else if queued < short {
        Move::Grow(limit.log2())
    } else {
        Move::Stay
    }
}

impl Law for Vegas {
    fn limit(&self) -> u32 {
        self.0.limit()
    }

    fn update(&mut self, window: &Window) -> u32 {
        self.0.update(window, steer)
    }
}
