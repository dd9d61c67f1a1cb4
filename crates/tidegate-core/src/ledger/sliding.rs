//! The sliding window in the ledger: credit is good for one slice of the store's clock, and slices are counted as long
//! as a span of one period can touch both them and the newest.

use super::{
    Mark, Micros,
    used::{Count, Used},
};

/// Slices of one law.
pub(super) struct Slices {
    pub(super) slice: Micros,
    pub(super) slices: u64,
}

impl Slices {
    fn sum(used: &Used) -> u64 {
        used.slices.values().sum()
    }

    /// When a slice stops to count.
    fn expiry(&self, of: u64) -> Micros {
        (of + self.slices + 1) * self.slice
    }
}

impl Count for Slices {
    fn roll(&self, used: &mut Used, now: Micros) {
        let current = now / self.slice;
        used.slices.retain(|of, _| of + self.slices >= current);
        used.of = used.of.max(current);
    }

    /// A mark speaks of all slices up to its own. Which of them holds how much is not known: all counts as the newest.
    fn merge(&self, used: &mut Used, seen: Mark, _: Micros, now: Micros) {
        let current = now / self.slice;
        if seen.of + self.slices < current || seen.level == 0 {
            return;
        }
        let of = seen.of.min(current + 1);
        let (sum, newest) = (Self::sum(used), used.slices.last_key_value().map_or(0, |(of, _)| *of));
        if of >= newest {
            used.slices.clear();
            used.slices.insert(of, seen.level.max(sum));
        } else if sum < seen.level {
            *used.slices.entry(newest).or_default() += seen.level - sum;
        }
        used.of = used.of.max(of);
    }

    fn give_back(&self, used: &mut Used, units: u64, of: Micros, _: Micros) {
        if let Some(granted) = used.slices.get_mut(&of) {
            *granted -= units.min(*granted);
            if *granted == 0 {
                used.slices.remove(&of);
            }
        }
    }

    fn available(&self, used: &Used, limit: u64, _: Micros) -> u64 {
        limit.saturating_sub(Self::sum(used))
    }

    fn take(&self, used: &mut Used, units: u64, _: Micros) {
        if units > 0 {
            *used.slices.entry(used.of).or_default() += units;
        }
    }

    fn credit(&self, used: &Used, _: Micros, now: Micros) -> (Micros, Micros) {
        (used.of, self.slice - now % self.slice)
    }

    fn retry_in(&self, used: &Used, units: u64, limit: u64, now: Micros) -> Micros {
        let mut sum = Self::sum(used);
        let mut at = now;
        for (of, granted) in &used.slices {
            if sum + units <= limit {
                break;
            }
            sum -= granted;
            at = self.expiry(*of);
        }
        at.saturating_sub(now)
    }

    fn reset_in(&self, used: &Used, now: Micros) -> Micros {
        used.slices.last_key_value().map_or(0, |(of, _)| self.expiry(*of).saturating_sub(now))
    }

    fn mark(&self, used: &Used) -> Mark {
        Mark { of: used.of, level: Self::sum(used) }
    }

    /// What was granted last may be spent in the slice after this one: it becomes that slice's.
    fn step_back(&self, used: &mut Used, _: Micros, at: Micros, now: Micros) {
        let by = (at / self.slice).saturating_sub(now / self.slice + 1);
        let shifted = std::mem::take(&mut used.slices).into_iter();
        used.slices = shifted.map(|(of, granted)| (of.saturating_sub(by), granted)).collect();
        used.of = used.of.saturating_sub(by);
    }

    /// The oldest first: what counts longest stays.
    fn relieve(&self, used: &mut Used, mut units: u64, _: Micros) {
        while let Some((of, granted)) = used.slices.first_key_value().map(|(of, granted)| (*of, *granted)) {
            if granted > units {
                used.slices.insert(of, granted - units);
                break;
            }
            units -= granted;
            used.slices.remove(&of);
        }
    }

    fn used(&self, used: &Used, _: u64, _: Micros) -> u64 {
        Self::sum(used)
    }
}
