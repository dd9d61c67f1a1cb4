//! The accounts of one shard, by key: bounded; idle ones make room for new ones.

use tidegate_core::Instant;

use super::slot::{Back, Front, Open, Slot};
use crate::throttle::Key;

/// Places that are looked at to find an account that can make room.
const LOOKS: usize = 32;
/// Places of the smallest table.
const FIRST: usize = 16;

/// An open table with linear probing: a byte of each key beside the slots, so that most misses cost one cache line, and what
/// most calls look at apart from the rest, so that a hit costs one more.
#[repr(C)]
pub(super) struct Accounts {
    /// 0 for a vacant place, else seven bits of the key with the top bit set.
    tags: Box<[u8]>,
    fronts: Box<[Front]>,
    backs: Box<[Back]>,
    held: usize,
    most: usize,
    /// Where the clock's hand stands that looks for accounts to forget.
    hand: usize,
}

/// A place for a new key.
pub(super) enum Room {
    /// There was room.
    Free(usize),
    /// This account made room, and its credit should go back.
    Taken(usize, Box<Slot>),
    /// Every account in reach has a question under way.
    None,
}

impl Accounts {
    pub(super) fn new(most: usize) -> Self {
        Self { tags: [].into(), fronts: [].into(), backs: [].into(), held: 0, most, hand: 0 }
    }

    #[inline]
    pub(super) fn find(&self, key: Key) -> Option<usize> {
        if self.tags.is_empty() {
            return None;
        }
        let tag = tag(key);
        let mut at = self.home(key);
        loop {
            match self.tags[at] {
                0 => return None,
                found if found == tag && self.fronts[at].key == key => return Some(at),
                _ => at = self.after(at),
            }
        }
    }

    /// What most calls look at.
    #[inline]
    pub(super) fn front(&mut self, at: usize) -> &mut Front {
        &mut self.fronts[at]
    }

    /// All of it, to look at.
    #[inline]
    pub(super) fn both(&self, at: usize) -> (&Front, &Back) {
        (&self.fronts[at], &self.backs[at])
    }

    /// All of it, to change.
    #[inline]
    pub(super) fn slot(&mut self, at: usize) -> Open<'_> {
        Open::of(&mut self.fronts[at], &mut self.backs[at])
    }

    /// Makes a slot for a key that has none.
    #[cold]
    pub(super) fn insert(&mut self, slot: Slot, now: Instant) -> Room {
        let evicted = if self.held >= self.most {
            match self.evict(now) {
                Some(evicted) => Some(evicted),
                None => return Room::None,
            }
        } else {
            None
        };
        if needed(self.held + 1) > self.tags.len() {
            self.grow();
        }
        let at = self.put(slot);
        match evicted {
            Some(evicted) => Room::Taken(at, Box::new(evicted)),
            None => Room::Free(at),
        }
    }

    /// Forgets accounts that `keep` does not want, at any place it looks at.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut Slot) -> bool) {
        let mut at = 0;
        while at < self.tags.len() {
            if self.tags[at] != 0 && !keep(&mut self.slot(at)) {
                // Another one may have moved here.
                let _ = self.remove(at);
            } else {
                at += 1;
            }
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = Open<'_>> {
        let parts = self.fronts.iter_mut().zip(&mut self.backs);
        let known = self.tags.iter().zip(parts).filter(|(tag, _)| **tag != 0);
        known.map(|(_, (front, back))| Open::of(front, back))
    }

    pub(super) const fn held(&self) -> usize {
        self.held
    }

    pub(super) fn bytes(&self) -> usize {
        self.tags.len() * (1 + size_of::<Front>() + size_of::<Back>())
    }

    /// Forgets an account that was not used since the hand was here last; any that can be, if all were.
    fn evict(&mut self, now: Instant) -> Option<Slot> {
        let mut second = None;
        for _ in 0..LOOKS.min(self.tags.len()) {
            self.hand = self.after(self.hand);
            if self.tags[self.hand] == 0 {
                continue;
            }
            let mut slot = self.slot(self.hand);
            if !slot.is_at_rest() {
                continue;
            }
            if !std::mem::take(&mut slot.used) || slot.account.in_hand(now) == 0 {
                drop(slot);
                return Some(self.remove(self.hand));
            }
            drop(slot);
            second = second.or(Some(self.hand));
        }
        second.map(|at| self.remove(at))
    }

    fn put(&mut self, slot: Slot) -> usize {
        let mut at = self.home(slot.key);
        while self.tags[at] != 0 {
            at = self.after(at);
        }
        self.tags[at] = tag(slot.key);
        (self.fronts[at], self.backs[at]) = slot.apart();
        self.held += 1;
        at
    }

    /// Takes a slot out, and moves those behind it that are not where they belong.
    fn remove(&mut self, at: usize) -> Slot {
        let removed = self.slot(at).take();
        let (mut hole, mut next) = (at, at);
        loop {
            next = self.after(next);
            if self.tags[next] == 0 {
                break;
            }
            let home = self.home(self.fronts[next].key);
            if self.apart(home, next) >= self.apart(hole, next) {
                self.tags[hole] = self.tags[next];
                self.fronts.swap(hole, next);
                self.backs.swap(hole, next);
                hole = next;
            }
        }
        self.tags[hole] = 0;
        self.held -= 1;
        removed
    }

    /// Where a key belongs.
    #[inline]
    fn home(&self, key: Key) -> usize {
        // As many parts of all the numbers as there are places.
        (((key.bits() >> 64) * self.tags.len() as u128) >> 64) as usize
    }

    /// The next place.
    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 < self.tags.len() { at + 1 } else { 0 }
    }

    /// How many places further `to` is than `from`.
    fn apart(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.tags.len() - from }
    }

    fn grow(&mut self) {
        // No larger than it ever has to be.
        let size = (self.tags.len() * 2).clamp(FIRST, needed(self.most).max(FIRST));
        let tags = std::mem::replace(&mut self.tags, vec![0; size].into());
        let fronts = std::mem::replace(&mut self.fronts, vacant(size));
        let backs = std::mem::replace(&mut self.backs, vacant(size));
        self.held = 0;
        for ((tag, front), back) in tags.into_iter().zip(fronts).zip(backs) {
            if tag != 0 {
                self.put(Slot::joined(front, back));
            }
        }
    }
}

