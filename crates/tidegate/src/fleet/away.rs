//! Whether the store is known to be away, and how it is found out that it is back: by a question in the background, so
//! that no call waits for what is known.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tidegate_core::{
    Instant,
    ledger::{Ask, Seen},
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{ledger::Subject, number, shared::Shared};
use crate::{
    sync::{AtomicU32, AtomicU64, Ordering},
    throttle::Key,
};

/// Questions in a row without an answer after which the store is known to be away. One may be lost on the way. In a row
/// are those of which each was sent half a deadline or more after the one before: what is under way together fails together.
const FAILURES: u32 = 2;
/// The time between two probes while calls need the store, about.
pub(super) const PROBES_APART: Duration = Duration::from_millis(100);
/// The time between two probes while none does.
const PROBES_AT_REST: Duration = Duration::from_secs(1);

/// What the latest questions say of the store, of each part of it that may be away by itself. It is left by the first
/// answer of the part, to whichever question.
pub(super) struct Away {
    parts: Box<[Part]>,
    /// Parts that are away. Written after the part's own word: who reads it looks there, too.
    away: AtomicU32,
    /// How much later than the one before a question was sent that says more.
    apart: Duration,
    /// How often one was found to be away.
    found: AtomicU64,
    wanted: Arc<Notify>,
}

/// What is known of a part.
struct Part {
    /// Questions in a row without an answer.
    failures: AtomicU32,
    /// When the latest of them was sent, in nanoseconds.
    failure: AtomicU64,
    /// When it answered last, in nanoseconds.
    heard_at: AtomicU64,
    /// When it was last found to be away, in nanoseconds.
    since: AtomicU64,
}

impl Away {
    /// Of a store of so many parts, a power of two, and with such a deadline.
    pub(super) fn new(parts: usize, deadline: Duration) -> Self {
        let part = |_| Part {
            failures: AtomicU32::new(0),
            failure: AtomicU64::new(0),
            heard_at: AtomicU64::new(0),
            since: AtomicU64::new(0),
        };
        Self {
            parts: (0..parts).map(part).collect(),
            away: AtomicU32::new(0),
            apart: deadline / 2,
            found: AtomicU64::new(0),
            wanted: Arc::default(),
        }
    }

    /// Whether the key's part of the store does not answer, as far as is known.
    #[inline]
    pub(super) fn is_known(&self, key: Key) -> bool {
        self.away.load(Ordering::Relaxed) > 0 && self.part(key).is_away()
    }

    /// Whether no part of the store answers, as far as is known.
    pub(super) fn is_whole(&self) -> bool {
        self.parts.iter().all(Part::is_away)
    }

    /// How many parts there are.
    pub(super) const fn parts(&self) -> usize {
        self.parts.len()
    }

    /// How often a part was found to be away so far.
    pub(super) fn found(&self) -> u64 {
        self.found.load(Ordering::Relaxed)
    }

    /// How many parts are away, and since when the first of them.
    pub(super) fn known(&self) -> (usize, Option<Instant>) {
        let away = || self.parts.iter().filter(|part| part.is_away());
        let since = away().map(|part| part.since.load(Ordering::Relaxed)).min();
        (away().count(), since.map(Instant::from_nanos))
    }

    /// A question about the key was answered.
    pub(super) fn answered(&self, key: Key, now: Instant) {
        let part = self.part(key);
        part.heard_at.store(now.as_nanos(), Ordering::Relaxed);
        if part.failures.load(Ordering::Relaxed) > 0 && part.failures.swap(0, Ordering::Relaxed) >= FAILURES {
            self.away.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A question about the key, sent at `sent_at`, was not answered. One that was sent before the latest answer says nothing,
    /// and one that was sent together with another says nothing that this one did not.
    pub(super) fn failed(&self, key: Key, sent_at: Instant, now: Instant) {
        let part = self.part(key);
        if sent_at.as_nanos() < part.heard_at.load(Ordering::Relaxed) {
            return;
        }
        let before = part.failure.load(Ordering::Relaxed);
        let says_more = before == 0 || sent_at >= Instant::from_nanos(before) + self.apart;
        let (relaxed, sent) = (Ordering::Relaxed, sent_at.as_nanos());
        if !says_more || part.failure.compare_exchange(before, sent, relaxed, relaxed).is_err() {
            return;
        }
        if !part.is_away() {
            part.since.store(now.as_nanos(), Ordering::Relaxed);
        }
        // It stops where it says enough, so that it never comes round.
        let one_more = |failures: u32| (failures < FAILURES).then_some(failures + 1);
        let before = part.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        if before == Ok(FAILURES - 1) {
            self.away.fetch_add(1, Ordering::Relaxed);
            self.found.fetch_add(1, Ordering::Relaxed);
            self.wanted.notify_one();
        }
    }

    /// A call was decided without the store: it is worth another probe soon.
    pub(super) fn is_wanted(&self) {
        if self.away.load(Ordering::Relaxed) > 0 {
            self.wanted.notify_one();
        }
    }

    #[inline]
    fn part(&self, key: Key) -> &Part {
        &self.parts[key.bits() as usize & (self.parts.len() - 1)]
    }
}

impl Part {
    #[inline]
    fn is_away(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES
    }
}

/// Probes each part of the store that is away, one question at a time, as long as the throttle lives.
pub(super) async fn probe(shared: Weak<Shared>) {
    let Some(wanted) = shared.upgrade().map(|shared| Arc::clone(&shared.away.wanted)) else { return };
    loop {
        wanted.notified().await;
        loop {
            let Some(this) = shared.upgrade() else { return };
            this.probe().await;
            if this.away.known().0 == 0 {
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
    /// Asks the parts that are away for nothing. It is a question like any other all the same: a store that can be read and
    /// not written to is away.
    async fn probe(&self) {
        for part in 0..self.away.parts.len() {
            // A key that nobody has, but for a limit without one.
            let key = Key::from_bits(part as u128);
            if !self.away.is_known(key) {
                continue;
            }
            let rule = self.shards[0].0.lock().rule;
            let (node, seq, seen) = (self.node, number::next(), Seen::default());
            let ask = Ask { node, seq, least: 0, need: 0, want: 0, back: 0, of: 0, debt: 0, seen };
            self.put(Subject { limit: &self.name, key }, &rule, &ask).await;
        }
    }
}
