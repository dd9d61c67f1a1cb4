//! The lines of all partitions behind one short lock, and the permits that go from one to the next.

use std::task::Waker;

use tidegate_core::share::{self, Part};

use super::Shared;
use crate::{
    Instant,
    limiter::waiters::{Fate, Left, Waiters},
    sync::now,
};

pub(super) struct State {
    pub(super) limit: u32,
    /// Most callers in each line.
    pub(super) queue: u32,
    pub(super) in_flight: u32,
    pub(super) lines: Vec<Line>,
}

/// One partition: its share, its calls, its waiters.
pub(super) struct Line {
    pub(super) part: Part,
    pub(super) waiters: Waiters,
    pub(super) admitted: u64,
}

impl Shared {
    /// Hands free permits to waiters, one at a time, and wakes each outside the lock.
    fn hand_over(&self) {
        loop {
            // The guard ends with this statement, before anybody is woken.
            let next = self.state.lock().hand_over(now());
            match next {
                Some(waker) => waker.wake(),
                None => return,
            }
        }
    }

    pub(super) fn resize(&self, limit: u32) {
        {
            let mut state = self.state.lock();
            if state.limit == limit {
                return;
            }
            state.limit = limit;
        }
        self.hand_over();
    }

    pub(super) fn leave(&self, at: usize) {
        // Given back and handed over under one lock, so that no newcomer overtakes those who wait elsewhere.
        let next = {
            let mut state = self.state.lock();
            state.in_flight -= 1;
            state.lines[at].part.in_flight -= 1;
            if state.lines.iter().all(|line| line.part.queued == 0) { None } else { state.hand_over(now()) }
        };
        if let Some(waker) = next {
            waker.wake();
            // That one may have been too late, and the permit is free still.
            self.hand_over();
        }
    }

    /// Frees the place of a waiter that goes away; a grant that was on its way to it goes on to the next.
    pub(super) fn depart(&self, at: usize, place: usize) {
        let left = {
            let mut state = self.state.lock();
            let line = &mut state.lines[at];
            let left = line.waiters.leave(place);
            if matches!(left, Left::Waiting) {
                line.left();
            }
            left
        };
        if matches!(left, Left::Decided(Fate::Granted)) {
            self.leave(at);
        }
    }
}

impl State {
    fn free(&self) -> u32 {
        self.limit.saturating_sub(self.in_flight)
    }

    /// What a partition has when all are busy, at least 1.
    pub(super) fn share(&self, at: usize) -> u32 {
        let all: u64 = self.lines.iter().map(|line| u64::from(line.part.weight)).sum();
        let share = u64::from(self.limit) * u64::from(self.lines[at].part.weight) / all.max(1);
        (share as u32).max(1)
    }

    pub(super) fn enter(&mut self, at: usize) -> bool {
        let goes = self.lines[at].part.goes(self.free());
        if goes {
            self.admit(at);
        }
        goes
    }

    fn admit(&mut self, at: usize) {
        self.in_flight += 1;
        self.lines[at].part.in_flight += 1;
        self.lines[at].admitted += 1;
    }

    fn hand_over(&mut self, now: Instant) -> Option<Waker> {
        if self.free() == 0 {
            return None;
        }
        let at = share::next(self.lines.iter().map(|line| line.part))?;
        let share = self.share(at);
        let Line { part, waiters, .. } = &mut self.lines[at];
        let (place, until) =
            waiters.next(waiters.order.next(part.queued, share)).expect("who is queued stands in line");
        if until <= now {
            let waker = waiters.decide(place, Fate::Expired);
            self.lines[at].left();
            return Some(waker);
        }
        part.queued -= 1;
        waiters.pace.handed_over(part.queued, now);
        let waker = waiters.decide(place, Fate::Granted);
        self.admit(at);
        Some(waker)
    }
}

impl Line {
    /// A waiter went without having been let in.
    fn left(&mut self) {
        self.part.queued -= 1;
        if self.part.queued == 0 {
            self.waiters.pace.emptied();
        }
    }
}
