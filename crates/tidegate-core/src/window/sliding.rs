//! Never more than the limit in any span of one period, with bounded memory.

use crate::{Counter, Decision, Grant, Instant, Quota, Standing};

/// Batches a counter remembers.
const BATCHES: usize = 11;
/// Segments of a period within which batches may be merged. One fewer than the batches: those of one period and
/// a new one are then more than the segments they touch, so two of them share one.
const SEGMENTS: u64 = BATCHES as u64 - 1;
/// Ticks in a period, at most. Twice as many fit a batch's age.
const TICKS: u64 = 1 << 15;
/// Units in a batch, at most, in multiples of the grain's unit; the rest of 65535 is for rounding.
const UNITS: u32 = 60_000;
/// The age of a batch that is none.
const GONE: u16 = u16::MAX;

/// A sliding window in 56 bytes: the last eleven batches of calls, each with its size and its latest instant.
///
/// A batch counts until one period after the LATEST call in it, so no span of one period ever admits more than
/// the limit. The first eleven calls of a period are batches of their own, so a limit of up to eleven a period
/// is exact to a tick (1/32768 of the period). Beyond that, calls in one tenth of a period are merged: a call
/// may count up to a tenth of a period longer than it should, so a caller that always asks is admitted at least
/// 10/11 of the limit. Above 60 000 units a period, sizes are rounded up by 1/60 000 of the limit a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sliding {
    /// The latest batch's instant, in ticks, rounded up.
    head: u64,
    /// What the latest batch has beyond whole units.
    rest: u32,
    /// How many ticks before the head each batch was, newest first.
    ages: [u16; BATCHES],
    /// How many units each batch took.
    units: [u16; BATCHES],
}

impl Default for Sliding {
    fn default() -> Self {
        Self { head: 0, rest: 0, ages: [GONE; BATCHES], units: [0; BATCHES] }
    }
}

/// How finely a sliding window looks at time and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grain {
    /// Nanoseconds in a tick.
    tick: u64,
    /// Ticks in a period, at most 32768.
    period: u64,
    /// Ticks in a segment.
    segment: u64,
    /// The size of a unit.
    unit: u32,
}

impl Grain {
    pub(crate) fn of(limit: u32, period: u64) -> Self {
        let tick = period.div_ceil(TICKS);
        let ticks = period.div_ceil(tick);
        Self { tick, period: ticks, segment: ticks.div_ceil(SEGMENTS), unit: limit.div_ceil(UNITS).max(1) }
    }

    fn ticks(self, at: u64) -> u64 {
        at.div_ceil(self.tick)
    }
}

impl Sliding {
    /// When the batch of this age stops to count.
    fn expiry(&self, quota: &Quota, age: u16) -> u64 {
        (self.head - u64::from(age)).saturating_mul(quota.grain.tick).saturating_add(quota.period)
    }

    /// The greatest age that still counts at `now`, if any does.
    fn oldest(&self, quota: &Quota, now: u64) -> Option<u16> {
        let left = self.expiry(quota, 0).checked_sub(now)?.checked_sub(1)?;
        Some((left / quota.grain.tick).min(u64::from(GONE - 1)) as u16)
    }

    /// What counts at `now`.
    fn used(&self, quota: &Quota, now: u64) -> u64 {
        let Some(oldest) = self.oldest(quota, now) else { return 0 };
        let live = self.ages.iter().zip(&self.units).filter(|(age, _)| **age <= oldest);
        let units: u64 = live.map(|(_, units)| u64::from(*units)).sum();
        units * u64::from(quota.grain.unit) + u64::from(self.rest)
    }

    /// The first instant from `from` on at which `units` more fit under the limit.
    fn earliest(&self, quota: &Quota, units: u32, from: u64) -> u64 {
        let mut used = self.used(quota, from);
        let (room, mut at) = (u64::from(quota.limit - units), from);
        if used <= room {
            return at;
        }
        let oldest = self.oldest(quota, from).unwrap_or(0);
        for batch in (0..BATCHES).rev().filter(|batch| self.ages[*batch] <= oldest) {
            at = self.expiry(quota, self.ages[batch]);
            used -= u64::from(self.units[batch]) * u64::from(quota.grain.unit);
            if used <= room {
                break;
            }
        }
        at
    }

