//! A limit that follows latency: what the laws which compare latency with its base have in common.

use super::{
    Bounds, Window,
    baseline::{Baseline, Reading},
};

/// The limit, and what it remembers of how it came there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pursuit {
    bounds: Bounds,
    limit: f64,
    baseline: Baseline,
    /// Below this limit all was well before: growth towards it is fast.
    careful_from: f64,
}

/// Where a law wishes to go, from a latency and its base.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Move {
    /// To half the limit at once, to be judged by what that changes.
    Halve,
    /// Down to this limit.
    Shrink(f64),
    /// Up by this much, where growth is careful.
    Grow(f64),
    /// Nowhere.
    Stay,
}

/// Overload up to this share of a window's calls does not shrink the limit more than latency asks for.
const TOLERATED_OVERLOAD: f64 = 0.02;

impl Pursuit {
    /// Begins at the floor of `bounds`.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            limit: f64::from(bounds.floor()),
            baseline: Baseline::new(),
            careful_from: f64::from(bounds.ceiling()),
        }
    }

    /// Begins at `limit`, brought within the bounds.
    pub(super) fn beginning_at(mut self, limit: u32) -> Self {
        self.limit = self.bounds.clamp(limit.into());
        self
    }

    /// The limit now.
    pub(super) fn limit(&self) -> u32 {
        self.bounds.clamp(self.baseline.apply(self.limit)) as u32
    }

    /// Learns from a window; `steer` says where to go from the limit, the base and the latency, both in seconds.
    pub(super) fn update(&mut self, window: &Window, steer: impl FnOnce(f64, f64, f64) -> Move) -> u32 {
        if window.overload() > TOLERATED_OVERLOAD {
            // One hang is many windows of overload: where it went wrong is forgotten slowly.
            self.careful_from = self.limit.max(self.careful_from * 0.9);
            self.limit *= (1.0 - window.overload()).clamp(0.5, 0.9);
        } else if window.served > 0 {
            match self.baseline.read(window) {
                Reading::Hold => {}
                Reading::Compare { base, latency } => {
                    self.go(steer(self.limit, base, latency), latency, window);
                }
                Reading::Restore { limit } => self.limit = limit,
            }
        }
        self.limit = self.bounds.clamp(self.limit);
        self.limit()
    }

    fn go(&mut self, to: Move, latency: f64, window: &Window) {
        match to {
            Move::Halve => {
                self.baseline.cut(self.limit, latency);
                self.limit /= 2.0;
                self.careful_from = self.limit;
            }
            Move::Shrink(limit) => {
                self.limit = limit;
                self.careful_from = limit;
            }
            Move::Grow(careful) => {
                if f64::from(window.in_flight) * 2.0 >= self.limit {
                    let step = if self.limit < self.careful_from { self.limit * 0.25 } else { careful };
                    // A limit's worth of calls is evidence for a whole step, fewer for less.
                    self.limit += step.max(1.0) * (f64::from(window.served) / self.limit).min(1.0);
                }
            }
            Move::Stay => {}
        }
    }
}
