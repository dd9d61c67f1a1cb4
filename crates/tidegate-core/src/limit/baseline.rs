//! The latency without load: the least one seen, kept true by measuring it anew.

use super::Window;

/// Remembers the least latency, and finds out when that is out of date.
///
/// A low limit for a moment shows what a call takes without a queue. And a limit that was halved without the latency
/// following shows that there was no queue of ours to shorten: the upstream itself became slower.
#[derive(Clone, Copy, Debug)]
pub(super) struct Baseline {
    /// In seconds.
    base: Option<f64>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Compares. Goes to `Emptying` when no windows are left, or to `Cut` when its limit is cut.
    Running { windows_left: u32 },
    /// Half the limit; what ends still waited behind others. Goes to `Measuring`.
    Emptying,
    /// Half the limit; the window is the new base. Goes to `Running`.
    Measuring,
    /// The limit was cut; what ends was admitted before. Goes to `Judging`.
    Cut { from: f64, latency: f64 },
    /// The window shows whether the cut helped. Goes to `Running`.
    Judging { from: f64, latency: f64 },
}

/// Windows between two measurements.
const MEASURE_EVERY: u32 = 100;
/// A cut helped if it left less than this share of the latency.
const HELPED: f64 = 0.75;

/// What a law does with a window.
pub(super) enum Reading {
    /// Nothing: it belongs to a measurement.
    Hold,
    /// Its latency, and the latency without load, both in seconds.
    Compare { base: f64, latency: f64 },
    /// The cut from this limit was a mistake; the base is learnt anew.
    Restore { limit: f64 },
}

impl Baseline {
    pub(super) const fn new() -> Self {
        Self { base: None, phase: Phase::Running { windows_left: MEASURE_EVERY } }
    }

    /// Learns from a window in which calls were served.
    pub(super) fn read(&mut self, window: &Window) -> Reading {
        let latency = window.latency.as_secs_f64();
        match self.phase {
            Phase::Running { windows_left } => {
                self.phase = match windows_left {
                    0 => Phase::Emptying,
                    left => Phase::Running { windows_left: left - 1 },
                };
                let base = self.base.map_or(latency, |base| base.min(latency));
                self.base = Some(base);
                Reading::Compare { base, latency }
            }
            Phase::Emptying => {
                self.phase = Phase::Measuring;
                Reading::Hold
            }
            Phase::Measuring => {
                self.learn(latency);
                Reading::Hold
            }
            Phase::Cut { from, latency } => {
                self.phase = Phase::Judging { from, latency };
                Reading::Hold
            }
            Phase::Judging { from, latency: before } => {
                if latency < before * HELPED {
                    self.phase = Phase::Running { windows_left: MEASURE_EVERY };
                    self.base = self.base.map(|base| base.min(latency));
                    return Reading::Hold;
                }
                self.learn(latency);
                Reading::Restore { limit: from }
            }
        }
    }

    /// Tells that the limit is cut in half, from `from`, because of `latency`.
    pub(super) fn cut(&mut self, from: f64, latency: f64) {
        self.phase = Phase::Cut { from, latency };
    }

    /// The limit to hold, half of it while the base is measured.
    pub(super) fn apply(&self, limit: f64) -> f64 {
        match self.phase {
            Phase::Emptying | Phase::Measuring => limit / 2.0,
            Phase::Running { .. } | Phase::Cut { .. } | Phase::Judging { .. } => limit,
        }
    }

    fn learn(&mut self, latency: f64) {
        self.base = Some(latency);
        self.phase = Phase::Running { windows_left: MEASURE_EVERY };
    }
}
