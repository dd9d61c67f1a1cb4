//! What became of the calls.

use std::time::Duration;

/// What became of all calls of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Units asked for.
    pub offered: u64,
    /// Units admitted.
    pub admitted: u64,
    /// Units that a limiter which knows everything at once would have admitted.
    pub ideal: u64,
    /// Units refused: by the limit, or because the store did not answer.
    pub refused: u64,
    /// Of these, units refused because the store did not answer in time.
    pub unanswered: u64,
    /// The most that any window, span or burst of any key held beyond its limit, in units.
    pub over: u64,
    /// Calls decided without waiting.
    pub local: u64,
    /// Calls that waited for the store.
    pub waited: u64,
    /// Questions that the store was asked.
    pub asked: u64,
    /// The waits of those that waited, in microseconds, shortest first.
    pub waits: Vec<u64>,
    /// Calls by windows of the rule's length from the start, all keys together.
    pub windows: Vec<Window>,
}

/// What became of the calls of one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Units asked for.
    pub offered: u64,
    /// Units admitted.
    pub admitted: u64,
    /// Units refused.
    pub refused: u64,
    /// Questions that the store was asked.
    pub asked: u64,
}

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Virtual time that has passed.
    pub passed: Duration,
    /// Calls so far.
    pub calls: u64,
}

impl Report {
    /// The share of decisions that did not wait, from 0 to 1.
    pub fn local_share(&self) -> f64 {
        self.local as f64 / (self.local + self.waited).max(1) as f64
    }

    /// Questions to the store for each decision.
    pub fn asked_per_decision(&self) -> f64 {
        self.asked as f64 / (self.local + self.waited).max(1) as f64
    }

    /// The wait that a share (0 to 1) of those that waited did not exceed.
    pub fn wait(&self, share: f64) -> Duration {
        let at = (self.waits.len().saturating_sub(1) as f64 * share.clamp(0.0, 1.0)) as usize;
        Duration::from_micros(self.waits.get(at).copied().unwrap_or(0))
    }
}
