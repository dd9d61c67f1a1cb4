//! What all accounts of one limit have in common.

use std::time::Duration;

use crate::{
    Instant,
    ledger::{Law, Micros, Rule},
    nanos,
};

/// How much faster the store's clock may run than a node's, in parts of a million.
///
/// Clocks of machines are off by less than 100, steered ones slewed by at most 500 for a while: 200 between two of
/// them costs nothing, and a fleet that slews harder says so.
pub const DEFAULT_DRIFT: u32 = 200;
/// The most that clocks may differ, in parts of a million.
pub const MAX_DRIFT: u32 = 100_000;

/// What all accounts of one limit have in common. `Copy`: a driver keeps one and changes it as it learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    largest: u32,
    drift: u32,
    /// Whether credit that is given back can be granted again: of a bucket, hardly.
    keeps: bool,
    /// Nanoseconds.
    life: u64,
    window: u64,
    round_trip: u64,
}

impl Terms {
    /// The terms of a rule, with the [`DEFAULT_DRIFT`] and a round trip of 1 ms.
    pub fn of(rule: &Rule) -> Self {
        Self {
            largest: u32::try_from(rule.largest()).unwrap_or(u32::MAX),
            drift: DEFAULT_DRIFT,
            keeps: !matches!(rule.law(), Law::Bucket { .. }),
            life: rule.life().saturating_mul(1000),
            window: rule.window().saturating_mul(1000),
            round_trip: 1_000_000,
        }
    }

    /// Sets how much faster the store's clock may run than this node's, in parts of a million, at most [`MAX_DRIFT`].
    #[must_use]
    pub fn drift(mut self, millionths: u32) -> Self {
        self.drift = millionths.min(MAX_DRIFT);
        self
    }

    /// Sets how long a question takes to be answered, as measured: refills are asked for so much ahead, twice.
    #[must_use]
    pub fn round_trip(mut self, time: Duration) -> Self {
        self.round_trip = nanos(time);
        self
    }

    /// The most that one call may cost.
    pub const fn largest(&self) -> u32 {
        self.largest
    }

    pub(super) const fn keeps(&self) -> bool {
        self.keeps
    }

    pub(super) const fn life(&self) -> u64 {
        self.life
    }

    pub(super) const fn window(&self) -> u64 {
        self.window
    }

    pub(super) const fn trip(&self) -> u64 {
        self.round_trip
    }

    /// Whether more than an eighth of a life is left of credit that may be spent `until`.
    pub(super) const fn is_fresh(&self, until: Instant, now: Instant) -> bool {
        now.as_nanos() + self.life / 8 < until.as_nanos()
    }

    /// Whether credit lives as long as credit ever does: no window cuts it short, so it can be had anew before it dies.
    pub(super) const fn is_whole(&self, life: Micros) -> bool {
        life.saturating_mul(1000) >= self.life
    }

    /// Until when credit may be spent that was asked for at `sent_at` and lives for `life` by the store's clock.
    pub(super) fn until(&self, sent_at: Instant, life: Micros) -> Instant {
        let life = u128::from(life) * 1_000_000_000 / (1_000_000 + u128::from(self.drift));
        sent_at + Duration::from_nanos(u64::try_from(life).unwrap_or(u64::MAX))
    }
}
