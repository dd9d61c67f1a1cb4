//! The numbers of a process's questions.

use std::sync::atomic::{AtomicU64, Ordering};

/// The next number: never used twice, whatever throttles come and go. No model explores it, as it has no order to keep.
pub(super) fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
