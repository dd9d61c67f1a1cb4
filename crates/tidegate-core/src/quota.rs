//! What a limit on calls per time allows, and the words its counters answer with.

use std::{fmt, time::Duration};

use crate::{Instant, Rate, nanos, window::Grain};

/// How calls are counted against a [`Quota`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// GCRA: a steady rate with a burst. Exact in any span: never more than burst + rate × time.
    #[default]
    TokenBucket,
    /// A count that starts anew at each multiple of the period on the clock. Exact in each window; two windows
    /// that touch may together admit twice the limit around their border.
    FixedWindow,
    /// Never more than the limit in any span of one period, wherever it begins. May admit a little less; see
    /// [`Sliding`](crate::Sliding) for how much.
    SlidingWindow,
}

/// A limit on calls per time. One that exists is valid, and its arithmetic cannot overflow.
///
/// ```
/// # use tidegate_core::{Algorithm, Quota, Rate};
/// let rate: Rate = "100/s".parse()?;
/// let steady = Quota::of(rate).burst(10).build()?;
/// let window = Quota::of(rate).algorithm(Algorithm::FixedWindow).build()?;
/// assert_eq!((steady.limit(), window.limit()), (10, 100));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    rate: Rate,
    algorithm: Algorithm,
    pub(crate) limit: u32,
    /// The period of the rate in nanoseconds.
    pub(crate) period: u64,
    /// Units per period, and the denominator of every [`Span`]; 1 when the rate is 0, which is decided earlier.
    pub(crate) count: u32,
    /// How long one unit takes to regenerate.
    pub(crate) interval: Span,
    /// How long the whole limit takes to regenerate.
    pub(crate) refill: Span,
    pub(crate) grain: Grain,
}

/// A quota in the making.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct QuotaBuilder {
    rate: Rate,
    burst: Option<u32>,
    algorithm: Algorithm,
}

impl Quota {
    /// Begins a quota of `rate`, as a token bucket whose burst is the rate's count.
    pub const fn of(rate: Rate) -> QuotaBuilder {
        QuotaBuilder { rate, burst: None, algorithm: Algorithm::TokenBucket }
    }

    /// The rate.
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// How calls are counted.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The most units that a rested counter admits at once: the burst of a token bucket, the count of a window. 0 denies all.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// The time in which [`limit`](Self::limit) units regenerate: the period of a window, and of a token bucket
    /// whose burst is its rate's count.
    pub const fn window(&self) -> Duration {
        Duration::from_nanos(self.refill.ns)
    }

    /// How long `units` take to regenerate, exactly. `units` is at most the limit, so that nothing overflows.
    pub(crate) fn span(&self, units: u32) -> Span {
        if units == 1 { self.interval } else { Span::of(units, self.period, self.count) }
    }
}

impl QuotaBuilder {
    /// Sets the most units at once out of a rested token bucket. Default: the count of the rate.
    pub const fn burst(mut self, burst: u32) -> Self {
        self.burst = Some(burst);
        self
    }

    /// Sets how calls are counted. Default: [`Algorithm::TokenBucket`].
    pub const fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Makes the quota.
    ///
    /// # Errors
    /// [`InvalidQuota`] when the burst is 0, belongs to a window, or takes more than 146 years to regenerate.
    pub fn build(self) -> Result<Quota, InvalidQuota> {
        let Self { rate, burst, algorithm } = self;
        if burst == Some(0) {
            return Err(InvalidQuota::NoBurst);
        }
        if burst.is_some() && algorithm != Algorithm::TokenBucket {
            return Err(InvalidQuota::BurstOfWindow);
        }
        let limit = if rate.count() == 0 { 0 } else { burst.unwrap_or(rate.count()) };
        let (period, count) = (nanos(rate.period()), rate.count().max(1));
        if u128::from(limit) * u128::from(period) / u128::from(count) > u128::from(MAX_REFILL) {
            return Err(InvalidQuota::BurstTooSlow { burst: limit, rate });
        }
        let interval = Span::of(1, period, count);
        let refill = Span::of(limit, period, count);
        Ok(Quota { rate, algorithm, limit, period, count, interval, refill, grain: Grain::of(limit, period) })
    }
}

