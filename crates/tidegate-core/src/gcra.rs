//! The token bucket, as GCRA: one theoretical arrival time a key (ATM Forum TM 4.0, appendix I).

use crate::{Counter, Decision, Grant, Instant, Quota, Standing, nanos, quota::Span};

/// A token bucket in 16 bytes: the instant at which it will be full again.
///
/// A call of cost c moves that instant on by c intervals, and may go when it is then at most a burst away. What
/// was sent in any span of time t is so at most burst + rate × t, refunds included:
///
/// > Let call k go at g(k) and take i(k). The full-again instant F stays at or above g(k) + Σ i(j) over k and
/// > every later call j that was not refunded, for each k. Admission asks F ≤ g + burst, hence the envelope. A
/// > refund of b lowers F by at most i(b), so the bound holds for each k before b. For k after b it holds when F is
/// > lowered by at most i(b) − (last − g(b)), where last is no earlier than any g: F was at least g(b) + i(b) + Σ
/// > i(j) over j after b, and is so still at least last + that sum. When nothing came after b there is no such k,
/// > and all of i(b) goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gcra {
    full_at: u64,
    /// In 1/count of a nanosecond.
    part: u32,
    /// Changes with every grant, so that a refund sees whether it was the last one.
    stamp: u32,
}

impl Gcra {
    fn full(self) -> Span {
        Span { ns: self.full_at, part: self.part }
    }

    fn fill(&mut self, full: Span) {
        (self.full_at, self.part) = (full.ns, full.part);
    }
}

impl Counter for Gcra {
    #[inline]
    fn reserve(&mut self, quota: &Quota, cost: u32, now: Instant, by: Instant) -> Decision {
        let units = cost.max(1);
        if units > quota.limit {
            return Decision::Impossible;
        }
        let from = self.full().max(Span { ns: now.as_nanos(), part: 0 });
        let Some(full) = from.plus(quota.span(units), quota.count) else {
            return Decision::Deny { retry_at: Instant::NEVER };
        };
        let at = now.max(earliest(full, quota.refill));
        if at > by {
            return Decision::Deny { retry_at: at };
        }
        if cost > 0 {
            // A reservation goes at a whole nanosecond: the part by which that is later counts from there.
            let from_there = Span { ns: at.as_nanos(), part: 0 }.plus(quota.span(units), quota.count);
            self.fill(from_there.map_or(full, |late| late.max(full)));
            self.stamp = self.stamp.wrapping_add(1);
        }
        Decision::Admit(Grant { at, cost, stamp: self.stamp })
    }

    fn refund(&mut self, quota: &Quota, grant: Grant, now: Instant, last: Instant) {
        // The limit may have been lowered since.
        let taken = quota.span(grant.cost.min(quota.limit).max(1));
        let regenerated = Span { ns: nanos(now.since(grant.at)), part: 0 } >= taken;
        if grant.cost == 0 || regenerated || self.is_idle(quota, now) {
            return;
        }
        let back = if self.stamp == grant.stamp {
            self.stamp = self.stamp.wrapping_sub(1);
            taken
        } else {
            let elapsed = nanos(now.max(last).since(grant.at));
            taken.minus(Span { ns: elapsed, part: 0 }, quota.count)
        };
        self.fill(self.full().minus(back, quota.count));
    }

    #[inline]
    fn standing(&self, quota: &Quota, now: Instant) -> Standing {
        let debt = self.full().minus(Span { ns: now.as_nanos(), part: 0 }, quota.count);
        let credit = quota.refill.minus(debt, quota.count);
        let remaining = match credit.ns.checked_mul(u64::from(quota.count)) {
            Some(parts) => parts.saturating_add(u64::from(credit.part)) / quota.period,
            None => {
                let parts = u128::from(credit.ns) * u128::from(quota.count) + u128::from(credit.part);
                (parts / u128::from(quota.period)) as u64
            }
        };
        Standing { remaining: remaining as u32, reset_at: now.max(Instant::from_nanos(self.full().ceil())) }
    }

    #[inline]
    fn is_idle(&self, _: &Quota, now: Instant) -> bool {
        self.full() <= Span { ns: now.as_nanos(), part: 0 }
    }

    fn join(self, other: Self, _: &Quota) -> Self {
        let later = if self.full() >= other.full() { self } else { other };
        // A stamp of its own: no earlier grant is the last one of both.
        Self { stamp: self.stamp.wrapping_add(other.stamp).wrapping_add(1), ..later }
    }

    /// What is left to regenerate is kept as time, so that half a bucket stays half a bucket.
    fn update(&mut self, old: &Quota, new: &Quota) {
        let parts = (u64::from(self.part) * u64::from(new.count)).div_ceil(u64::from(old.count));
        if parts < u64::from(new.count) {
            self.part = parts as u32;
        } else {
            self.full_at = self.full_at.saturating_add(1);
            self.part = 0;
        }
        self.stamp = self.stamp.wrapping_add(1);
    }
}

