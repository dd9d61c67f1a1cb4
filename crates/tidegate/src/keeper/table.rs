//! The slots by key: readers never wait, writers take turns, and there are never more than the bound.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use tidegate_core::Instant;

use super::{Fetch, slot::Slot};
use crate::sync::Mutex;

/// Keys in a bucket, on average, when the table is full.
const LOAD: usize = 2;

/// Keys with a value of which the one not used for longest makes room.
const SAMPLE: usize = 16;

/// The most keys that are looked at to find one to go.
const LOOKED_AT: usize = 256;

/// The few slots whose hashes end alike. Never changed, only replaced.
type Bucket<F> = Vec<(u64, Arc<Slot<F>>)>;

pub(super) struct Table<F: Fetch> {
    buckets: Box<[ArcSwapOption<Bucket<F>>]>,
    /// All slots, for whoever adds or removes one.
    ring: Mutex<Ring<F>>,
    most: usize,
}

struct Ring<F: Fetch> {
    slots: Vec<Arc<Slot<F>>>,
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

impl<F: Fetch> Table<F> {
    pub(super) fn new(most: usize) -> Self {
        let buckets = most.div_ceil(LOAD).next_power_of_two();
        Self {
            buckets: (0..buckets).map(|_| ArcSwapOption::empty()).collect(),
            ring: Mutex::new(Ring { slots: Vec::new(), hand: 0, newest: 0 }),
            most,
        }
    }

    #[inline]
    fn bucket(&self, hash: u64) -> &ArcSwapOption<Bucket<F>> {
        // Their number is a power of two.
        &self.buckets[hash as usize & (self.buckets.len() - 1)]
    }

    /// Looks at the slot of a key, without counting a reference to it.
    #[inline]
    pub(super) fn with<R>(
        &self,
        hash: u64,
        key: &F::Key,
        look: impl FnOnce(&Arc<Slot<F>>) -> R,
    ) -> Option<R> {
        let bucket = self.bucket(hash).load();
        let same = |(other, slot): &&(u64, Arc<Slot<F>>)| *other == hash && slot.key == *key;
        bucket.as_ref()?.iter().find(same).map(|(_, slot)| look(slot))
    }

    pub(super) fn find(&self, hash: u64, key: &F::Key) -> Option<Arc<Slot<F>>> {
        self.with(hash, key, Arc::clone)
    }

    /// Makes a slot for a key that has none. When the table is full, a key that is missed least makes room.
    pub(super) fn add(&self, hash: u64, key: &F::Key, now: Instant) -> Added<F> {
        let mut ring = self.ring.lock();
        if let Some(slot) = self.find(hash, key) {
            return Added::Slot(slot, None);
        }
        let slot = Arc::new(Slot::new(hash, key.clone(), now));
        let mut evicted = None;
        if ring.slots.len() < self.most {
            ring.newest = ring.slots.len();
            ring.slots.push(Arc::clone(&slot));
        } else {
            let Some(at) = least_missed(&mut ring, now) else { return Added::Full };
            // In its place, so that a flood of unknown keys drives out itself.
            let old = std::mem::replace(&mut ring.slots[at], Arc::clone(&slot));
            ring.newest = at;
            self.change(old.hash, |bucket| bucket.retain(|(_, other)| !Arc::ptr_eq(other, &old)));
            evicted = Some(old);
        }
        self.change(hash, |bucket| bucket.push((hash, Arc::clone(&slot))));
        Added::Slot(slot, evicted)
    }

    /// Takes the slot at `at` out, unless a fetch of it has begun meanwhile.
    fn take(&self, ring: &mut Ring<F>, at: usize) -> Option<Arc<Slot<F>>> {
        if !ring.slots[at].evict() {
            return None;
        }
        let slot = ring.slots.swap_remove(at);
        self.change(slot.hash, |bucket| bucket.retain(|(_, other)| !Arc::ptr_eq(other, &slot)));
        Some(slot)
    }

    /// Replaces a bucket. Only under the ring's lock.
    fn change(&self, hash: u64, change: impl FnOnce(&mut Bucket<F>)) {
        let bucket = self.bucket(hash);
        let mut slots = bucket.load().as_deref().cloned().unwrap_or_default();
        change(&mut slots);
        bucket.store((!slots.is_empty()).then(|| Arc::new(slots)));
    }

    /// Takes out all that were not used for `idle`.
    pub(super) fn evict_idle(&self, now: Instant, idle: Duration) -> Vec<Arc<Slot<F>>> {
        let mut ring = self.ring.lock();
        let mut evicted = Vec::new();
        for at in (0..ring.slots.len()).rev() {
            if u64::from(ring.slots[at].unused_for(now)) > idle.as_secs() {
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
        free.max_by_key(|at| ring.slots[*at].unused_for(now))
    };
    let newest = ring.newest;
    let mut near = (0..LOOKED_AT.min(count)).map(|step| (newest + count - step) % count);
    let unknown = longest_unused(&mut near.by_ref().filter(|at| ring.slots[*at].shown().is_none()));
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
