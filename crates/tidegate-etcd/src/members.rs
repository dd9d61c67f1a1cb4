//! Which member of the cluster is asked: one, until it fails; then the one that is most likely to answer.
//!
//! Every member has a connection of its own that is made when it is first needed. tonic's balanced channel is not used:
//! it goes on sending to a member that is gone.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use crate::pace::Backoff;

/// The members a client was told of.
#[derive(Debug)]
pub(crate) struct Members {
    endpoints: Vec<Endpoint>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    channels: Vec<Option<Channel>>,
    picks: Picks,
}

/// A member and its connection.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) index: usize,
    pub(crate) channel: Channel,
}

impl Members {
    /// Starts at a member picked by chance, so that a fleet spreads over the cluster.
    pub(crate) fn new(endpoints: Vec<Endpoint>) -> Self {
        let picks = Picks::new(endpoints.len(), fastrand::usize(..endpoints.len()));
        let channels = endpoints.iter().map(|_| None).collect();
        Self { endpoints, state: Mutex::new(State { channels, picks }) }
    }

    pub(crate) fn count(&self) -> usize {
        self.endpoints.len()
    }

    /// The member to ask now. Needs a tokio runtime for the connection's task.
    pub(crate) fn pick(&self) -> Member {
        let mut state = self.state.lock();
        let index = state.picks.pick(Instant::now());
        let channel =
            state.channels[index].get_or_insert_with(|| self.endpoints[index].connect_lazy()).clone();
        Member { index, channel }
    }

    pub(crate) fn succeeded(&self, index: usize) {
        self.state.lock().picks.succeeded(index);
    }

    /// The member did not answer, or said that it cannot: others are asked first for a while.
    pub(crate) fn failed(&self, index: usize) {
        self.state.lock().picks.failed(index, Instant::now());
    }

    pub(crate) fn uri(&self, index: usize) -> String {
        self.endpoints[index].uri().to_string()
    }
}

/// Who is asked next, without connections.
#[derive(Debug)]
struct Picks {
    current: usize,
    health: Vec<Health>,
}

#[derive(Debug)]
struct Health {
    backoff: Backoff,
    /// Failed, and not asked before then while another can be asked.
    not_before: Option<Instant>,
}

impl Picks {
    fn new(count: usize, current: usize) -> Self {
        let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        Self { current, health: (0..count).map(|_| Health { backoff, not_before: None }).collect() }
    }

    /// Stays with the current member while it works, for one login and one connection serve it.
    fn pick(&mut self, now: Instant) -> usize {
        let count = self.health.len();
        let order = (0..count).map(|step| (self.current + step) % count);
        // All have failed lately: the one whose time comes first. Whoever asks keeps to a pace of his own.
        let best = order.min_by_key(|index| self.health[*index].not_before.map_or(now, |at| at.max(now)));
        self.current = best.unwrap_or(self.current);
        self.current
    }

    fn succeeded(&mut self, index: usize) {
        self.health[index].not_before = None;
        self.health[index].backoff.succeeded();
    }

    fn failed(&mut self, index: usize, now: Instant) {
        let health = &mut self.health[index];
        health.not_before = Some(now + health.backoff.failed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_asked_until_it_fails_and_then_the_next() {
        let now = Instant::now();
        let mut picks = Picks::new(3, 1);
        assert_eq!([picks.pick(now), picks.pick(now)], [1, 1]);
        picks.failed(1, now);
        assert_eq!(picks.pick(now), 2);
        picks.failed(2, now);
        assert_eq!(picks.pick(now), 0);
        let later = now + Duration::from_secs(60);
        assert_eq!(picks.pick(later), 0, "a member that came back is no reason to leave one that works");
    }

    #[test]
    fn when_all_have_failed_the_one_whose_time_comes_first_is_asked() {
        let now = Instant::now();
        let mut picks = Picks::new(2, 0);
        for _ in 0..8 {
            picks.failed(0, now);
        }
        picks.failed(1, now);
        for _ in 0..8 {
            picks.failed(0, now + Duration::from_secs(3));
        }
        assert_eq!(picks.pick(now + Duration::from_secs(1)), 1);
        picks.succeeded(1);
        assert_eq!(picks.pick(now + Duration::from_secs(1)), 1);
        assert_eq!(Picks::new(1, 0).pick(now), 0);
    }
}