/// The first whole nanosecond at which `full` is at most `refill` away.
fn earliest(full: Span, refill: Span) -> Instant {
    if full <= refill {
        return Instant::EPOCH;
    }
    Instant::from_nanos(full.ns - refill.ns + u64::from(full.part > refill.part))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn quota(rate: &str, burst: u32) -> Quota {
        Quota::of(rate.parse().unwrap()).burst(burst).build().unwrap()
    }

    fn at(millis: u64) -> Instant {
        Instant::EPOCH + Duration::from_millis(1_000_000 + millis)
    }

    #[test]
    fn a_burst_goes_at_once_and_then_the_rate_holds() {
        let quota = quota("10/s", 3);
        let mut cell = Gcra::default();
        for left in [2, 1, 0] {
            assert!(matches!(cell.take(&quota, 1, at(0)), Decision::Admit(_)));
            assert_eq!(cell.standing(&quota, at(0)).remaining, left);
        }
        assert_eq!(cell.standing(&quota, at(0)).reset_at, at(300));
        let denied = Decision::Deny { retry_at: at(100) };
        assert_eq!(cell.take(&quota, 1, at(0)), denied);
        assert!(matches!(cell.take(&quota, 1, at(100)), Decision::Admit(_)));
        assert!(matches!(cell.take(&quota, 2, at(250)), Decision::Deny { retry_at } if retry_at == at(300)));
    }

    #[test]
    fn a_call_that_costs_more_than_the_burst_can_never_go() {
        let quota = quota("10/s", 3);
        let mut cell = Gcra::default();
        assert!(matches!(cell.take(&quota, 4, at(0)), Decision::Impossible));
        let none = Quota::of("0/s".parse().unwrap()).build().unwrap();
        assert!(matches!(cell.take(&none, 1, at(0)), Decision::Impossible));
        assert!(matches!(cell.take(&none, 0, at(0)), Decision::Impossible));
    }

    #[test]
    fn a_peek_is_denied_when_nothing_is_left_and_takes_nothing() {
        let quota = quota("1/s", 1);
        let mut cell = Gcra::default();
        let before = cell;
        assert!(matches!(cell.take(&quota, 0, at(0)), Decision::Admit(_)));
        assert_eq!(cell, before);
        let _ = cell.take(&quota, 1, at(0));
        assert!(matches!(cell.take(&quota, 0, at(0)), Decision::Deny { .. }));
    }

    #[test]
    fn a_refund_gives_back_what_has_not_regenerated() {
        let quota = quota("10/s", 2);
        let mut cell = Gcra::default();
        let Decision::Admit(grant) = cell.take(&quota, 1, at(0)) else { panic!() };
        let _ = cell.take(&quota, 1, at(0));
        cell.refund(&quota, grant, at(40), at(40));
        assert_eq!(cell.full_at, at(140).as_nanos(), "60 ms of 100 were left");
        let Decision::Admit(grant) = cell.take(&quota, 1, at(50)) else { panic!() };
        cell.refund(&quota, grant, at(60), at(60));
        assert_eq!(cell.full_at, at(140).as_nanos(), "the last one goes back whole");
        let Decision::Admit(grant) = cell.take(&quota, 1, at(60)) else { panic!() };
        let _ = cell.take(&quota, 1, at(200));
        let before = cell;
        cell.refund(&quota, grant, at(200), at(200));
        assert_eq!(cell, before, "it has regenerated");
    }

    #[test]
    fn whole_bursts_that_wait_keep_the_envelope_to_the_nanosecond() {
        let quota = Quota::of("3/1ms".parse().unwrap()).build().unwrap();
        let mut cell = Gcra::default();
        let start = Instant::from_nanos(1_000_000_000);
        let by = start + Duration::from_secs(1);
        let mut turn = |cost| match cell.reserve(&quota, cost, start, by) {
            Decision::Admit(grant) => grant.at().since(start).as_nanos(),
            other => panic!("{other:?}"),
        };
        assert_eq!([turn(1), turn(3), turn(1)], [0, 333_334, 666_668], "333 333.3 ns apart, and never less");
    }

    #[test]
    fn a_waiter_is_given_an_instant_of_its_own() {
        let quota = quota("10/s", 1);
        let mut cell = Gcra::default();
        let mut turns = Vec::new();
        for _ in 0..4 {
            if let Decision::Admit(grant) = cell.reserve(&quota, 1, at(0), at(250)) {
                turns.push(grant.at());
            }
        }
        assert_eq!(turns, [at(0), at(100), at(200)]);
    }

    #[test]
    fn a_hole_before_a_waiter_is_not_given_away_twice() {
        let quota = quota("10/s", 1);
        let mut cell = Gcra::default();
        let Decision::Admit(sent) = cell.take(&quota, 1, at(0)) else { panic!() };
        let Decision::Admit(waiter) = cell.reserve(&quota, 1, at(0), at(100)) else { panic!() };
        cell.refund(&quota, sent, at(10), waiter.at());
        // The waiter still goes at 100: another call at 110 would be two within 10 ms.
        assert!(matches!(cell.take(&quota, 1, at(10)), Decision::Deny { retry_at } if retry_at == at(200)));
        cell.refund(&quota, waiter, at(20), waiter.at());
        assert!(
            matches!(cell.take(&quota, 1, at(100)), Decision::Admit(_)),
            "the last one gave its turn back"
        );
    }

    #[test]
    fn nothing_overflows_at_the_end_of_the_clock() {
        for rate in ["1/366d", "4294967295/ms", "1/ms"] {
            let quota = Quota::of(rate.parse().unwrap()).build().unwrap();
            let mut cell = Gcra::default();
            for _ in 0..3 {
                let _ = cell.reserve(&quota, quota.limit(), Instant::NEVER, Instant::NEVER);
                let _ = cell.reserve(&quota, 1, Instant::from_nanos(u64::MAX - 1), Instant::NEVER);
                let _ = cell.standing(&quota, Instant::EPOCH);
            }
        }
    }

    #[test]
    fn half_a_bucket_stays_half_a_bucket_when_the_rate_changes() {
        let (old, new) = (quota("1000/s", 1000), quota("10/s", 10));
        let mut cell = Gcra::default();
        let _ = cell.take(&old, 500, at(0));
        cell.update(&old, &new);
        assert_eq!(cell.standing(&new, at(0)).remaining, 5);
    }
}
