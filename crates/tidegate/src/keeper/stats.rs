//! What a keeper did, as counts. A fresh answer is not counted here: it would cost more than the answer.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use tidegate_core::{keep::Landed, recovery::Reach};

/// What a keeper did since the beginning, and how it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys that are known now.
    pub keys: usize,
    /// Callers that wait now.
    pub waiting: usize,
    /// Fetches that began.
    pub begun: u64,
    /// Fetches that brought a value, or that there is none.
    pub fetched: u64,
    /// Fetches that failed, timed out or panicked.
    pub failed: u64,
    /// Fetches that were dropped with their runtime.
    pub lost: u64,
    /// Values that came after a later one, or after their key was cleared.
    pub late: u64,
    /// Fetches that the budget of attempts held back.
    pub throttled: u64,
    /// Fetches that were held back because the source is down.
    pub unreachable: u64,
    /// Keys that were forgotten.
    pub evicted: u64,
    /// Callers that were turned away because too many wait, or no key could make room.
    pub full: u64,
    /// Whether the source can be reached.
    pub reach: Reach,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) waiting: AtomicUsize,
    begun: AtomicU64,
    fetched: AtomicU64,
    failed: AtomicU64,
    lost: AtomicU64,
    late: AtomicU64,
    throttled: AtomicU64,
    unreachable: AtomicU64,
    evicted: AtomicU64,
    full: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Counters {
    pub(super) fn begun(&self) {
        count(&self.begun);
    }

    pub(super) fn fetched(&self) {
        count(&self.fetched);
    }

    pub(super) fn failed(&self) {
        count(&self.failed);
    }

    pub(super) fn lost(&self) {
        count(&self.lost);
    }

    pub(super) fn throttled(&self) {
        count(&self.throttled);
    }

    pub(super) fn unreachable(&self) {
        count(&self.unreachable);
    }

    pub(super) fn full(&self) {
        count(&self.full);
    }

    pub(super) fn evicted(&self, keys: usize) {
        self.evicted.fetch_add(keys as u64, Relaxed);
    }

    pub(super) fn put(&self, landed: Landed) {
        match landed {
            Landed::Taken => {}
            Landed::Late | Landed::Unwanted => count(&self.late),
        }
    }

    pub(super) fn stats(&self, keys: usize, reach: Reach) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        Stats {
            keys,
            waiting: self.waiting.load(Relaxed),
            begun: read(&self.begun),
            fetched: read(&self.fetched),
            failed: read(&self.failed),
            lost: read(&self.lost),
            late: read(&self.late),
            throttled: read(&self.throttled),
            unreachable: read(&self.unreachable),
            evicted: read(&self.evicted),
            full: read(&self.full),
            reach,
        }
    }
}
