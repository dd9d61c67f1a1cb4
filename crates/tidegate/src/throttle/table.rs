//! The counters of one shard, by key: bounded, and so forgetful only in the safe direction.

use tidegate_core::{Counter, Instant, Quota};

use super::key::Key;

/// Counters in a bucket.
pub(super) const WAYS: usize = 7;

/// Buckets of counters. A key lives in one of two buckets, or, when both are full of active counters and the table
/// may not grow, shares the counter of its first bucket with others like it.
///
/// A key that later gets a counter of its own starts from the shared one's debt, so that what it took there is
/// not forgotten. An idle counter may be forgotten at any time: it equals a fresh one.
pub(super) struct Table<C> {
    buckets: Box<[Bucket<C>]>,
    most: usize,
    held: usize,
}

#[derive(Clone)]
#[repr(C, align(64))]
struct Bucket<C> {
    /// A byte a way: 0 when it is vacant, else bits of the key with the top bit set.
    tags: u64,
    /// Keeps a slot of 32 bytes within one cache line.
    _pad: u64,
    /// What keys without a counter of their own share. Idle until the table has its full size.
    shared: C,
    slots: [Slot<C>; WAYS],
}

#[derive(Clone, Copy, Default)]
struct Slot<C> {
    key: Key,
    counter: C,
}

/// Where a key's counter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Own { bucket: usize, way: usize },
    Shared { bucket: usize },
}

const LOW: u64 = 0x0001_0101_0101_0101;
const HIGH: u64 = LOW << 7;

impl<C: Counter> Bucket<C> {
    fn vacant() -> Self {
        Self { tags: 0, _pad: 0, shared: C::default(), slots: [Slot::default(); WAYS] }
    }

    #[inline]
    fn find(&self, key: Key) -> Option<usize> {
        // Bytes that differ nowhere from the tag; a borrow may mark one too many, and the key decides.
        let differs = self.tags ^ (LOW * u64::from(tag(key)));
        let mut same = differs.wrapping_sub(LOW) & !differs & HIGH;
        while same != 0 {
            let way = same.trailing_zeros() as usize / 8;
            if self.slots[way].key == key {
                return Some(way);
            }
            same &= same - 1;
        }
        None
    }

    fn vacancies(&self) -> u64 {
        !self.tags & HIGH
    }

    fn idle(&self, quota: &Quota, now: Instant) -> Option<usize> {
        self.slots.iter().position(|slot| slot.counter.is_idle(quota, now))
    }

    fn put(&mut self, way: usize, key: Key, counter: C) {
        self.tags = self.tags & !(0xff << (8 * way)) | u64::from(tag(key)) << (8 * way);
        self.slots[way] = Slot { key, counter };
    }
}

fn tag(key: Key) -> u8 {
    0x80 | (key.check >> 57) as u8
}

impl<C: Counter> Table<C> {
    /// A table of at most `most` buckets, which takes no memory yet.
    pub(super) fn new(most: usize) -> Self {
        Self { buckets: Box::default(), most, held: 0 }
    }

    /// Finds the place of a key's counter, and makes one if there is room.
    #[inline]
    pub(super) fn place(&mut self, key: Key, quota: &Quota, now: Instant) -> Place {
        match self.find(key) {
            Some(place) => place,
            None => self.insert(key, quota, now),
        }
    }

    /// Finds a counter of the key's own.
    #[inline]
    pub(super) fn find(&self, key: Key) -> Option<Place> {
        let [first, second] = homes(key, self.buckets.len());
        if let Some(way) = self.buckets.get(first)?.find(key) {
            return Some(Place::Own { bucket: first, way });
        }
        let way = self.buckets[second].find(key)?;
        Some(Place::Own { bucket: second, way })
    }

    /// The place of the counter that the key shares while it has none of its own.
    pub(super) fn shared(&self, key: Key) -> Place {
        Place::Shared { bucket: homes(key, self.buckets.len())[0] }
    }

    #[inline]
    pub(super) fn counter(&mut self, place: Place) -> &mut C {
        match place {
            Place::Own { bucket, way } => &mut self.buckets[bucket].slots[way].counter,
            Place::Shared { bucket } => &mut self.buckets[bucket].shared,
        }
    }

