//! Where readers find what is held, without a lock and with one counted look: places by hash, four to a cache line.
//!
//! A key has two lines it may stand in. The places only show: a key that found none is served by its slot.

use std::{
    any::Any,
    sync::{Arc, Weak},
};

use arc_swap::{ArcSwap, Guard};
use tidegate_core::{Instant, Term};

use super::{Fetch, slot::Slot};
use crate::sync::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// Places in a line.
const WAYS: usize = 4;

/// Places for each key that there may be: with half of them taken, a key in ten thousand finds none.
const ROOM: usize = 2;

/// What readers compare a key with, and note its use in.
pub(super) struct Name<F: Fetch> {
    pub(super) hash: u64,
    pub(super) key: F::Key,
    /// When it was last asked for, in seconds, roughly.
    used: AtomicU32,
    pub(super) slot: Weak<Slot<F>>,
}

/// 2³⁰ ns, about a second: what the use of a key is noted in.
fn seconds(now: Instant) -> u32 {
    (now.as_nanos() >> 30) as u32
}

impl<F: Fetch> Name<F> {
    pub(super) fn new(hash: u64, key: F::Key, now: Instant, slot: Weak<Slot<F>>) -> Self {
        Self { hash, key, used: AtomicU32::new(seconds(now)), slot }
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
}

/// A value as it is shown to readers; `None`: there is nothing, or nothing is known.
pub(super) struct Item<V> {
    /// The key's [`Name`]; its type is left out, so that an answer does not carry the type of what fetches.
    name: Arc<dyn Any + Send + Sync>,
    pub(super) value: Option<V>,
    pub(super) term: Term,
    pub(super) version: u64,
}

const DEAD: Term =
    Term { from: Instant::EPOCH, due_at: Instant::EPOCH, stale_at: Instant::EPOCH, dead_at: Instant::EPOCH };

impl<V> Item<V> {
    pub(super) fn new<F: Fetch>(name: &Arc<Name<F>>, value: Option<V>, term: Term, version: u64) -> Self {
        let name: Arc<dyn Any + Send + Sync> = Arc::<Name<F>>::clone(name);
        Self { name, value, term, version }
    }

    /// Of a key of which nothing is known.
    fn unknown<F: Fetch>(name: &Arc<Name<F>>) -> Self {
        Self::new(name, None, DEAD, 0)
    }

    #[inline]
    pub(super) fn name<F: Fetch>(&self) -> Option<&Name<F>> {
        self.name.downcast_ref()
    }
}

pub(super) type Shown<V> = Guard<Arc<Item<V>>>;

/// A cache line of places, and what they show.
#[repr(align(64))]
struct Line<V> {
    /// The hashes of the keys, with the lowest bit set; 0: the place is free.
    tags: [AtomicU64; WAYS],
    shown: [ArcSwap<Item<V>>; WAYS],
}

/// A place that a key was given.
#[derive(Clone, Copy)]
pub(super) struct Place {
    line: usize,
    way: usize,
}

pub(super) struct Places<V> {
    lines: Box<[Line<V>]>,
    /// What a place shows that is free: no key's item.
    vacant: Arc<Item<V>>,
}

const fn tag(hash: u64) -> u64 {
    hash | 1
}

impl<V> Places<V> {
    /// Places for so many keys.
    pub(super) fn new(most: usize) -> Self {
        let vacant = Arc::new(Item { name: Arc::new(()), value: None, term: DEAD, version: 0 });
        let line = || Line {
            tags: std::array::from_fn(|_| AtomicU64::new(0)),
            shown: std::array::from_fn(|_| ArcSwap::new(Arc::clone(&vacant))),
        };
        Self { lines: (0..(most * ROOM).div_ceil(WAYS)).map(|_| line()).collect(), vacant }
    }

    /// One of the two lines a key may stand in.
    #[inline]
    fn line(&self, hash: u64) -> usize {
        // A hash times their number, from the top: an even spread without a division.
        ((u128::from(hash) * self.lines.len() as u128) >> 64) as usize
    }

    #[inline]
    fn other_line(&self, hash: u64) -> usize {
        self.line(hash.rotate_left(32))
    }

    /// What is shown for a key.
    #[inline]
    pub(super) fn find<F: Fetch<Value = V>>(&self, hash: u64, key: &F::Key) -> Option<Shown<V>> {
        self.find_in::<F>(self.line(hash), hash, key).or_else(|| self.find_in_other::<F>(hash, key))
    }

