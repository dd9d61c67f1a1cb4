//! Where readers find what is held, without a lock: places by hash, four to a cache line.
//!
//! A look at a key is two lines of memory, one after the other: the line of its place, and its item, which begins with
//! what a reader needs. A key has two lines it may stand in. The places only show: a key that found none is served by
//! its slot.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};
use tidegate_core::{Instant, Term};

use crate::sync::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

/// Places in a line.
const WAYS: usize = 4;

/// Places for each key that there may be: with half of them taken, a key in ten thousand finds none.
const ROOM: usize = 2;

/// When a key was last asked for, in seconds, roughly.
#[derive(Default)]
pub(super) struct Used(AtomicU32);

/// 2³⁰ ns, about a second: what the use of a key is noted in.
fn seconds(now: Instant) -> u32 {
    (now.as_nanos() >> 30) as u32
}

impl Used {
    /// Notes that it was asked for. Written once a second at most, so that readers share the line.
    #[inline]
    pub(super) fn touch(&self, now: Instant) {
        let now = seconds(now);
        if self.0.load(Relaxed) != now {
            self.0.store(now, Relaxed);
        }
    }

    /// Seconds since it was asked for, roughly.
    pub(super) fn unused_for(&self, now: Instant) -> u32 {
        seconds(now).saturating_sub(self.0.load(Relaxed))
    }
}

/// What is held of a key, as it is shown to readers. What they compare stands first, and as near as can be.
#[repr(C)]
pub(super) struct Item<K, V> {
    pub(super) key: K,
    pub(super) due_at: Instant,
    /// `None`: there is nothing.
    pub(super) value: Option<V>,
    from: Instant,
    pub(super) version: u64,
}

impl<K, V> Item<K, V> {
    pub(super) fn new(key: K, value: Option<V>, term: Term, version: u64) -> Self {
        Self { key, due_at: term.due_at, value, from: term.from, version }
    }

    /// Whether it is of this key, and has a value that is not due.
    #[inline]
    fn is_fresh(&self, key: &K, now: Instant) -> bool
    where
        K: Eq,
    {
        now < self.due_at && self.value.is_some() && self.key == *key
    }

    /// How old it is.
    pub(super) fn age(&self, now: Instant) -> std::time::Duration {
        now.since(self.from)
    }
}

/// An item, if the place shows one.
pub(super) type Shown<K, V> = Guard<Option<Arc<Item<K, V>>>>;

/// What was found for a key, and where.
pub(super) type Found<K, V> = (Shown<K, V>, Place);

/// A cache line of places, and what they show.
#[repr(align(64))]
struct Line<K, V> {
    /// A part of the keys' hashes, with the lowest bit set; 0: the place is free.
    tags: [AtomicU32; WAYS],
    used: [Used; WAYS],
    shown: [ArcSwapOption<Item<K, V>>; WAYS],
}

impl<K, V> Default for Line<K, V> {
    fn default() -> Self {
        Self {
            tags: std::array::from_fn(|_| AtomicU32::new(0)),
            used: Default::default(),
            shown: std::array::from_fn(|_| ArcSwapOption::empty()),
        }
    }
}

impl<K: Eq, V> Line<K, V> {
    fn find(&self, tag: u32, key: &K) -> Option<(usize, Shown<K, V>)> {
        (0..WAYS).filter(|way| self.tags[*way].load(Acquire) == tag).find_map(|way| {
            let shown = self.shown[way].load();
            shown.as_ref().is_some_and(|item| item.key == *key).then_some((way, shown))
        })
    }
}

/// A place that a key may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    line: usize,
    way: usize,
}

impl Place {
    /// Counts the places.
    pub(super) const fn number(self) -> usize {
        self.line * WAYS + self.way
    }
}

pub(super) struct Places<K, V> {
    lines: Box<[Line<K, V>]>,
}

const fn tag(hash: u64) -> u32 {
    hash as u32 | 1
}

