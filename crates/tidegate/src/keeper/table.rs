//! The slots by key: readers never wait, writers take turns, and there are never more than the bound.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use tidegate_core::Instant;

use super::{
    Fetch,
    places::{Found, Place, Places, Shown},
    slot::Slot,
};
use crate::sync::{
    AtomicU32, Mutex,
    Ordering::{Acquire, Release},
};

/// Keys with a value of which the one not used for longest makes room.
const SAMPLE: usize = 16;

/// The most keys that are looked at to find one to go.
const LOOKED_AT: usize = 256;

pub(super) struct Table<F: Fetch> {
    places: Arc<Places<F::Key, F::Value>>,
    /// Whose the places are, for whoever must look closer than at what is shown.
    owners: Box<[ArcSwapOption<Slot<F>>]>,
    /// All slots, for whoever adds or removes one.
    ring: Mutex<Ring<F>>,
    /// How many have no place.
    homeless: AtomicU32,
    most: usize,
}

struct Ring<F: Fetch> {
    slots: Vec<Arc<Slot<F>>>,
    /// Those without a place: nearly always none.
    homeless: Vec<Arc<Slot<F>>>,
    /// Where the next one to go is looked for among those that have a value.
    hand: usize,
    /// Where the last one was put: likely near others that nobody knows.
    newest: usize,
}

/// What came of asking for a place.
pub(super) enum Added<F: Fetch> {
    /// The key's slot, and the one that went for it.
    Slot(Arc<Slot<F>>, Option<Arc<Slot<F>>>),
    /// All that were looked at are being fetched.
    Full,
}

impl<F: Fetch> Ring<F> {
    fn homeless(&self, hash: u64, key: &F::Key) -> Option<&Arc<Slot<F>>> {
        self.homeless.iter().find(|slot| slot.is_of(hash, key))
    }
}

impl<F: Fetch> Table<F> {
    pub(super) fn new(most: usize) -> Self {
        let places = Places::new(most);
        Self {
            owners: (0..places.count()).map(|_| ArcSwapOption::empty()).collect(),
            places: Arc::new(places),
            ring: Mutex::new(Ring { slots: Vec::new(), homeless: Vec::new(), hand: 0, newest: 0 }),
            homeless: AtomicU32::new(0),
            most,
        }
    }

    /// The item of a key that is not due and has a value, and notes that it was asked for; without a lock.
    #[inline(always)]
    pub(super) fn fresh(&self, hash: u64, key: &F::Key, now: Instant) -> Option<Shown<F::Key, F::Value>> {
        self.places.fresh(hash, key, now)
    }

    /// What is shown for a key, and where, without a lock.
    pub(super) fn shown(&self, hash: u64, key: &F::Key) -> Option<Found<F::Key, F::Value>> {
        self.places.find(hash, key)
    }

    /// Notes that the key of a place was asked for.
    pub(super) fn touch(&self, place: Place, now: Instant) {
        self.places.used(place).touch(now);
    }

    /// The slot of a key, without a lock.
    pub(super) fn find(&self, hash: u64, key: &F::Key) -> Option<Arc<Slot<F>>> {
        let placed = self.placed(hash, key);
        if placed.is_some() {
            return placed;
        }
        if self.homeless.load(Acquire) == 0 {
            return None;
        }
        self.ring.lock().homeless(hash, key).cloned()
    }

    fn placed(&self, hash: u64, key: &F::Key) -> Option<Arc<Slot<F>>> {
        self.places.candidates(hash).find_map(|place| {
            let owner = self.owners[place.number()].load();
            owner.as_ref().filter(|slot| slot.is_of(hash, key)).cloned()
        })
    }

    /// Makes a slot for a key that has none. When the table is full, a key that is missed least makes room.
    pub(super) fn add(&self, hash: u64, key: &F::Key, now: Instant) -> Added<F> {
        let mut ring = self.ring.lock();
        if let Some(slot) = self.placed(hash, key) {
            return Added::Slot(slot, None);
        }
        if let Some(slot) = ring.homeless(hash, key) {
            return Added::Slot(Arc::clone(slot), None);
        }
        let mut evicted = None;
        let mut at = ring.slots.len();
        if at == self.most {
            let Some(least_missed) = least_missed(&mut ring, now) else { return Added::Full };
            let old = Arc::clone(&ring.slots[least_missed]);
            self.leave(&mut ring, &old);
            (at, evicted) = (least_missed, Some(old));
        }
        let slot = Arc::new(Slot::new(&self.places, hash, key.clone(), now));
        match slot.place {
            Some(place) => {
                self.owners[place.number()].store(Some(Arc::clone(&slot)));
                self.places.take(place, hash);
            }
            None => {
                ring.homeless.push(Arc::clone(&slot));
                self.homeless.store(ring.homeless.len() as u32, Release);
            }
        }
        // In the place of the one that went, so that a flood of unknown keys drives out itself.
        match ring.slots.get_mut(at) {
            Some(old) => *old = Arc::clone(&slot),
            None => ring.slots.push(Arc::clone(&slot)),
        }
        ring.newest = at;
        Added::Slot(slot, evicted)
    }

