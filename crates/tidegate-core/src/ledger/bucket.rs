//! The token bucket in the ledger: one instant, at which the bucket is full again (GCRA), in microseconds.

use super::{
    DEFAULT_LIFE, Law, MIN_LIFE, Micros, micros,
    rule::{MAX_LIFE, exact},
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

/// Units and microseconds of a quota's rate, in lowest terms, with limit × period below 2^53; a rate that cannot be
/// told exactly in so few digits is a little lower: by less than the refill time of the limit ÷ 142 years.
fn in_lowest_terms(quota: &Quota) -> (u128, u128) {
    let rate = quota.rate();
    let (mut count, mut period) = (u128::from(rate.count().max(1)), u128::from(micros(rate.period())));
    let shared = greatest_common_divisor(count, period);
    (count, period) = (count / shared, period / shared);
    let limit = u128::from(quota.limit().max(1));
    if limit * period >= 1 << 53 {
        let parts = (limit * period).div_ceil(1 << 52).min(count);
        // count / parts rounded down over period / parts rounded up is never the faster rate.
        (count, period) = (count / parts, period.div_ceil(parts));
    }
    (count, period)
}

fn greatest_common_divisor(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}
