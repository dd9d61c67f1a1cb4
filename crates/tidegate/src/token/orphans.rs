//! Grants that other processes have out: of one that is not heard of for longer than a lease lasts its process died, and
//! while the endpoint takes the refresh token again, another one repeats it, whether or not anybody asks.
//!
//! That a grant was sent is a hint, which may be lost, or come to a process that has no room for it. A session does not hang
//! on it: whoever asks for it next finds what the store knows, that a lease ran out under which something was sent, at most
//! a lease's life (default: 10 s) after the process died, and repeats the grant. What is lost with the hint is only a session that
//! nobody asks for before the endpoint's grace is over: that is an unknown outcome, as it is without a grace.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tidegate_core::Instant;

use super::SessionId;

/// Grants that are remembered at most; of more, the next caller finds out. Default: 100 000.
const MOST: usize = 100_000;

/// Grants that are out, each until it is heard of.
pub(super) struct Orphans {
    /// By when each should have been heard of: in order, as they are all given the same time.
    order: VecDeque<(Instant, SessionId)>,
    out: HashMap<SessionId, Instant>,
    patience: Duration,
}

impl Orphans {
    /// Gives a process a lease's life, and up to half of one more, so that processes do not look together.
    pub(super) fn new(lease: Duration) -> Self {
        let patience = lease + lease.mul_f64(0.1 + 0.4 * fastrand::f64());
        Self { order: VecDeque::new(), out: HashMap::new(), patience }
    }

    /// A process is about to send a grant.
    pub(super) fn sent(&mut self, id: SessionId, now: Instant) {
        if self.order.len() >= MOST {
            return;
        }
        let by = now + self.patience;
        self.out.insert(id.clone(), by);
        self.order.push_back((by, id));
    }

    /// It was heard of.
    pub(super) fn heard(&mut self, id: &SessionId) {
        self.out.remove(id);
    }

    /// When to look again.
    pub(super) fn next(&mut self) -> Option<Instant> {
        while let Some((by, id)) = self.order.front() {
            if self.out.get(id) == Some(by) {
                return Some(*by);
            }
            self.order.pop_front();
        }
        None
    }

    /// One that was not heard of in time.
    pub(super) fn due(&mut self, now: Instant) -> Option<SessionId> {
        self.next().filter(|by| *by <= now)?;
        let (_, id) = self.order.pop_front()?;
        self.out.remove(&id);
        Some(id)
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_heard_of_is_due_and_each_once() {
        let lease = Duration::from_secs(10);
        let mut orphans = Orphans::new(lease);
        let (start, id) = (Instant::from_nanos(1 << 60), |name| SessionId::new(name).unwrap());
        for name in ["lost", "heard", "again"] {
            orphans.sent(id(name), start);
        }
        orphans.heard(&id("heard"));
        orphans.sent(id("again"), start + lease);
        assert_eq!(orphans.due(start + lease), None, "a lease that is renewed may be a little late");
        assert_eq!(orphans.due(start + lease * 3 / 2), Some(id("lost")));
        assert_eq!(orphans.due(start + lease * 3 / 2), None);
        assert_eq!(orphans.due(start + lease * 5 / 2), Some(id("again")));
        assert_eq!((orphans.due(start + lease * 100), orphans.next()), (None, None));
    }
}