    /// Takes the slot at `at` out, unless a fetch of it has begun meanwhile.
    fn take(&self, ring: &mut Ring<F>, at: usize) -> Option<Arc<Slot<F>>> {
        if !ring.slots[at].evict() {
            return None;
        }
        let slot = ring.slots.swap_remove(at);
        self.leave(ring, &slot);
        Some(slot)
    }

    /// Gives the place of a slot back that was evicted.
    fn leave(&self, ring: &mut Ring<F>, slot: &Arc<Slot<F>>) {
        match slot.place {
            Some(place) => {
                self.places.give_back(place);
                self.owners[place.number()].store(None);
            }
            None => {
                ring.homeless.retain(|other| !Arc::ptr_eq(other, slot));
                self.homeless.store(ring.homeless.len() as u32, Release);
            }
        }
    }

    /// Takes out all that were not used for `idle`.
    pub(super) fn evict_idle(&self, now: Instant, idle: Duration) -> Vec<Arc<Slot<F>>> {
        let mut ring = self.ring.lock();
        let mut evicted = Vec::new();
        for at in (0..ring.slots.len()).rev() {
            if u64::from(ring.slots[at].used().unused_for(now)) > idle.as_secs() {
                evicted.extend(self.take(&mut ring, at));
            }
        }
        evicted
    }

    pub(super) fn len(&self) -> usize {
        self.ring.lock().slots.len()
    }
}

/// Finds one to go, and marks it: one without a value, near the newest, where a flood of unknown keys is; else, of the
/// next few, the one that was not used for longest. One that is being fetched stays.
fn least_missed<F: Fetch>(ring: &mut Ring<F>, now: Instant) -> Option<usize> {
    let count = ring.slots.len();
    let longest_unused = |places: &mut dyn Iterator<Item = usize>| {
        let free = places.filter(|at| !ring.slots[*at].is_fetching());
        free.max_by_key(|at| ring.slots[*at].used().unused_for(now))
    };
    let newest = ring.newest;
    let mut near = (0..LOOKED_AT.min(count)).map(|step| (newest + count - step) % count);
    let unknown = longest_unused(&mut near.by_ref().filter(|at| !ring.slots[*at].is_known()));
    let hand = ring.hand;
    let known =
        || longest_unused(&mut (0..LOOKED_AT.min(count)).map(|step| (hand + step) % count).take(SAMPLE));
    let any = || longest_unused(&mut (0..LOOKED_AT.min(count)).map(|step| (hand + step) % count));
    let found = unknown.or_else(known).or_else(any).filter(|at| ring.slots[*at].evict());
    if unknown.is_none() {
        ring.hand = (ring.hand + SAMPLE) % count;
    }
    found
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::keeper::tests::Nothing;

    #[test]
    fn keys_that_find_no_place_are_kept_and_go_like_all_others() {
        const HASH: u64 = 7;
        let table = Table::<Nothing>::new(20);
        for key in 0..20 {
            assert!(matches!(table.add(HASH, &key, Instant::EPOCH), Added::Slot(_, None)));
        }
        assert!(table.homeless.load(Acquire) >= 12, "two lines have eight places");
        for key in 0..20 {
            let slot = table.find(HASH, &key).unwrap();
            assert_eq!(slot.key, key);
            let Added::Slot(again, None) = table.add(HASH, &key, Instant::EPOCH) else {
                panic!("it is there")
            };
            assert!(Arc::ptr_eq(&slot, &again));
        }
        let Added::Slot(_, Some(gone)) = table.add(HASH, &20, Instant::EPOCH) else {
            panic!("one makes room")
        };
        assert!(table.find(HASH, &gone.key).is_none());
        let later = Instant::EPOCH + Duration::from_secs(60);
        assert_eq!(table.evict_idle(later, Duration::from_secs(1)).len(), 20);
        assert_eq!((table.len(), table.homeless.load(Acquire)), (0, 0));
    }
}