    #[cold]
    fn insert(&mut self, key: Key, quota: &Quota, now: Instant) -> Place {
        loop {
            if !self.buckets.is_empty() {
                let [first, second] = homes(key, self.buckets.len());
                let counter = self.buckets[first].shared;
                if let Some((bucket, way)) = vacancy(&self.buckets, [first, second]) {
                    self.buckets[bucket].put(way, key, counter);
                    self.held += 1;
                    return Place::Own { bucket, way };
                }
                for bucket in [first, second] {
                    if let Some(way) = self.buckets[bucket].idle(quota, now) {
                        self.buckets[bucket].put(way, key, counter);
                        return Place::Own { bucket, way };
                    }
                }
                if self.buckets.len() == self.most {
                    return match self.make_way([first, second]) {
                        Some((bucket, way)) => {
                            self.buckets[bucket].put(way, key, counter);
                            self.held += 1;
                            Place::Own { bucket, way }
                        }
                        None => Place::Shared { bucket: first },
                    };
                }
            }
            self.grow(quota, now);
        }
    }

    /// Moves a key out of one of two full buckets into the other bucket it may live in, where that has room.
    fn make_way(&mut self, full: [usize; 2]) -> Option<(usize, usize)> {
        for bucket in full {
            for way in 0..WAYS {
                let Slot { key, counter } = self.buckets[bucket].slots[way];
                let [first, second] = homes(key, self.buckets.len());
                let other = if first == bucket { second } else { first };
                let vacant = self.buckets[other].vacancies();
                if vacant != 0 {
                    self.buckets[other].put(vacant.trailing_zeros() as usize / 8, key, counter);
                    return Some((bucket, way));
                }
            }
        }
        None
    }

    /// Takes the next of the sizes 1, …, most/4, most/2, most, and leaves idle counters behind.
    fn grow(&mut self, quota: &Quota, now: Instant) {
        let mut size = self.most;
        while size.div_ceil(2) > self.buckets.len() && size > 1 {
            size = size.div_ceil(2);
        }
        let mut buckets = vec![Bucket::vacant(); size].into_boxed_slice();
        let mut held = 0;
        for bucket in &self.buckets {
            for way in 0..WAYS {
                let slot = bucket.slots[way];
                if bucket.vacancies() >> (8 * way) & 0x80 != 0 || slot.counter.is_idle(quota, now) {
                    continue;
                }
                let homes = homes(slot.key, size);
                match vacancy(&buckets, homes) {
                    Some((bucket, way)) => {
                        buckets[bucket].put(way, slot.key, slot.counter);
                        held += 1;
                    }
                    // Hardly ever, in a table half empty. Nobody shares a counter yet, so no refund can lower it.
                    None => {
                        let shared = &mut buckets[homes[0]].shared;
                        *shared = shared.join(slot.counter, quota);
                    }
                }
            }
        }
        (self.buckets, self.held) = (buckets, held);
    }

    /// Every counter, for a changed quota.
    pub(super) fn counters(&mut self) -> impl Iterator<Item = &mut C> {
        self.buckets.iter_mut().flat_map(|bucket| {
            bucket.slots.iter_mut().map(|slot| &mut slot.counter).chain([&mut bucket.shared])
        })
    }

    /// Whether no key has come yet.
    pub(super) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Keys with a counter of their own, idle ones included.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Keys for which there may be a counter of their own.
    pub(super) fn capacity(&self) -> usize {
        self.most * WAYS
    }

    /// Bytes of the buckets as they are now.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }
}

/// The two buckets of a key, which may be one.
#[inline]
fn homes(key: Key, buckets: usize) -> [usize; 2] {
    let scale = |bits: u64| ((bits * buckets as u64) >> 32) as usize;
    [scale(key.place & 0xffff_ffff), scale(key.place >> 32)]
}

/// A vacant way: in the first bucket while it is at most half full, so that it is mostly found there; else in the
/// emptier one, so that both are full together.
fn vacancy<C: Counter>(buckets: &[Bucket<C>], [first, second]: [usize; 2]) -> Option<(usize, usize)> {
    let vacant = [first, second].map(|bucket| buckets[bucket].vacancies());
    let [left, right] = vacant.map(u64::count_ones);
    let (bucket, vacant) =
        if left > WAYS as u32 / 2 || left >= right { (first, vacant[0]) } else { (second, vacant[1]) };
    (vacant != 0).then(|| (bucket, vacant.trailing_zeros() as usize / 8))
}
