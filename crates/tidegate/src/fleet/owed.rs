//! What accounts owe that were forgotten before the ledger could be told.

use tidegate_core::{
    Instant,
    credit::{Account, Draft},
};

use crate::throttle::Key;

/// Most keys of a shard whose debts are remembered without an account.
const MOST: usize = 256;

/// Debts without an account, by key: a ledger was told of them and did not answer.
#[derive(Default)]
pub(super) struct Owed(Vec<(Key, u32)>);

impl Owed {
    /// Adds to what a key owes. What is forgiven for want of room: the smallest debt.
    pub(super) fn add(&mut self, key: Key, units: u32) -> u32 {
        if units == 0 {
            return 0;
        }
        if let Some((_, owed)) = self.0.iter_mut().find(|(known, _)| *known == key) {
            *owed = owed.saturating_add(units);
            return 0;
        }
        self.0.push((key, units));
        if self.0.len() <= MOST {
            return 0;
        }
        let smallest = (0..self.0.len()).min_by_key(|at| self.0[*at].1).expect("one was just added");
        self.0.swap_remove(smallest).1
    }

    /// Takes what a key owes, for its account to remember.
    pub(super) fn take(&mut self, key: Key) -> u32 {
        let at = self.0.iter().position(|(known, _)| *known == key);
        at.map_or(0, |at| self.0.swap_remove(at).1)
    }

    /// Takes all of it, to tell the ledger.
    pub(super) fn tell(&mut self, now: Instant) -> impl Iterator<Item = (Key, Draft)> + use<> {
        std::mem::take(&mut self.0).into_iter().filter_map(move |(key, units)| {
            let mut account = Account::default();
            account.settle(0, units, 0, now);
            Some((key, account.hand_back(now)?))
        })
    }

    /// Units that are owed.
    pub(super) fn units(&self) -> u64 {
        self.0.iter().map(|(_, units)| u64::from(*units)).sum()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn debts_are_kept_by_key_and_the_smallest_makes_room() {
        let (mut owed, key) = (Owed::default(), |number: u32| Key::of(&number.to_le_bytes()));
        for number in 0..MOST as u32 {
            assert_eq!(owed.add(key(number), 10 + number), 0);
        }
        assert_eq!(owed.add(key(3), 5), 0, "what it owes already");
        assert_eq!(owed.add(key(1000), 50), 10, "the smallest is forgiven");
        assert_eq!((owed.take(key(3)), owed.take(key(3)), owed.take(key(0))), (18, 0, 0));
        let (units, mut told) = (owed.units(), 0);
        for (_, draft) in owed.tell(Instant::EPOCH) {
            told += u64::from(draft.send(tidegate_core::lease::Node(1), 1).debt);
        }
        assert_eq!((told, owed.units()), (units, 0));
    }
}