/// The longest time a burst may take to regenerate, in nanoseconds: 146 years, so that now plus it fits the clock.
const MAX_REFILL: u64 = u64::MAX / 4;

/// What is wrong with a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidQuota {
    /// The burst is 0.
    NoBurst,
    /// A window has no burst.
    BurstOfWindow,
    /// The burst takes longer than 146 years to regenerate.
    BurstTooSlow {
        /// The burst as given.
        burst: u32,
        /// The rate as given.
        rate: Rate,
    },
}

impl fmt::Display for InvalidQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBurst => {
                f.write_str("a burst of 0 admits nothing; write 1 or more, or a rate of 0 to deny all")
            }
            Self::BurstOfWindow => f.write_str(
                "a burst belongs to a token-bucket; leave it out for a window, whose limit is its rate",
            ),
            Self::BurstTooSlow { burst, rate } => {
                write!(
                    f,
                    "a burst of {burst} at {rate} takes more than 146 years to regenerate; lower the burst or raise the rate"
                )
            }
        }
    }
}

impl std::error::Error for InvalidQuota {}

/// An exact stretch of time, or point in it: whole nanoseconds and a part of one, in fractions of the quota's count.
///
/// A unit at 10 000/s takes 100 000 ns, at 4 000 000 000/s a quarter of one: nothing is rounded between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) ns: u64,
    /// In 1/count of a nanosecond, less than count.
    pub(crate) part: u32,
}

impl Span {
    /// `units` × `period` / `count`; the caller knows that it is at most [`MAX_REFILL`].
    fn of(units: u32, period: u64, count: u32) -> Self {
        let (whole, rest) = (period / u64::from(count), period % u64::from(count));
        let parts = u64::from(units) * rest;
        let ns = u64::from(units).saturating_mul(whole).saturating_add(parts / u64::from(count));
        Self { ns, part: (parts % u64::from(count)) as u32 }
    }

    /// The sum, or `None` past the end of the clock.
    pub(crate) fn plus(self, other: Self, count: u32) -> Option<Self> {
        let (mut ns, mut part) =
            (self.ns.checked_add(other.ns)?, u64::from(self.part) + u64::from(other.part));
        if part >= u64::from(count) {
            part -= u64::from(count);
            ns = ns.checked_add(1)?;
        }
        Some(Self { ns, part: part as u32 })
    }

    /// The difference, or zero when `other` is longer.
    pub(crate) fn minus(self, other: Self, count: u32) -> Self {
        if self <= other {
            return Self::default();
        }
        if self.part >= other.part {
            Self { ns: self.ns - other.ns, part: self.part - other.part }
        } else {
            Self { ns: self.ns - other.ns - 1, part: self.part + (count - other.part) }
        }
    }

    /// Whole nanoseconds, a part counted as one.
    pub(crate) fn ceil(self) -> u64 {
        self.ns.saturating_add(u64::from(self.part > 0))
    }
}

/// What a counter answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// It may go, at once or at the instant it was reserved for; its cost was taken. The grant is what to hand to
    /// [`Counter::refund`] if the call surely was not sent.
    Admit(Grant),
    /// It may not go in time; nothing was taken.
    Deny {
        /// The earliest instant at which it will be admitted if nothing else is meanwhile.
        /// [`Instant::NEVER`] past the end of the clock.
        retry_at: Instant,
    },
    /// It can never go: it costs more than the limit. Nothing was taken.
    Impossible,
}

/// What is left of a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Units that would be admitted now.
    pub remaining: u32,
    /// When the whole limit will be there again if nothing else is admitted.
    pub reset_at: Instant,
}