    /// Counts `cost` at `tick`, which is not before the head.
    fn add(&mut self, grain: Grain, cost: u32, tick: u64) {
        let passed = (tick - self.head).min(u64::from(GONE)) as u16;
        let full = u64::from(self.ages[BATCHES - 1]) + u64::from(passed) <= grain.period;
        let merges = passed == 0 && self.ages[0] != GONE
            || full && self.ages[0] != GONE && tick / grain.segment == self.head / grain.segment;
        if !merges {
            if full {
                self.merge_two(grain);
            }
            self.units[0] = self.units[0].saturating_add(u16::from(self.rest > 0));
            self.rest = 0;
            self.ages.copy_within(..BATCHES - 1, 1);
            self.units.copy_within(..BATCHES - 1, 1);
            self.units[0] = 0;
        }
        for age in &mut self.ages {
            *age = age.saturating_add(passed);
        }
        (self.head, self.ages[0]) = (tick, 0);
        if grain.unit == 1 {
            self.units[0] = self.units[0].saturating_add(cost.min(u32::from(u16::MAX)) as u16);
        } else {
            let sum = u64::from(self.rest) + u64::from(cost);
            let units = (sum / u64::from(grain.unit)).min(u64::from(u16::MAX)) as u16;
            self.units[0] = self.units[0].saturating_add(units);
            self.rest = (sum % u64::from(grain.unit)) as u32;
        }
    }

    /// Makes room: the oldest two neighbours in one segment become one, at the instant of the later.
    fn merge_two(&mut self, grain: Grain) {
        let segment = |age: u16| (self.head - u64::from(age)) / grain.segment;
        let (mut older, mut of_older) = (BATCHES - 1, segment(self.ages[BATCHES - 1]));
        while older > 1 {
            let of_newer = segment(self.ages[older - 1]);
            if of_newer == of_older {
                break;
            }
            (older, of_older) = (older - 1, of_newer);
        }
        // With neighbours in no segment, which the choice of SEGMENTS rules out, the newest two are merged: safe.
        let newer = older - 1;
        self.units[newer] = self.units[newer].saturating_add(self.units[older]);
        self.ages.copy_within(older + 1.., older);
        self.units.copy_within(older + 1.., older);
        (self.ages[BATCHES - 1], self.units[BATCHES - 1]) = (GONE, 0);
    }
}

impl Counter for Sliding {
    #[inline]
    fn reserve(&mut self, quota: &Quota, cost: u32, now: Instant, by: Instant) -> Decision {
        let units = cost.max(1);
        if units > quota.limit {
            return Decision::Impossible;
        }
        let grain = quota.grain;
        // Nobody overtakes a reservation, but for those in the same tick, which count as one.
        let tick = grain.ticks(now.as_nanos());
        let turn = if tick >= self.head {
            now.as_nanos()
        } else {
            (self.head - 1).saturating_mul(grain.tick).saturating_add(1)
        };
        let at = Instant::from_nanos(self.earliest(quota, units, turn));
        if at > by || at == Instant::NEVER {
            return Decision::Deny { retry_at: at };
        }
        if cost > 0 {
            self.add(grain, cost, if at == now { tick } else { grain.ticks(at.as_nanos()) });
        }
        Decision::Admit(Grant { at, cost, stamp: 0 })
    }

