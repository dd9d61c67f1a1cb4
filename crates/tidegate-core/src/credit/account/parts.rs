//! The two parts of an account: what most calls look at, and the rest.

use super::Source;
use crate::{Instant, credit::Terms, ledger::Micros};

/// What a call looks at that finds credit, in half a cache line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Purse {
    pub(super) until: Instant,
    pub(super) of: Micros,
    pub(super) units: u32,
    /// With fewer units left a refill is due; 0 while none is of use.
    pub(super) low: u32,
    /// What calls cost, or more, that are denied until `retry_at`.
    pub(super) retry_cost: u32,
    /// The credit in hand dies before its window: it can be had anew.
    pub(super) renews: bool,
    pub(super) asking: bool,
    /// The last question was a call's.
    pub(super) called: bool,
}

/// What an account knows beside what it spends first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reserve {
    pub(super) next_until: Instant,
    pub(super) next_of: Micros,
    /// Calls that cost `retry_cost` or more are denied until then.
    pub(super) retry_at: Instant,
    pub(super) asked_at: Instant,
    pub(super) epoch: u64,
    pub(super) level: u64,
    pub(super) next_units: u32,
    /// What was in hand at the last question, and has come since.
    pub(super) base: u32,
    pub(super) debt: u32,
    /// Units a second.
    pub(super) demand: f32,
}

impl Purse {
    /// Spends `cost` at `now` of credit that is there, fresh and not about to run out, and says what it was paid from. With
    /// `None` nothing was taken, and the [account](super::Account::spend) decides.
    #[inline]
    pub fn spend(&mut self, cost: u32, terms: &Terms, now: Instant) -> Option<Source> {
        if now < self.until
            && (!self.renews || terms.is_fresh(self.until, now))
            && let Some(left) = self.units.checked_sub(cost)
            && left >= self.low
        {
            self.units = left;
            return Some(Source { window: self.of, until: self.until });
        }
        None
    }

    /// Whether a question is under way.
    pub const fn is_asking(&self) -> bool {
        self.asking
    }

    pub(super) fn in_hand(&self, now: Instant) -> u32 {
        if now < self.until { self.units } else { 0 }
    }
}

impl Reserve {
    pub(super) fn in_hand(&self, now: Instant) -> u32 {
        if now < self.next_until { self.next_units } else { 0 }
    }
}
