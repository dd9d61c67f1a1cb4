//! The slot of one key: the decision, behind a lock, and what is shown of it to readers without one.

use std::sync::Arc;

use tidegate_core::{Instant, keep};

use super::{
    Fault, Fetch, Why,
    places::{self, Place, Places, Used},
};
use crate::{flight::Flight, sync::Mutex};

/// What is held of a key.
pub(super) type Item<F> = places::Item<<F as Fetch>::Key, <F as Fetch>::Value>;

/// How a fetch ended, for all who waited.
pub(super) enum End<F: Fetch> {
    Taken(Arc<Item<F>>),
    Failed { why: Why<F::Error>, not_before: Instant },
    Unwanted,
}

/// Why a key fails, and whose fault it is.
pub(super) type Blame<E> = (Why<E>, Fault);
pub(super) type KeepSlot<F> = keep::Slot<Arc<Item<F>>, Blame<<F as Fetch>::Error>>;

pub(super) struct Slot<F: Fetch> {
    pub(super) hash: u64,
    pub(super) key: F::Key,
    /// Where it is shown; nowhere when all its places were taken.
    pub(super) place: Option<Place>,
    places: Arc<Places<F::Key, F::Value>>,
    /// When it was last asked for, if it has no place.
    used: Used,
    state: Mutex<State<F>>,
}

pub(super) struct State<F: Fetch> {
    pub(super) keep: KeepSlot<F>,
    pub(super) flight: Option<Flight<End<F>>>,
    /// It is no longer in the table; whoever still has it looks again.
    pub(super) evicted: bool,
    /// What readers see.
    shown: Option<Arc<Item<F>>>,
}

impl<F: Fetch> Slot<F> {
    /// A slot of which nothing is known, with the place that is free for it.
    pub(super) fn new(places: &Arc<Places<F::Key, F::Value>>, hash: u64, key: F::Key, now: Instant) -> Self {
        let slot = Self {
            hash,
            key,
            place: places.free_for(hash),
            places: Arc::clone(places),
            used: Used::default(),
            state: Mutex::new(State {
                keep: KeepSlot::<F>::default(),
                flight: None,
                evicted: false,
                shown: None,
            }),
        };
        slot.used().touch(now);
        slot
    }

    pub(super) fn is_of(&self, hash: u64, key: &F::Key) -> bool {
        self.hash == hash && self.key == *key
    }

    /// The note of when it was last asked for.
    pub(super) fn used(&self) -> &Used {
        self.place.map_or(&self.used, |place| self.places.used(place))
    }

    /// Whether a value is held.
    pub(super) fn is_known(&self) -> bool {
        self.held().is_some_and(|item| item.value.is_some())
    }

    pub(super) fn held(&self) -> Option<Arc<Item<F>>> {
        self.state.lock().keep.held().map(|held| Arc::clone(&held.value))
    }

    /// Decides under the lock, and shows what is held afterwards.
    pub(super) fn change<R>(&self, decide: impl FnOnce(&mut KeepSlot<F>) -> R) -> R {
        self.with(|state| decide(&mut state.keep))
    }

    pub(super) fn with<R>(&self, decide: impl FnOnce(&mut State<F>) -> R) -> R {
        let mut state = self.state.lock();
        let decided = decide(&mut state);
        let held = state.keep.held().map(|held| &held.value);
        let same = match (held, &state.shown) {
            (Some(held), Some(shown)) => Arc::ptr_eq(held, shown),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !same {
            // Of an evicted slot the place is another's by now.
            if let Some(place) = self.place.filter(|_| !state.evicted) {
                self.places.show(place, held);
            }
            state.shown = held.cloned();
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
