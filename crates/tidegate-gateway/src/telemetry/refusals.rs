//! The last refusals, for a person who asks why. Sampled: remembering never slows the path that refuses.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;
use tidegate_core::Instant;

use crate::state::RefusalState;

/// How many refusals are remembered.
const REMEMBERED: usize = 64;
/// Refusals closer together than this are not all remembered: a flood costs one relaxed load each.
const SPACING_NANOS: u64 = 1_000_000;

/// A ring of the last refusals.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    last: AtomicU64,
    ring: Mutex<VecDeque<RefusalState>>,
}

impl Refusals {
    /// Remembers a refusal, unless one was remembered within the last millisecond or somebody is reading.
    pub(super) fn note(&self, now: Instant, refusal: impl FnOnce() -> RefusalState) {
        let nanos = now.as_nanos();
        if nanos.saturating_sub(self.last.load(Relaxed)) < SPACING_NANOS {
            return;
        }
        let Some(mut ring) = self.ring.try_lock() else { return };
        self.last.store(nanos, Relaxed);
        if ring.len() == REMEMBERED {
            ring.pop_front();
        }
        ring.push_back(refusal());
    }

    /// What is remembered, the newest first.
    pub(super) fn newest_first(&self) -> Vec<RefusalState> {
        self.ring.lock().iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn refusal(at: u64) -> RefusalState {
        RefusalState {
            at_seconds: at as f64,
            by: "quota",
            route: "r".into(),
            upstream: "u".into(),
            limit: None,
            retry_after_seconds: None,
        }
    }

    #[test]
    fn the_newest_are_remembered_and_the_ring_is_bounded() {
        let refusals = Refusals::default();
        for n in 1..=100 {
            refusals.note(Instant::EPOCH + Duration::from_millis(n), || refusal(n));
        }
        let seen: Vec<f64> = refusals.newest_first().iter().map(|refusal| refusal.at_seconds).collect();
        assert_eq!((seen.len(), seen[0], seen[63]), (REMEMBERED, 100.0, 37.0));
    }

    #[test]
    fn a_flood_is_sampled_and_a_reader_blocks_nobody() {
        let refusals = Refusals::default();
        let now = Instant::EPOCH + Duration::from_secs(1);
        (0..1000).for_each(|n| refusals.note(now + Duration::from_nanos(n), || refusal(n)));
        assert_eq!(refusals.newest_first().len(), 1);
        let reader = refusals.ring.lock();
        refusals.note(now + Duration::from_secs(1), || unreachable!("skipped while the ring is read"));
        drop(reader);
    }
}
