//! What the listener counts.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::Notify;

/// Counts of a listener since it was bound; `open` and `resting` alone go down again.
#[derive(Debug, Default)]
pub struct ListenerStats {
    /// Connections now, tunnels included.
    pub open: AtomicUsize,
    /// Connections of these that hold no buffers, since they wait for a first or another request.
    pub resting: AtomicUsize,
    /// Connections taken.
    pub accepted: AtomicU64,
    /// Connections closed at once because there were too many.
    pub refused: AtomicU64,
    /// Times the system could not give a connection: no file left, no memory left.
    pub accept_errors: AtomicU64,
    /// TLS handshakes that failed or took too long.
    pub tls_failures: AtomicU64,
    /// Connections ended because the client broke HTTP.
    pub protocol_errors: AtomicU64,
    /// Requests that two readers could understand differently; also counted in `protocol_errors`.
    pub ambiguous: AtomicU64,
    /// Connections closed because a request head, a request body or the reading of a response took too long.
    pub slow_closed: AtomicU64,
    /// Connections closed because they were idle for too long.
    pub idle_closed: AtomicU64,
    /// Connections cut off because they did not end within the drain time.
    pub cut_off: AtomicU64,
    /// Told when the last open connection ends.
    none: Notify,
}

/// A connection counted as open, until dropped.
#[derive(Debug)]
pub(super) struct Open(Arc<ListenerStats>);

impl ListenerStats {
    pub(super) fn open(self: &Arc<Self>) -> Open {
        self.accepted.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
        Open(Arc::clone(self))
    }

    /// Waits until no connection is open.
    pub(super) async fn none_open(&self) {
        loop {
            let told = self.none.notified();
            if self.open.load(Relaxed) == 0 {
                return;
            }
            told.await;
        }
    }
}

/// A connection counted as resting, until dropped.
pub(super) struct Resting<'a>(&'a ListenerStats);

impl<'a> Resting<'a> {
    pub(super) fn begin(stats: &'a ListenerStats) -> Self {
        stats.resting.fetch_add(1, Relaxed);
        Self(stats)
    }
}

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        self.0.resting.fetch_sub(1, Relaxed);
    }
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Relaxed) == 1 {
            self.0.none.notify_waiters();
        }
    }
}
