//! The slot of one key: what readers see without a lock, and the decision behind one.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};
use tidegate_core::{Instant, Term, keep};

use super::{Answer, Fault, Fetch, Kept, Why};
use crate::{
    flight::Flight,
    sync::{AtomicU32, Mutex, Ordering::Relaxed},
};

/// A value as it is shown to readers; `None`: there is nothing.
pub(super) struct Item<V> {
    pub(super) value: Option<V>,
    pub(super) term: Term,
    pub(super) version: u64,
}

/// How a fetch ended, for all who waited.
pub(super) enum End<F: Fetch> {
    Taken(Arc<Item<F::Value>>),
    Failed { why: Why<F::Error>, not_before: Instant },
    Unwanted,
}

impl<F: Fetch> Clone for End<F> {
    fn clone(&self) -> Self {
        match self {
            Self::Taken(item) => Self::Taken(Arc::clone(item)),
            Self::Failed { why, not_before } => Self::Failed { why: why.clone(), not_before: *not_before },
            Self::Unwanted => Self::Unwanted,
        }
    }
}

/// Why a key fails, and whose fault it is.
pub(super) type Blame<E> = (Why<E>, Fault);
pub(super) type KeepSlot<F> = keep::Slot<Arc<Item<<F as Fetch>::Value>>, Blame<<F as Fetch>::Error>>;

pub(super) struct Slot<F: Fetch> {
    pub(super) hash: u64,
    pub(super) key: F::Key,
    /// What is held, for readers without the lock.
    shown: ArcSwapOption<Item<F::Value>>,
    /// When it was last asked for, in seconds, roughly.
    used: AtomicU32,
    state: Mutex<State<F>>,
}

pub(super) struct State<F: Fetch> {
    pub(super) keep: KeepSlot<F>,
    pub(super) flight: Option<Flight<End<F>>>,
    /// It is no longer in the table; whoever still has it looks again.
    pub(super) evicted: bool,
}

/// 2³⁰ ns, about a second: what the use of a key is noted in.
fn seconds(now: Instant) -> u32 {
    (now.as_nanos() >> 30) as u32
}

impl<F: Fetch> Slot<F> {
    pub(super) fn new(hash: u64, key: F::Key, now: Instant) -> Self {
        Self {
            hash,
            key,
            shown: ArcSwapOption::empty(),
            used: AtomicU32::new(seconds(now)),
            state: Mutex::new(State { keep: KeepSlot::<F>::default(), flight: None, evicted: false }),
        }
    }

    /// The answer, if what is shown is fresh.
    #[inline]
    pub(super) fn fresh(&self, now: Instant) -> Option<Answer<F::Value, F::Error>> {
        let shown = self.shown.load();
        let item = shown.as_ref()?;
        if now >= item.term.due_at {
            return None;
        }
        self.touch(now);
        let age = item.term.age(now);
        Some(Kept::new(shown).map_or(Answer::Nothing { age }, Answer::Fresh))
    }

    /// Notes that it was asked for. Written once a second at most, so that readers share the line.
    #[inline]
    pub(super) fn touch(&self, now: Instant) {
        let now = seconds(now);
        if self.used.load(Relaxed) != now {
            self.used.store(now, Relaxed);
        }
    }

    /// Seconds since it was asked for, roughly.
    pub(super) fn unused_for(&self, now: Instant) -> u32 {
        seconds(now).saturating_sub(self.used.load(Relaxed))
    }

    pub(super) fn shown(&self) -> Option<Kept<F::Value>> {
        Kept::new(self.shown.load())
    }

    /// Decides under the lock, and shows what is held afterwards.
    pub(super) fn change<R>(&self, decide: impl FnOnce(&mut KeepSlot<F>) -> R) -> R {
        self.with(|state| decide(&mut state.keep))
    }

    pub(super) fn with<R>(&self, decide: impl FnOnce(&mut State<F>) -> R) -> R {
        let mut state = self.state.lock();
        let decided = decide(&mut state);
        let held = state.keep.held().map(|held| &held.value);
        let shown: Guard<_> = self.shown.load();
        let same = match (held, shown.as_ref()) {
            (Some(held), Some(shown)) => Arc::ptr_eq(held, shown),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !same {
            self.shown.store(held.cloned());
        }
        decided
    }

    pub(super) fn is_fetching(&self) -> bool {
        self.state.lock().keep.is_fetching()
    }

    /// Marks it as no longer the key's, unless it is being fetched: two fetches of one key must never be out.
    pub(super) fn evict(&self) -> bool {
        let mut state = self.state.lock();
        if !state.keep.is_fetching() {
            state.evicted = true;
        }
        state.evicted
    }

    pub(super) fn clear(&self) {
        self.with(|state| {
            state.keep.clear();
            state.flight = None;
        });
    }
}
