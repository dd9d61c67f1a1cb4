//! A count that starts anew at each multiple of the period on the clock.

use crate::{Counter, Decision, Grant, Instant, Quota, Standing};

/// A fixed window in 16 bytes: where the latest window begins, and what was taken in it. Exact.
///
/// Windows are only ever entered forwards. A waiter may enter the next one before it begins; the one before is
/// then closed, so that no window is counted in two places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fixed {
    start: u64,
    used: u32,
}

impl Fixed {
    /// The window in which a call at `now` is counted, and what was taken in it.
    fn current(self, quota: &Quota, now: Instant) -> Self {
        let aligned = now.as_nanos() - now.as_nanos() % quota.period;
        if aligned > self.start { Self { start: aligned, used: 0 } } else { self }
    }

    /// When the window that holds `start` ends.
    fn end(self, quota: &Quota) -> u64 {
        (self.start - self.start % quota.period).saturating_add(quota.period)
    }
}

impl Counter for Fixed {
    #[inline]
    fn reserve(&mut self, quota: &Quota, cost: u32, now: Instant, by: Instant) -> Decision {
        let units = cost.max(1);
        if units > quota.limit {
            return Decision::Impossible;
        }
        let mut window = self.current(quota, now);
        if quota.limit.saturating_sub(window.used) < units {
            window = Self { start: window.end(quota), used: 0 };
        }
        let at = now.max(Instant::from_nanos(window.start));
        if at > by || window.start == u64::MAX {
            return Decision::Deny { retry_at: at };
        }
        if cost > 0 {
            *self = Self { start: window.start, used: window.used + cost };
        }
        Decision::Admit(Grant { at, cost, stamp: 0 })
    }

    fn refund(&mut self, quota: &Quota, grant: Grant, _: Instant, _: Instant) {
        let at = grant.at.as_nanos();
        if self.start <= at && at < self.end(quota) {
            self.used = self.used.saturating_sub(grant.cost);
        }
    }

    #[inline]
    fn standing(&self, quota: &Quota, now: Instant) -> Standing {
        let Self { start, used } = self.current(quota, now);
        let remaining = if start > now.as_nanos() { 0 } else { quota.limit.saturating_sub(used) };
        let reset_at = if used == 0 { now } else { Instant::from_nanos(Self { start, used }.end(quota)) };
        Standing { remaining, reset_at }
    }

    #[inline]
    fn is_idle(&self, quota: &Quota, now: Instant) -> bool {
        // At the end of the clock no window ends any more.
        let over = self.end(quota) <= now.as_nanos() && now < Instant::NEVER;
        over || self.used == 0 && self.start <= now.as_nanos()
    }

    fn join(self, other: Self, _: &Quota) -> Self {
        Self { start: self.start.max(other.start), used: self.used.max(other.used) }
    }

    /// The count is kept to the end of the window of the new period that it began in.
    fn update(&mut self, _: &Quota, _: &Quota) {}
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Algorithm;

    fn quota(rate: &str) -> Quota {
        Quota::of(rate.parse().unwrap()).algorithm(Algorithm::FixedWindow).build().unwrap()
    }

    fn at(millis: u64) -> Instant {
        Instant::EPOCH + Duration::from_millis(1_000_000 + millis)
    }

    #[test]
    fn windows_begin_at_multiples_of_the_period() {
        let quota = quota("2/s");
        let mut cell = Fixed::default();
        assert!(matches!(cell.take(&quota, 1, at(990)), Decision::Admit(_)));
        assert!(matches!(cell.take(&quota, 1, at(995)), Decision::Admit(_)));
        assert_eq!(cell.standing(&quota, at(995)), Standing { remaining: 0, reset_at: at(1000) });
        assert!(matches!(cell.take(&quota, 1, at(999)), Decision::Deny { retry_at } if retry_at == at(1000)));
        assert!(matches!(cell.take(&quota, 2, at(1000)), Decision::Admit(_)));
        assert!(matches!(cell.take(&quota, 3, at(1000)), Decision::Impossible));
    }

    #[test]
    fn a_refund_goes_into_its_own_window_only() {
        let quota = quota("2/s");
        let mut cell = Fixed::default();
        let Decision::Admit(grant) = cell.take(&quota, 2, at(10)) else { panic!() };
        cell.refund(&quota, grant, at(20), at(20));
        assert_eq!(cell.standing(&quota, at(20)).remaining, 2);
        let Decision::Admit(grant) = cell.take(&quota, 2, at(900)) else { panic!() };
        let _ = cell.take(&quota, 1, at(1000));
        cell.refund(&quota, grant, at(1000), at(1000));
        assert_eq!(cell.standing(&quota, at(1000)).remaining, 1);
    }

    #[test]
    fn waiters_fill_the_windows_to_come_in_turn() {
        let quota = quota("2/s");
        let mut cell = Fixed::default();
        let mut turns = Vec::new();
        for _ in 0..7 {
            if let Decision::Admit(grant) = cell.reserve(&quota, 1, at(500), at(2500)) {
                turns.push(grant.at());
            }
        }
        assert_eq!(turns, [at(500), at(500), at(1000), at(1000), at(2000), at(2000)]);
        assert!(matches!(cell.take(&quota, 1, at(600)), Decision::Deny { retry_at } if retry_at == at(3000)));
    }

    #[test]
    fn a_changed_period_keeps_the_count_in_a_window_that_reaches_back() {
        let (second, minute) = (quota("2/s"), quota("3/min"));
        let mut cell = Fixed::default();
        let _ = cell.take(&second, 2, at(0));
        cell.update(&second, &minute);
        assert_eq!(cell.standing(&minute, at(0)).remaining, 1);
        let _ = cell.take(&minute, 1, at(0));
        // The clock's minute ends at 1 020 000 ms, 20 s on.
        assert!(
            matches!(cell.take(&minute, 1, at(0)), Decision::Deny { retry_at } if retry_at == at(20_000))
        );
    }

    #[test]
    fn nothing_overflows_at_the_end_of_the_clock() {
        let quota = quota("1/366d");
        let mut cell = Fixed::default();
        for _ in 0..3 {
            let _ = cell.reserve(&quota, 1, Instant::NEVER, Instant::NEVER);
        }
        assert!(matches!(
            cell.reserve(&quota, 1, Instant::NEVER, Instant::NEVER),
            Decision::Deny { retry_at: Instant::NEVER }
        ));
    }
}