    fn refund(&mut self, quota: &Quota, grant: Grant, now: Instant, _: Instant) {
        let grain = quota.grain;
        let tick = grain.ticks(grant.at.as_nanos());
        if nanos_since(now, grant.at) >= quota.period || tick > self.head {
            return;
        }
        // Batches only merge into later ones of their segment: it is in the oldest that is not before it.
        let age = self.head - tick;
        let Some(batch) = (0..BATCHES).rev().find(|batch| u64::from(self.ages[*batch]) <= age) else {
            return;
        };
        if (self.head - u64::from(self.ages[batch])) / grain.segment != tick / grain.segment {
            return;
        }
        if batch == 0 {
            let unit = u64::from(grain.unit);
            let sum = u64::from(self.units[0]) * unit + u64::from(self.rest);
            let sum = sum.saturating_sub(u64::from(grant.cost));
            (self.units[0], self.rest) = ((sum / unit) as u16, (sum % unit) as u32);
        } else {
            // It was rounded up when it closed; what goes back is rounded down.
            let units = (grant.cost / grain.unit).min(u32::from(u16::MAX)) as u16;
            self.units[batch] = self.units[batch].saturating_sub(units);
        }
    }

    #[inline]
    fn standing(&self, quota: &Quota, now: Instant) -> Standing {
        let used = self.used(quota, now.as_nanos());
        let remaining = u64::from(quota.limit).saturating_sub(used) as u32;
        let reset_at = if used == 0 { now } else { Instant::from_nanos(self.expiry(quota, 0)).max(now) };
        Standing { remaining, reset_at }
    }

    #[inline]
    fn is_idle(&self, quota: &Quota, now: Instant) -> bool {
        // At the end of the clock nothing expires any more.
        self.ages[0] == GONE || self.expiry(quota, 0) <= now.as_nanos() && now < Instant::NEVER
    }

    /// All that the fuller one ever counted, at the latest instant of both.
    fn join(self, other: Self, quota: &Quota) -> Self {
        let sum = |cell: &Self| {
            let units: u64 = cell.units.iter().map(|units| u64::from(*units)).sum();
            units * u64::from(quota.grain.unit) + u64::from(cell.rest)
        };
        let mut joined = Self::default();
        let fuller = sum(&self).max(sum(&other)).min(u64::from(u32::MAX)) as u32;
        joined.add(quota.grain, fuller, self.head.max(other.head));
        joined
    }

    /// Every batch is counted anew, at its instant, in the new grain.
    fn update(&mut self, old: &Quota, new: &Quota) {
        let before = *self;
        *self = Self::default();
        for batch in (0..BATCHES).rev().filter(|batch| before.ages[*batch] != GONE) {
            let rest = if batch == 0 { before.rest } else { 0 };
            let size = u64::from(before.units[batch]) * u64::from(old.grain.unit) + u64::from(rest);
            let at = (before.head - u64::from(before.ages[batch])).saturating_mul(old.grain.tick);
            self.add(new.grain, size.min(u64::from(u32::MAX)) as u32, new.grain.ticks(at));
        }
    }
}