fn vacant<T: Default>(size: usize) -> Box<[T]> {
    std::iter::repeat_with(T::default).take(size).collect()
}

#[inline]
fn tag(key: Key) -> u8 {
    0x80 | (key.bits() as u64 >> 57) as u8
}

/// Places for so many accounts: seven eighths are taken at most, so that a byte of each of some tens of places is looked at
/// to find that a key is not there.
const fn needed(held: usize) -> usize {
    held + held / 7 + 1
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_table_finds_what_it_holds_and_nothing_else(
            steps in prop::collection::vec((0u8..3, 0u64..60), 1..300)
        ) {
            let (mut accounts, mut model) = (Accounts::new(1000), HashSet::new());
            // Few homes, so that keys collide.
            let key = |number: u64| Key::from_bits(u128::from(number % 7) << 64 | u128::from(number));
            for (step, number) in steps {
                if step > 0 {
                    if model.insert(number) {
                        accounts.insert(Slot::new(key(number), 0), Instant::EPOCH);
                    }
                } else {
                    model.remove(&number);
                    accounts.retain(|slot| slot.key != key(number));
                }
                prop_assert_eq!(accounts.held(), model.len());
                for number in 0..60 {
                    let found = accounts.find(key(number));
                    prop_assert_eq!(found.is_some(), model.contains(&number));
                    if let Some(at) = found {
                        prop_assert_eq!(accounts.slot(at).key, key(number));
                    }
                }
            }
        }
    }

    #[test]
    fn a_full_table_is_no_larger_than_it_has_to_be() {
        for most in [1, 8, 100, 879, 4395] {
            let mut accounts = Accounts::new(most);
            for number in 0..most as u128 {
                let key =
                    Key::from_bits((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
                assert!(matches!(accounts.insert(Slot::new(key, 0), Instant::EPOCH), Room::Free(_)));
            }
            let (places, held) = (accounts.tags.len(), accounts.held());
            assert!(held == most && held < places && places <= (held * 8 / 7 + 1).max(FIRST), "{places}");
        }
    }

    #[test]
    fn a_full_table_forgets_what_was_not_used_of_late() {
        let mut accounts = Accounts::new(4);
        let key = |number: u64| Key::from_bits(u128::from(number) << 64);
        for number in 0..4 {
            assert!(matches!(accounts.insert(Slot::new(key(number), 0), Instant::EPOCH), Room::Free(_)));
        }
        assert!(matches!(accounts.insert(Slot::new(key(9), 0), Instant::EPOCH), Room::Taken(..)));
        assert_eq!((accounts.held(), accounts.find(key(9)).is_some()), (4, true));
        for mut slot in accounts.iter_mut() {
            slot.line = Some(Box::default());
        }
        let refused = accounts.insert(Slot::new(key(10), 0), Instant::EPOCH);
        assert!(matches!(refused, Room::None), "who waits is not forgotten");
    }
}