    #[inline(never)]
    fn find_in_other<F: Fetch<Value = V>>(&self, hash: u64, key: &F::Key) -> Option<Shown<V>> {
        self.find_in::<F>(self.other_line(hash), hash, key)
    }

    #[inline]
    fn find_in<F: Fetch<Value = V>>(&self, line: usize, hash: u64, key: &F::Key) -> Option<Shown<V>> {
        let line = self.lines.get(line)?;
        for way in 0..WAYS {
            if line.tags[way].load(Acquire) == tag(hash) {
                let shown = line.shown[way].load();
                if shown.name::<F>().is_some_and(|name| name.key == *key) {
                    return Some(shown);
                }
            }
        }
        None
    }

    /// Finds a free place for a key. Whoever calls it takes turns with others who take or free one.
    pub(super) fn free_for(&self, hash: u64) -> Option<Place> {
        let (first, second) = (self.line(hash), self.other_line(hash));
        let taken = |line: usize| self.lines[line].tags.iter().filter(|tag| tag.load(Relaxed) != 0).count();
        // In the first one, if it is not nearly full: readers look there first.
        let line = if taken(first) + 1 < WAYS || taken(first) <= taken(second) { first } else { second };
        let way = (0..WAYS).find(|way| self.lines[line].tags[*way].load(Relaxed) == 0)?;
        Some(Place { line, way })
    }

    /// Takes a place for a key, of which nothing is known.
    pub(super) fn take<F: Fetch<Value = V>>(&self, Place { line, way }: Place, name: &Arc<Name<F>>) {
        self.lines[line].shown[way].store(Arc::new(Item::unknown(name)));
        self.lines[line].tags[way].store(tag(name.hash), Release);
    }

    pub(super) fn give_back(&self, Place { line, way }: Place) {
        self.lines[line].tags[way].store(0, Relaxed);
        self.lines[line].shown[way].store(Arc::clone(&self.vacant));
    }

    pub(super) fn show<F: Fetch<Value = V>>(
        &self,
        Place { line, way }: Place,
        name: &Arc<Name<F>>,
        item: Option<&Arc<Item<V>>>,
    ) {
        let item = item.map_or_else(|| Arc::new(Item::unknown(name)), Arc::clone);
        self.lines[line].shown[way].store(item);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::keeper::tests::Nothing;

    fn name(hash: u64, key: u64) -> Arc<Name<Nothing>> {
        Arc::new(Name::new(hash, key, Instant::EPOCH, Weak::new()))
    }

    #[test]
    fn as_many_keys_as_may_be_nearly_all_find_a_place_and_are_found_there() {
        let mut random = fastrand::Rng::with_seed(7);
        let places = Places::new(10_000);
        let keys: Vec<u64> = (0..10_000).map(|_| random.u64(..)).collect();
        let placed = |hash: &&u64| {
            places.free_for(**hash).inspect(|place| places.take(*place, &name(**hash, **hash))).is_some()
        };
        let placed: Vec<_> = keys.iter().filter(placed).collect();
        assert!(placed.len() >= 9_990, "{}", placed.len());
        for key in placed {
            let shown = places.find::<Nothing>(*key, key).unwrap();
            assert_eq!(shown.name::<Nothing>().unwrap().key, *key);
        }
    }

    #[test]
    fn keys_of_one_hash_are_told_apart_and_the_ninth_has_no_place() {
        let places = Places::new(100);
        let hash = 3 << 62 | 7;
        for key in 0..8 {
            let place = places.free_for(hash).unwrap();
            places.take(place, &name(hash, key));
            let item = Item::new(&name(hash, key), Some(key), DEAD, 0);
            places.show(place, &name(hash, key), Some(&Arc::new(item)));
        }
        assert!(places.free_for(hash).is_none());
        for key in 0..8 {
            assert_eq!(places.find::<Nothing>(hash, &key).unwrap().value, Some(key));
        }
        assert!(places.find::<Nothing>(hash, &8).is_none());
    }

    #[test]
    fn a_place_that_was_given_back_shows_nothing_and_is_taken_again() {
        let places = Places::new(1);
        let place = places.free_for(7).unwrap();
        places.take(place, &name(7, 1));
        places.give_back(place);
        assert!(places.find::<Nothing>(7, &1).is_none());
        places.take(places.free_for(9).unwrap(), &name(9, 2));
        assert!(places.find::<Nothing>(9, &2).is_some());
    }
}