impl<K: Eq, V> Places<K, V> {
    /// Places for so many keys.
    pub(super) fn new(most: usize) -> Self {
        Self { lines: (0..(most * ROOM).div_ceil(WAYS)).map(|_| Line::default()).collect() }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lines.len() * WAYS
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

    /// The item of a key that is not due and has a value, and notes that it was asked for.
    #[inline(always)]
    pub(super) fn fresh(&self, hash: u64, key: &K, now: Instant) -> Option<Shown<K, V>> {
        let line = self.lines.get(self.line(hash))?;
        for way in 0..WAYS {
            if line.tags[way].load(Acquire) == tag(hash) {
                let shown = line.shown[way].load();
                if shown.as_ref().is_some_and(|item| item.is_fresh(key, now)) {
                    line.used[way].touch(now);
                    return Some(shown);
                }
            }
        }
        self.fresh_in_other(hash, key, now)
    }

    #[cold]
    #[inline(never)]
    fn fresh_in_other(&self, hash: u64, key: &K, now: Instant) -> Option<Shown<K, V>> {
        let line = self.lines.get(self.other_line(hash))?;
        let (way, shown) = line.find(tag(hash), key)?;
        shown.as_ref().filter(|item| item.is_fresh(key, now))?;
        line.used[way].touch(now);
        Some(shown)
    }

    /// What is shown for a key, and where; nothing is shown of a key of which nothing is known.
    pub(super) fn find(&self, hash: u64, key: &K) -> Option<Found<K, V>> {
        [self.line(hash), self.other_line(hash)].into_iter().find_map(|line| {
            let (way, shown) = self.lines.get(line)?.find(tag(hash), key)?;
            Some((shown, Place { line, way }))
        })
    }

    /// The places that a key may have been given: hardly ever another than its own.
    pub(super) fn candidates(&self, hash: u64) -> impl Iterator<Item = Place> {
        let lines = [self.line(hash), self.other_line(hash)];
        let places = lines.into_iter().flat_map(|line| (0..WAYS).map(move |way| Place { line, way }));
        places.filter(move |place| self.lines[place.line].tags[place.way].load(Acquire) == tag(hash))
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
    pub(super) fn take(&self, Place { line, way }: Place, hash: u64) {
        self.lines[line].tags[way].store(tag(hash), Release);
    }

    pub(super) fn give_back(&self, place: Place) {
        self.lines[place.line].tags[place.way].store(0, Relaxed);
        self.show(place, None);
    }

    pub(super) fn show(&self, Place { line, way }: Place, item: Option<&Arc<Item<K, V>>>) {
        self.lines[line].shown[way].store(item.cloned());
    }

    /// The note of when the key of a place was last asked for.
    #[inline]
    pub(super) fn used(&self, Place { line, way }: Place) -> &Used {
        &self.lines[line].used[way]
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use tidegate_core::{Dice, Lifetime};

    use super::*;

    fn place(places: &Places<u64, u64>, hash: u64, key: u64) -> Option<Place> {
        let place = places.free_for(hash)?;
        places.take(place, hash);
        let term = Lifetime::FOR_EVER.from(Instant::EPOCH, Dice::LEAST);
        places.show(place, Some(&Arc::new(Item::new(key, Some(key), term, 0))));
        Some(place)
    }

    fn found(places: &Places<u64, u64>, hash: u64, key: u64) -> Option<u64> {
        places.find(hash, &key).and_then(|(shown, _)| shown.as_ref().and_then(|item| item.value))
    }

    #[test]
    fn as_many_keys_as_may_be_nearly_all_find_a_place_and_are_found_there() {
        let mut random = fastrand::Rng::with_seed(7);
        let places = Places::new(10_000);
        let keys: Vec<u64> = (0..10_000).map(|_| random.u64(..)).collect();
        let placed: Vec<_> = keys.iter().filter(|key| place(&places, **key, **key).is_some()).collect();
        assert!(placed.len() >= 9_990, "{}", placed.len());
        for key in placed {
            assert_eq!(found(&places, *key, *key), Some(*key));
        }
    }

    #[test]
    fn a_place_fills_no_more_than_its_part_of_a_cache_line() {
        assert_eq!(size_of::<Line<String, String>>(), 64);
    }

    #[test]
    fn keys_of_one_hash_are_told_apart_and_the_ninth_has_no_place() {
        let places = Places::new(100);
        let hash = 3 << 62 | 7;
        for key in 0..8 {
            let place = place(&places, hash, key).unwrap();
            assert!(places.candidates(hash).any(|candidate| candidate == place));
        }
        assert!(places.free_for(hash).is_none());
        assert_eq!(places.candidates(hash).count(), 8);
        for key in 0..8 {
            assert_eq!(found(&places, hash, key), Some(key));
        }
        assert!(places.find(hash, &8).is_none());
    }

    #[test]
    fn a_place_that_was_given_back_shows_nothing_and_is_taken_again() {
        let places = Places::new(1);
        let taken = place(&places, 7, 1).unwrap();
        places.give_back(taken);
        assert!(places.find(7, &1).is_none());
        assert_eq!(places.candidates(7).count(), 0);
        place(&places, 9, 2).unwrap();
        assert_eq!(found(&places, 9, 2), Some(2));
    }
}
