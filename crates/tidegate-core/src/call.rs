//! What one call knows about itself, so that nested layers share one clock reading, one deadline and one allowance.

use std::time::Duration;

use crate::Instant;

/// How willingly a call is shed when a gate has to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Shed first: prefetches, batch work.
    Sheddable,
    /// What most calls are.
    #[default]
    Normal,
    /// Shed last: health checks, logouts, payments under way.
    Critical,
}

/// What one call knows: when it began, when it must be over, and what it may cost.
///
/// It is small and `Copy`, rides in `http::Extensions`, and is made once, where the call enters the process.
///
/// ```
/// # use tidegate_core::{Call, Instant};
/// # use std::time::Duration;
/// let now = Instant::from_nanos(1);
/// let call = Call::at(now).within(Duration::from_secs(2));
/// assert_eq!(call.remaining(), Some(Duration::from_secs(2)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// When the call began: the only clock reading its gates use.
    pub now: Instant,
    /// When its answer is worth nothing any more, if that is known.
    pub deadline: Option<Instant>,
    /// How willingly it is shed.
    pub priority: Priority,
    /// What it takes from a quota, in units of that quota. 0 peeks: it decides and takes nothing.
    pub cost: u32,
    /// Attempts that nested retries may still make, beyond the first. Default: 1.
    pub attempts_left: u8,
}

impl Call {
    /// Makes a call that began at `now`, of cost 1, normal priority, one spare attempt and no deadline.
    pub const fn at(now: Instant) -> Self {
        Self { now, deadline: None, priority: Priority::Normal, cost: 1, attempts_left: 1 }
    }

    /// Brings the deadline forward to `timeout` after the call began; a nearer deadline stays.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        let deadline = self.now + timeout;
        self.deadline = Some(self.deadline.map_or(deadline, |known| known.min(deadline)));
        self
    }

    /// Sets what the call takes from a quota.
    #[must_use]
    pub const fn cost(mut self, cost: u32) -> Self {
        self.cost = cost;
        self
    }

    /// Sets how willingly the call is shed.
    #[must_use]
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// The time from the call's beginning to its deadline.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.since(self.now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearer_deadline_wins() {
        let second = Duration::from_secs(1);
        let call = Call::at(Instant::EPOCH).within(second).within(second * 2);
        assert_eq!(call.remaining(), Some(second));
        assert_eq!(call.within(second / 2).remaining(), Some(second / 2));
    }
}
