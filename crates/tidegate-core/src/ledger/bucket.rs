//! The token bucket in the ledger: one instant, at which the bucket is full again (GCRA), in microseconds.

use super::{
    DEFAULT_LIFE, Law, MAX_LIFE, MIN_LIFE, Mark, Micros, micros,
    rule::exact,
    used::{Count, Used},
};
use crate::Quota;

/// What a bucket is in the ledger, so that spending up to one life late stays within the quota's envelope.
pub(super) struct Shape {
    pub(super) law: Law,
    pub(super) life: Micros,
    pub(super) tolerance: Micros,
    /// The time the whole limit takes to flow in.
    pub(super) refill_of_limit: u128,
}

impl Shape {
    /// Credit granted at g is spent at most one life later: in any time t at most burst' + rate × (t + life) is
    /// spent. With burst' = burst − rate × (life + 1 µs) that is burst + rate × t; the microsecond is for instants
    /// being rounded.
    pub(super) fn of(quota: &Quota, wish: Option<Micros>) -> Self {
        let limit = u128::from(quota.limit());
        let (count, period) = in_lowest_terms(quota);
        let flows_in = |units: u128| units * period / count;
        let refill_of_limit = flows_in(limit);
        let tenth = u64::try_from(refill_of_limit / 10).unwrap_or(u64::MAX);
        let (least, most) = (micros(MIN_LIFE), micros(MAX_LIFE));
        let wish = wish.unwrap_or_else(|| tenth.min(micros(DEFAULT_LIFE)));
        // So long that one unit stays in the bucket, if that is long enough to be of use.
        let strict = u64::try_from(flows_in(limit.saturating_sub(1))).unwrap_or(u64::MAX).saturating_sub(1);
        let life = wish.min(strict).clamp(least, most);
        let early = (u128::from(life + 1) * count).div_ceil(period);
        let burst = limit.saturating_sub(early).max(1);
        let given_up = flows_in(limit.saturating_sub(burst));
        let tolerance = u128::from(life + 1).saturating_sub(given_up);
        let law = Law::Bucket {
            count: exact(count),
            period: exact(period),
            burst: exact(burst),
            refill: exact((burst * period).div_ceil(count).min(1 << 52)),
        };
        // What is a whole burst in units is at least a life in time, but for rounding: only a bucket that had to
        // keep its one unit is early.
        let tolerance = if strict >= least { 0 } else { exact(tolerance) };
        Self { law, life, tolerance, refill_of_limit }
    }
}

/// Units and microseconds of a quota's rate, in lowest terms, with limit × period below 2^52; a rate that cannot be
/// told exactly in so few digits is a little lower: by less than the refill time of the limit ÷ 71 years.
fn in_lowest_terms(quota: &Quota) -> (u128, u128) {
    let rate = quota.rate();
    let (mut count, mut period) = (u128::from(rate.count().max(1)), u128::from(micros(rate.period())));
    let shared = greatest_common_divisor(count, period);
    (count, period) = (count / shared, period / shared);
    let limit = u128::from(quota.limit().max(1));
    if limit * period >= 1 << 52 {
        let parts = (limit * period).div_ceil(1 << 51).min(count);
        // count / parts rounded down over period / parts rounded up is never the faster rate.
        (count, period) = (count / parts, period.div_ceil(parts));
    }
    (count, period)
}

fn greatest_common_divisor(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// A bucket of one law.
pub(super) struct Bucket {
    pub(super) count: u64,
    pub(super) period: Micros,
    pub(super) burst: u64,
    pub(super) refill: Micros,
}

impl Bucket {
    /// The time in which `units` flow in, at most a burst of them.
    fn flow(&self, units: u64) -> Micros {
        (units * self.period).div_ceil(self.count)
    }

    /// What there is at `now`.
    fn room(&self, used: &Used, now: Micros) -> u64 {
        let spare = (now + self.refill).saturating_sub(used.level.max(now));
        (spare * self.count / self.period).min(self.burst)
    }

    /// The time in which flows in at this rate what flows in during `time` at `rate`, rounded up: three roundings of
    /// numbers below 2^52 are off by less than two. The only numbers here that are not whole, in operations that IEEE 754
    /// leaves no choice in.
    fn at_this_rate(&self, time: Micros, rate: (u64, Micros)) -> Micros {
        let units = time as f64 * rate.0 as f64 / rate.1 as f64;
        let time = (units * self.period as f64 / self.count as f64).ceil() + 2.0;
        time.min(LONGEST) as Micros
    }
}

/// The longest that a bucket takes to fill after its rate was lowered, in microseconds: 142 years.
const LONGEST: f64 = (1_u64 << 52) as f64;

impl Count for Bucket {
    /// What is out of a bucket is a number of units: at another rate they flow in in another time.
    fn roll(&self, used: &mut Used, now: Micros) {
        let rate = (self.count, self.period);
        if used.rate != rate {
            if used.rate.0 > 0 && used.level > now {
                used.level = now + self.at_this_rate(used.level - now, used.rate);
            }
            used.rate = rate;
        }
    }

    fn merge(&self, used: &mut Used, seen: Mark, _: Micros, now: Micros) {
        // Later than that it was never said to be full, unless the clock was ahead.
        used.level = used.level.max(seen.level.min(now + self.refill));
    }

    /// Only what has not flowed in again meanwhile: as if it had never been granted, the bucket would have been full
    /// the sooner. See [`Gcra`](crate::Gcra).
    fn give_back(&self, used: &mut Used, units: u64, of: Micros, now: Micros) {
        let taken = units.min(self.burst) * self.period / self.count;
        let elapsed = now.saturating_sub(of);
        used.level = used.level.saturating_sub(taken.saturating_sub(elapsed));
    }

    fn available(&self, used: &Used, _: u64, now: Micros) -> u64 {
        self.room(used, now)
    }

    fn take(&self, used: &mut Used, units: u64, now: Micros) {
        used.level = used.level.max(now) + self.flow(units);
    }

    fn credit(&self, _: &Used, life: Micros, now: Micros) -> (Micros, Micros) {
        (now, life)
    }

    fn retry_in(&self, used: &Used, units: u64, _: u64, now: Micros) -> Micros {
        (used.level.max(now) + self.flow(units)).saturating_sub(now + self.refill)
    }

    fn reset_in(&self, used: &Used, now: Micros) -> Micros {
        used.level.saturating_sub(now)
    }

    fn mark(&self, used: &Used) -> Mark {
        Mark { of: 0, level: used.level }
    }

    fn step_back(&self, used: &mut Used, _: Micros, at: Micros, now: Micros) {
        used.level = used.level.saturating_sub(at - now);
    }

    fn relieve(&self, used: &mut Used, units: u64, _: Micros) {
        used.level = used.level.saturating_sub(self.flow(units.min(self.burst)));
    }

    fn used(&self, used: &Used, limit: u64, now: Micros) -> u64 {
        limit.saturating_sub(self.room(used, now) + limit.saturating_sub(self.burst))
    }
}
