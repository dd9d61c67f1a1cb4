//! Follows the gradient between the latency without load and the latency now (Netflix `concurrency-limits`, Gradient2),
//! and takes errors and hung calls for what they are.

use super::{Bounds, Law, Window};

/// Keeps the limit where latency is within a tolerance of the latency without load.
///
/// Gradient2 compares with a long average, which rises with a queue that stays, and lets the limit drift up with it.
/// This law remembers the least latency instead, and measures it anew from time to time by a window at a quarter of the
/// limit, so that an upstream that became slower by itself is not taken for an overloaded one.
#[derive(Clone, Copy, Debug)]
pub struct Gradient {
    bounds: Bounds,
    limit: f64,
    tolerance: f64,
    /// Latency without load, in seconds.
    base: Option<f64>,
    /// Below this limit all was well before: growth towards it is fast.
    careful_from: f64,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Goes to `Emptying` when no windows are left before the next probe.
    Running { windows_left: u32 },
    /// The limit is low, but what ends still waited behind others. Goes to `Probing`.
    Emptying,
    /// The window measures the base. Goes to `Running`.
    Probing,
}

/// Windows between two measurements of the base.
const PROBE_EVERY: u32 = 60;
const DEFAULT_TOLERANCE: f64 = 1.5;
/// Overload up to this share of a window's calls does not shrink the limit more than latency asks for.
const TOLERATED_OVERLOAD: f64 = 0.02;

impl Gradient {
    /// Begins at the floor of `bounds`, and tolerates half as much latency again as without load.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            limit: f64::from(bounds.floor()),
            tolerance: DEFAULT_TOLERANCE,
            base: None,
            careful_from: f64::from(bounds.ceiling()),
            phase: Phase::Running { windows_left: PROBE_EVERY },
        }
    }

    /// Tolerates `tolerance` times the latency without load; at least 1. Default: 1.5.
    #[must_use]
    pub const fn tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance.max(1.0);
        self
    }

    fn steer(&mut self, window: &Window) {
        if window.overload() > TOLERATED_OVERLOAD {
            self.careful_from = self.limit;
            self.limit = self.bounds.clamp(self.limit * (1.0 - window.overload()).clamp(0.5, 0.9));
            return;
        }
        let latency = window.latency.as_secs_f64();
        if window.served == 0 || latency <= 0.0 {
            return;
        }
        let base = self.base.map_or(latency, |base| base.min(latency));
        self.base = Some(base);
        let gradient = (self.tolerance * base / latency).clamp(0.5, 1.0);
        if gradient < 1.0 {
            self.careful_from = self.limit * gradient;
            // Half the way, so that one noisy window does not halve the limit.
            let target = self.limit * gradient;
            self.limit = self.bounds.clamp((self.limit + target) / 2.0);
        } else if f64::from(window.in_flight) * 2.0 >= self.limit {
            let step =
                if self.limit < self.careful_from { self.limit * 0.25 } else { self.limit.sqrt() / 2.0 };
            self.limit = self.bounds.clamp(self.limit + step.max(1.0));
        }
    }

    fn probe_limit(&self) -> u32 {
        self.bounds.clamp((self.limit / 4.0).floor()) as u32
    }
}

impl Law for Gradient {
    fn limit(&self) -> u32 {
        match self.phase {
            Phase::Running { .. } => self.limit as u32,
            Phase::Emptying | Phase::Probing => self.probe_limit(),
        }
    }

    fn update(&mut self, window: &Window) -> u32 {
        self.phase = match self.phase {
            Phase::Running { windows_left } => {
                self.steer(window);
                match windows_left {
                    0 => Phase::Emptying,
                    left => Phase::Running { windows_left: left - 1 },
                }
            }
            Phase::Emptying => Phase::Probing,
            Phase::Probing => {
                if window.served > 0 {
                    self.base = Some(window.latency.as_secs_f64());
                }
                Phase::Running { windows_left: PROBE_EVERY }
            }
        };
        self.limit()
    }
}