/// What was taken, when and for when. Given back at most once, into the counter it was taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// When the call may go.
    pub(crate) at: Instant,
    pub(crate) cost: u32,
    /// The counter's stamp just after it.
    pub(crate) stamp: u32,
}

impl Grant {
    /// When the call may go: now, or what it was reserved for.
    pub const fn at(&self) -> Instant {
        self.at
    }

    /// What was taken, in units.
    pub const fn cost(&self) -> u32 {
        self.cost
    }
}

/// An exact counter of one key against one quota: small, `Copy`, and the reference for every store.
///
/// Time does not run backwards within one counter: each `now` is at least as late as the one before.
pub trait Counter: Copy + Default {
    /// Takes `cost` units for a call that goes no later than `by`; to decide without waiting, `by` is `now`.
    ///
    /// A reservation for later is final, and first come, first served. A cost of 0 peeks: it is answered as a
    /// cost of 1 would be, and takes nothing.
    fn reserve(&mut self, quota: &Quota, cost: u32, now: Instant, by: Instant) -> Decision;

    /// Takes `cost` units now, or says when.
    fn take(&mut self, quota: &Quota, cost: u32, now: Instant) -> Decision {
        self.reserve(quota, cost, now, now)
    }

    /// Gives back what a call took that surely was not sent, as far as it has not regenerated yet.
    ///
    /// `last` is at least as late as every instant this counter has admitted a call for, which is later than the
    /// clock while reservations wait: a hole before them is not given away twice.
    fn refund(&mut self, quota: &Quota, grant: Grant, now: Instant, last: Instant);

    /// What is left.
    fn standing(&self, quota: &Quota, now: Instant) -> Standing;

    /// Whether forgetting it, for good, changes nothing.
    fn is_idle(&self, quota: &Quota, now: Instant) -> bool;

    /// The counter that denies whatever either of the two would deny.
    #[must_use]
    fn join(self, other: Self, quota: &Quota) -> Self;

    /// Carries what was counted over to a changed quota of the same algorithm.
    fn update(&mut self, old: &Quota, new: &Quota);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn a_quota_that_exists_is_valid() {
        assert_eq!(Quota::of(rate("5/s")).burst(0).build(), Err(InvalidQuota::NoBurst));
        let window = Quota::of(rate("5/s")).burst(9).algorithm(Algorithm::SlidingWindow);
        assert_eq!(window.build(), Err(InvalidQuota::BurstOfWindow));
        let slow = Quota::of(rate("1/366d")).burst(u32::MAX).build().unwrap_err();
        assert_eq!(
            slow.to_string(),
            "a burst of 4294967295 at 1/366d takes more than 146 years to regenerate; lower the burst or raise the rate"
        );
        assert_eq!(Quota::of(rate("0/s")).burst(7).build().unwrap().limit(), 0);
    }

    #[test]
    fn extreme_rates_are_exact() {
        let fast = Quota::of(rate("4000000000/s")).build().unwrap();
        assert_eq!(fast.interval, Span { ns: 0, part: 1_000_000_000 });
        assert_eq!(fast.refill, Span { ns: 1_000_000_000, part: 0 });
        let slow = Quota::of(rate("1/366d")).build().unwrap();
        assert_eq!(slow.interval, Span { ns: 366 * 86_400_000_000_000, part: 0 });
        let third = Quota::of(rate("3/s")).build().unwrap();
        assert_eq!(third.span(2), Span { ns: 666_666_666, part: 2 });
    }

    #[test]
    fn spans_carry_and_borrow_their_parts() {
        let (a, b) = (Span { ns: 5, part: 2 }, Span { ns: 1, part: 2 });
        assert_eq!(a.plus(b, 3), Some(Span { ns: 7, part: 1 }));
        assert_eq!(Span { ns: 7, part: 1 }.minus(b, 3), a);
        assert_eq!(b.minus(a, 3), Span::default());
        assert_eq!(Span { ns: u64::MAX, part: 2 }.plus(Span { ns: 0, part: 1 }, 3), None);
    }
}