fn nanos_since(now: Instant, earlier: Instant) -> u64 {
    now.as_nanos().saturating_sub(earlier.as_nanos())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Algorithm;

    fn quota(rate: &str) -> Quota {
        Quota::of(rate.parse().unwrap()).algorithm(Algorithm::SlidingWindow).build().unwrap()
    }

    /// A whole tick of a second's window is 30518 ns, of 32768 ms it is one ms.
    fn at(millis: u64) -> Instant {
        Instant::EPOCH + Duration::from_millis(32_768_000 + millis)
    }

    #[test]
    fn it_is_small() {
        assert_eq!(size_of::<Sliding>(), 56);
    }

    #[test]
    fn a_small_limit_is_exact() {
        let quota = quota("3/32768ms");
        let mut cell = Sliding::default();
        for millis in [0, 10_000, 20_000] {
            assert!(matches!(cell.take(&quota, 1, at(millis)), Decision::Admit(_)));
        }
        for freed in [32_768, 42_768, 52_768] {
            let denied = cell.take(&quota, 1, at(freed - 1));
            assert!(matches!(denied, Decision::Deny { retry_at } if retry_at == at(freed)), "{denied:?}");
            assert!(matches!(cell.take(&quota, 1, at(freed)), Decision::Admit(_)));
        }
    }

    #[test]
    fn a_refund_goes_into_its_own_batch_only() {
        let quota = quota("3/32768ms");
        let mut cell = Sliding::default();
        let Decision::Admit(grant) = cell.take(&quota, 2, at(0)) else { panic!() };
        let _ = cell.take(&quota, 1, at(5000));
        cell.refund(&quota, grant, at(6000), at(6000));
        assert_eq!(cell.standing(&quota, at(6000)).remaining, 2);
        assert!(matches!(cell.take(&quota, 2, at(6000)), Decision::Admit(_)));
        let before = cell;
        cell.refund(&quota, grant, at(32_768), at(32_768));
        assert_eq!(cell, before, "its period is over");
    }

    #[test]
    fn a_refund_is_not_taken_from_a_batch_that_counts_longer() {
        let quota = quota("4/32768ms");
        let mut cell = Sliding::default();
        let Decision::Admit(grant) = cell.take(&quota, 2, at(0)) else { panic!() };
        let _ = cell.take(&quota, 2, at(1));
        cell.refund(&quota, grant, at(2), at(2));
        assert_eq!(
            cell.standing(&quota, at(32_768)).remaining,
            2,
            "the later two count one more millisecond"
        );
        let _ = cell.take(&quota, 2, at(32_768));
        cell.refund(&quota, grant, at(32_768), at(32_768));
        assert_eq!(cell.standing(&quota, at(32_768)).remaining, 0, "its own period is over");
    }

    #[test]
    fn waiters_are_given_instants_of_their_own_and_nobody_overtakes_them() {
        let quota = quota("2/32768ms");
        let mut cell = Sliding::default();
        let mut turns = Vec::new();
        for _ in 0..5 {
            if let Decision::Admit(grant) = cell.reserve(&quota, 1, at(0), at(70_000)) {
                turns.push(grant.at());
            }
        }
        assert_eq!(turns, [at(0), at(0), at(32_768), at(32_768), at(65_536)]);
        assert!(
            matches!(cell.take(&quota, 1, at(40_000)), Decision::Deny { retry_at } if retry_at == at(65_536))
        );
    }

    #[test]
    fn a_caller_that_always_asks_is_admitted_at_least_ten_elevenths_of_the_limit() {
        for (rate, limit, every) in
            [("1000/s", 1000, 100_000), ("100000/s", 100_000, 5000), ("12/s", 12, 7_000_000)]
        {
            let quota = quota(rate);
            let (mut cell, mut now, mut admitted) = (Sliding::default(), at(0), 0);
            let periods = 5;
            while now < at(periods * 1000) {
                admitted += u64::from(matches!(cell.take(&quota, 1, now), Decision::Admit(_)));
                now += Duration::from_nanos(every);
            }
            let offered = (periods * 1_000_000_000 / every).min(limit * periods);
            assert!(admitted * 11 >= offered * 10, "{rate}: {admitted} of {offered}");
        }
    }

    #[test]
    fn a_changed_limit_keeps_what_was_counted() {
        let (old, new) = (quota("100/s"), quota("70000/min"));
        let mut cell = Sliding::default();
        let _ = cell.take(&old, 60, at(0));
        let _ = cell.take(&old, 30, at(100));
        cell.update(&old, &new);
        assert!((69_880..=69_910).contains(&cell.standing(&new, at(200)).remaining));
        cell.update(&new, &quota("80/s"));
        assert!(matches!(cell.take(&quota("80/s"), 1, at(200)), Decision::Deny { .. }));
    }

    #[test]
    fn nothing_overflows_at_the_end_of_the_clock() {
        for rate in ["1/366d", "4294967295/ms", "5/ms"] {
            let quota = quota(rate);
            let mut cell = Sliding::default();
            for _ in 0..20 {
                let _ = cell.reserve(&quota, 1, Instant::from_nanos(u64::MAX - 2), Instant::NEVER);
                let _ = cell.reserve(&quota, quota.limit(), Instant::NEVER, Instant::NEVER);
                let _ = cell.standing(&quota, Instant::EPOCH);
            }
        }
    }
}
