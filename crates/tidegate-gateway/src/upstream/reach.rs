//! Whether a call may have reached its upstream: known even when nobody waits for it any more.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Says of one call whether an upstream may have seen it. It can be asked after the call's future was dropped.
#[derive(Debug, Default)]
pub struct Reach(AtomicU8);

const NOWHERE: u8 = 0;
const UNDER_WAY: u8 = 1;
const TAKEN: u8 = 2;

impl Reach {
    /// Whether the call may have reached an upstream. Default: no.
    pub fn is_possible(&self) -> bool {
        self.0.load(Relaxed) != NOWHERE
    }

    /// An attempt begins; from here on bytes may go out.
    pub(super) fn begin(&self) {
        let _what_was_taken_stays_so = self.0.compare_exchange(NOWHERE, UNDER_WAY, Relaxed, Relaxed);
    }

    /// The attempt surely was not processed.
    pub(super) fn fail(&self) {
        let _what_was_taken_stays_so = self.0.compare_exchange(UNDER_WAY, NOWHERE, Relaxed, Relaxed);
    }

    /// Bytes went out, whatever becomes of later attempts.
    pub(super) fn take(&self) {
        self.0.store(TAKEN, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_upstream_took_is_not_forgotten_by_a_later_attempt() {
        let reach = Reach::default();
        assert!(!reach.is_possible());
        reach.begin();
        assert!(reach.is_possible());
        reach.fail();
        assert!(!reach.is_possible());
        reach.begin();
        reach.take();
        reach.begin();
        reach.fail();
        assert!(reach.is_possible());
    }
}
