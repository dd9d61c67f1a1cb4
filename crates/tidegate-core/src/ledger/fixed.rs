//! Fixed windows in the ledger: a count that starts anew with each window of the store's clock.

use super::{
    Law, Mark, Micros,
    calendar::{month_after, month_of},
    used::{Count, Used},
};

/// Windows of one law.
pub(super) struct Windows {
    pub(super) law: Law,
}

impl Windows {
    /// The start of the window that `at` is in; with windows that follow the calls, `at` itself.
    fn start(&self, at: Micros) -> Micros {
        match self.law {
            Law::Aligned { period } => at - at % period,
            Law::Month => month_of(at),
            Law::FirstCall { .. } | Law::Sliding { .. } | Law::Bucket { .. } => at,
        }
    }

    /// The end of the window that begins at `of`.
    fn end(&self, of: Micros) -> Micros {
        match self.law {
            Law::Aligned { period } | Law::FirstCall { period } => of + period,
            Law::Month => month_after(of),
            Law::Sliding { .. } | Law::Bucket { .. } => of,
        }
    }

    fn follows_calls(&self) -> bool {
        matches!(self.law, Law::FirstCall { .. })
    }

    /// Whether windows follow the calls and none is open.
    fn closed(&self, used: &Used) -> bool {
        self.follows_calls() && used.of == 0
    }
}

impl Count for Windows {
    fn roll(&self, used: &mut Used, now: Micros) {
        if self.follows_calls() {
            if used.of > 0 && self.end(used.of) <= now {
                (used.of, used.level) = (0, 0);
            }
        } else if self.start(now) > used.of {
            (used.of, used.level) = (self.start(now), 0);
        }
    }

    fn merge(&self, used: &mut Used, seen: Mark, life: Micros, now: Micros) {
        if self.follows_calls() {
            if seen.of == 0 || self.end(seen.of) <= now {
                return;
            }
            used.of = used.of.max(seen.of.min(now));
            used.level = used.level.max(seen.level);
            return;
        }
        // A window that the clock has not reached yet: it went back. Nothing is granted until it is reached, which
        // is in one life of credit at most.
        let of = seen.of.min(self.start(now + life));
        if of > used.of {
            (used.of, used.level) = (of, seen.level);
        } else if of == used.of {
            used.level = used.level.max(seen.level);
        }
    }

    fn give_back(&self, used: &mut Used, units: u64, of: Micros, _: Micros) {
        if of == used.of {
            used.level -= units.min(used.level);
        }
    }

    fn available(&self, used: &Used, limit: u64, now: Micros) -> u64 {
        if used.of > now { 0 } else { limit.saturating_sub(used.level) }
    }

    fn take(&self, used: &mut Used, units: u64, now: Micros) {
        if units > 0 && self.closed(used) {
            used.of = now;
        }
        used.level += units;
    }

    fn credit(&self, used: &Used, life: Micros, now: Micros) -> (Micros, Micros) {
        if self.closed(used) {
            return (0, 0);
        }
        (used.of, life.min(self.end(used.of).saturating_sub(now)))
    }

    fn retry_in(&self, used: &Used, units: u64, limit: u64, now: Micros) -> Micros {
        if used.of > now {
            used.of - now
        } else if limit.saturating_sub(used.level) >= units {
            0
        } else {
            self.reset_in(used, now)
        }
    }

    fn reset_in(&self, used: &Used, now: Micros) -> Micros {
        if self.closed(used) { 0 } else { self.end(used.of).saturating_sub(now) }
    }

    fn mark(&self, used: &Used) -> Mark {
        Mark { of: used.of, level: used.level }
    }

    fn step_back(&self, used: &mut Used, life: Micros, at: Micros, now: Micros) {
        if self.follows_calls() {
            used.of = used.of.saturating_sub(at - now);
        } else {
            used.of = used.of.min(self.start(now + life));
        }
    }

    fn relieve(&self, used: &mut Used, units: u64, _: Micros) {
        used.level -= units.min(used.level);
    }

    fn used(&self, used: &Used, _: u64, _: Micros) -> u64 {
        used.level
    }
}
