//! Closing connections that were idle for long, and those that their peer has closed: one task per endpoint that has any.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time;
use tokio_util::sync::CancellationToken;

use super::pool::Pool;

/// The idle time is counted in so many ticks: a connection is closed after 7/8 to 8/8 of it.
const TICKS: u32 = 8;
const SHORTEST_TICK: Duration = Duration::from_millis(5);

/// Starts sweeping, unless it goes on already.
pub(super) fn start(pool: &Arc<Pool>, idle: Duration) {
    if pool.sweeping.swap(true, Ordering::SeqCst) {
        return;
    }
    let sweeping = Sweeping(Arc::downgrade(pool));
    tokio::spawn(sweep(sweeping, pool.closing.clone(), (idle / TICKS).max(SHORTEST_TICK)));
}

async fn sweep(mut sweeping: Sweeping, closing: CancellationToken, every: Duration) {
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            () = time::sleep(every) => {}
        }
        let Some(pool) = sweeping.0.upgrade() else { return };
        let closed = pool.expire(next(&pool.tick), TICKS);
        if closed > 0 {
            tracing::debug!(closed, "idle connections closed");
        }
        if pool.open() == 0 {
            pool.sweeping.store(false, Ordering::SeqCst);
            // A connection opened in between saw `sweeping` and started nothing.
            if pool.open() == 0 || pool.sweeping.swap(true, Ordering::SeqCst) {
                sweeping.0 = Weak::new();
                return;
            }
        }
    }
}

fn next(tick: &AtomicU32) -> u32 {
    tick.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
}

/// Says that nobody sweeps any more, should the task end early.
struct Sweeping(Weak<Pool>);

impl Drop for Sweeping {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.sweeping.store(false, Ordering::SeqCst);
        }
    }
}
