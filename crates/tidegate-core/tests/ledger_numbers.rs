//! No number of the ledger leaves what a double holds exactly, whatever it is asked: a store whose numbers are
//! doubles then computes the same.

use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::{
    Algorithm, Quota, Rate,
    lease::Node,
    ledger::{Ask, Book, Calendar, Epoch, Law, Mark, Micros, Opening, Reply, Rule, Seen},
};

/// The last number below which a double holds every whole one.
const EXACT: u64 = 1 << 53;
/// The year 2100, in microseconds.
const LATE: Micros = 4_102_444_800_000_000;

fn rates() -> impl Strategy<Value = Rate> {
    let count = prop_oneof![0_u32..4, 1_u32..100_000, any::<u32>(), Just(u32::MAX)];
    let millis = prop_oneof![1_u64..5000, 1_u64..31_622_400_000, Just(31_622_400_000)];
    (count, millis)
        .prop_map(|(count, millis)| Rate::new(count, Duration::from_millis(millis)).expect("in bounds"))
}

fn rules() -> impl Strategy<Value = Rule> {
    let life = prop::option::of((10_u64..3_600_000).prop_map(Duration::from_millis));
    let kind = 0_u8..6;
    (rates(), any::<u32>(), kind, life, 0_u64..400, 1_u32..1000).prop_filter_map(
        "a burst that takes more than ten years",
        |(rate, burst, kind, life, prohibit, divisor)| {
            let quota = |algorithm| Quota::of(rate).algorithm(algorithm).build().ok();
            let builder = match kind {
                0 => Rule::of(quota(Algorithm::FixedWindow)?),
                1 => Rule::of(quota(Algorithm::FixedWindow)?).opening(Opening::FirstCall),
                2 => Rule::of(quota(Algorithm::SlidingWindow)?),
                3 => Rule::of(quota(Algorithm::TokenBucket)?),
                4 => Rule::of(Quota::of(rate).burst(burst.max(1)).build().ok()?),
                _ => Rule::each(Calendar::Month, burst),
            };
            let builder = builder.prohibit(Duration::from_secs(prohibit * 40_000)).divisor(divisor);
            life.map_or(builder, |life| builder.life(life)).build().ok()
        },
    )
}

fn asks() -> impl Strategy<Value = (Ask, Micros, bool)> {
    let units = || prop_oneof![Just(0_u32), 1_u32..100, any::<u32>()];
    let times = || prop_oneof![0_u64..2000, 0_u64..LATE];
    let node = 0_u64..4;
    (
        node,
        0_u64..1000,
        [units(), units(), units(), units(), units()],
        times(),
        times(),
        times(),
        any::<bool>(),
    )
        .prop_map(|(node, seq, [least, need, want, back, debt], of, level, then, jumps)| {
            let seen = Seen { epoch: seq / 2, mark: Mark { of, level } };
            let node = Node(node);
            (Ask { node, seq, least, need: need.max(least), want, back, of, debt, seen }, then, jumps)
        })
}

fn is_exact(reply: &Reply) -> bool {
    let numbers =
        [reply.of, reply.life, reply.reset_in, reply.retry_in, reply.mark.of, reply.mark.level, reply.epoch];
    numbers.iter().all(|number| *number < EXACT)
}

proptest! {
    #[test]
    fn no_number_of_the_ledger_leaves_what_a_double_holds(
        rule in rules(), asks in prop::collection::vec(asks(), 1..60)
    ) {
        if let Law::Bucket { count, period, burst, refill } = rule.law() {
            prop_assert!(u128::from(burst) * u128::from(period) + u128::from(count) < u128::from(EXACT));
            prop_assert!(u128::from(refill) * u128::from(count) < u128::from(EXACT) + u128::from(count));
        }
        prop_assert!(rule.window() < EXACT && rule.largest() <= u64::from(rule.limit()).max(1));
        let (mut book, mut epoch, mut now) = (Book::default(), Epoch::new(5), 10_u64);
        for (ask, then, jumps) in asks {
            now = if jumps { then } else { (now + then % 5_000_000).min(LATE) };
            epoch = epoch.at(ask.seen.epoch, now);
            let reply = book.grant(&rule, &ask, now, epoch);
            prop_assert!(is_exact(&reply), "{reply:?}");
            prop_assert!(reply.granted <= rule.limit() && reply.remaining <= rule.limit(), "{reply:?}");
            prop_assert!(reply.life <= rule.life(), "{reply:?}");
            prop_assert!(reply.granted == 0 || reply.life > 0, "{reply:?}");
            let state = book.state();
            let slices: u64 = state.slices.iter().map(|(_, granted)| granted).sum();
            prop_assert!([state.at, state.of, state.level, state.debt, state.barred, slices].iter().all(|n| *n < EXACT));
            prop_assert!(state.slices.len() <= 102 && state.nodes.len() <= 4);
            prop_assert!(book.keep(&rule, now) < EXACT);
            let _ = book.inspect(&rule, now);
        }
    }
}
