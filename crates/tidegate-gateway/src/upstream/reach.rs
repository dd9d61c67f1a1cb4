//! Whether a call may have reached its upstream: known even when nobody waits for it any more.

use std::sync::atomic::{AtomicBool, Ordering};

/// Says of one call whether an upstream may have seen it. It can be asked after the call's future was dropped.
#[derive(Debug, Default)]
pub struct Reach(AtomicBool);

impl Reach {
    /// Whether the call may have reached an upstream. Default: no.
    pub fn is_possible(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// From here on bytes may go out.
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The call surely was not processed.
    pub(super) fn fail(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
