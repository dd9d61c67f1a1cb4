//! Whether the store is known to be away, and how it is found out that it is back: by a question in the background, so
//! that no call waits for what is known.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tidegate_core::ledger::{Ask, Seen};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{ledger::Subject, number, shared::Shared};
use crate::{
    sync::{AtomicU32, Ordering},
    throttle::Key,
};

/// Questions in a row without an answer after which the store is known to be away. One may be lost on the way.
const FAILURES: u32 = 2;
/// The time between two probes while calls need the store, about.
pub(super) const PROBES_APART: Duration = Duration::from_millis(100);
/// The time between two probes while none does.
const PROBES_AT_REST: Duration = Duration::from_secs(1);

/// What the latest questions say of the store. It is left by the first answer, to whichever question.
pub(super) struct Away {
    /// Questions in a row without an answer.
    failures: AtomicU32,
    wanted: Arc<Notify>,
}

impl Away {
    pub(super) fn new() -> Self {
        Self { failures: AtomicU32::new(0), wanted: Arc::default() }
    }

    /// Whether the store does not answer, as far as is known.
    #[inline]
    pub(super) fn is_known(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES
    }

    pub(super) fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// A question was not answered that was sent after the latest answer.
    pub(super) fn failed(&self) {
        // It stops where it says enough, so that it never comes round.
        let one_more = |failures: u32| (failures < FAILURES).then_some(failures + 1);
        let before = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        if before == Ok(FAILURES - 1) {
            self.wanted.notify_one();
        }
    }

    /// A call was decided without the store: it is worth another probe soon.
    pub(super) fn is_wanted(&self) {
        if self.is_known() {
            self.wanted.notify_one();
        }
    }
}

/// Probes the store whenever it is away, one question at a time, as long as the throttle lives.
pub(super) async fn probe(shared: Weak<Shared>) {
    let Some(wanted) = shared.upgrade().map(|shared| Arc::clone(&shared.away.wanted)) else { return };
    loop {
        wanted.notified().await;
        loop {
            let Some(this) = shared.upgrade() else { return };
            if this.away.is_known() {
                this.probe().await;
            }
            if !this.away.is_known() {
                break;
            }
            drop(this);
            // A fleet that lost its store does not come back in step.
            sleep(PROBES_APART.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            let _ = timeout(PROBES_AT_REST.saturating_sub(PROBES_APART), wanted.notified()).await;
        }
    }
}

impl Shared {
    /// Asks for nothing. It is a question like any other all the same: a store that can be read and not written to is away.
    async fn probe(&self) {
        // Any key, as a part of the store may be away by itself.
        let first = fastrand::usize(..self.shards.len());
        let mut shards = self.shards[first..].iter().chain(&self.shards[..first]);
        let known = shards.find_map(|shard| shard.0.lock().accounts.any());
        let subject = Subject { limit: &self.name, key: known.unwrap_or(Key::ALL) };
        let rule = self.shards[0].0.lock().rule;
        let (node, seq, seen) = (self.node, number::next(), Seen::default());
        let ask = Ask { node, seq, least: 0, need: 0, want: 0, back: 0, of: 0, debt: 0, seen };
        self.put(subject, &rule, &ask).await;
    }
}
