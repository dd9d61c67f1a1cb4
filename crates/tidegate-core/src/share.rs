//! Decides which of several weighted partitions of one limit goes next: those who wait share by weight, and what nobody
//! waits for is lent to whoever asks.

/// A partition as a decision needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its share of the limit, relative to the other weights. At least 1.
    pub weight: u32,
    /// Most calls in flight that it may have, borrowed ones included.
    pub ceiling: u32,
    /// Its calls in flight.
    pub in_flight: u32,
    /// Its calls in line.
    pub queued: u32,
}

impl Part {
    /// Whether a newcomer of this partition goes at once: a permit is free in all, and it overtakes nobody of its own.
    pub const fn goes(&self, free: u32) -> bool {
        free > 0 && self.queued == 0 && self.in_flight < self.ceiling
    }

    /// Whether one of its waiters may go.
    const fn may_go(&self) -> bool {
        self.queued > 0 && self.in_flight < self.ceiling
    }
}

/// The partition whose waiter gets the next free permit: the one that has least for its weight, the first of equals.
///
/// A partition that lent its share gets the next permits that come back, until it has it again.
pub fn next(parts: impl Iterator<Item = Part>) -> Option<usize> {
    parts
        .enumerate()
        .filter(|(_, part)| part.may_go())
        .min_by(|(_, a), (_, b)| {
            // in_flight / weight, compared without division.
            let load = |part: &Part, other: &Part| u64::from(part.in_flight) * u64::from(other.weight);
            load(a, b).cmp(&load(b, a))
        })
        .map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(weight: u32, in_flight: u32, queued: u32) -> Part {
        Part { weight, ceiling: 100, in_flight, queued }
    }

    #[test]
    fn who_has_least_for_its_weight_goes_next() {
        for (parts, expected) in [
            ([part(1, 0, 0), part(1, 0, 0)], None),
            ([part(1, 9, 1), part(1, 0, 0)], Some(0)), // borrows what nobody waits for
            ([part(1, 5, 1), part(1, 4, 1)], Some(1)),
            ([part(3, 5, 1), part(1, 2, 1)], Some(0)), // 5/3 is less than 2/1
            ([part(3, 6, 1), part(1, 2, 1)], Some(0)), // the first of equals
            ([Part { ceiling: 4, ..part(1, 4, 9) }, part(1, 50, 1)], Some(1)),
        ] {
            assert_eq!(next(parts.into_iter()), expected, "{parts:?}");
        }
    }

    #[test]
    fn a_newcomer_overtakes_nobody_of_its_own() {
        assert!(part(1, 5, 0).goes(1));
        assert!(!part(1, 5, 0).goes(0) && !part(1, 5, 1).goes(1));
        assert!(!Part { ceiling: 5, ..part(1, 5, 0) }.goes(1));
    }

    proptest! {
        #[test]
        fn partitions_that_all_wait_end_up_with_their_shares(weights in prop::collection::vec(1u32..9, 1..6)) {
            let all: u32 = weights.iter().sum();
            let mut parts: Vec<_> = weights.iter().map(|weight| part(*weight, 0, u32::MAX)).collect();
            parts.iter_mut().for_each(|part| part.ceiling = u32::MAX);
            for _ in 0..all * 10 {
                let at = next(parts.iter().copied()).expect("all wait");
                parts[at].in_flight += 1;
            }
            for part in parts {
                prop_assert!(part.in_flight.abs_diff(part.weight * 10) <= 1, "{:?}", part);
            }
        }
    }
}
