//! Many nodes, one ledger, and between them a network that drops, delays, repeats and reorders whatever it likes: what
//! is spent never exceeds the limit, at the instant of spending, on the store's clock.
//!
//! Nodes die and start anew, their clocks drift by a percent, the ledger is lost or set back, limits change.

mod fleet {
    pub(crate) mod check;
    pub(crate) mod history;
    pub(crate) mod world;
}

use fleet::{
    history::{Kind, Op},
    world::World,
};
use proptest::prelude::*;

/// What happens in a fleet, the everyday more often than the rest.
fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0_u8..5, 1_u32..4).prop_map(|(node, cost)| Op::Call { node, cost }),
        1 => (0_u8..5, 4_u32..30).prop_map(|(node, cost)| Op::Call { node, cost }),
        4 => (0_u8..5, 1_u32..60).prop_map(|(node, calls)| Op::Rush { node, calls }),
        10 => any::<u8>().prop_map(Op::Deliver),
        2 => any::<u8>().prop_map(Op::Repeat),
        1 => any::<u8>().prop_map(Op::Drop),
        4 => (1_u32..3000).prop_map(Op::Pass),
        3 => (3000_u32..400_000).prop_map(Op::Pass),
        3 => (0_u8..5, 1_u32..250).prop_map(|(node, units)| Op::Hoard { node, units }),
        2 => Just(Op::Saturate),
        3 => (0_u8..5).prop_map(Op::SpendAll),
        2 => (0_u8..5).prop_map(Op::HandBackTwice),
        2 => any::<u8>().prop_map(Op::Late),
        4 => (any::<u8>(), -400_i32..400).prop_map(|(of, by)| Op::ToEdge { of, by }),
        1 => (0_u8..5).prop_map(Op::GiveUp),
        1 => (0_u8..5).prop_map(Op::HandBack),
        1 => (0_u8..5).prop_map(Op::Exhausted),
        1 => (0_u8..5).prop_map(Op::Refund),
        1 => (0_u8..5, 0_u32..9).prop_map(|(node, beyond)| Op::Owe { node, beyond }),
    ]
}

fn with_faults() -> impl Strategy<Value = Op> {
    prop_oneof![
        30 => op(),
        1 => (0_u8..5).prop_map(Op::Die),
        1 => Just(Op::Snapshot),
        2 => Just(Op::Lose),
        1 => Just(Op::SetBack),
        2 => (0_u8..5).prop_map(Op::Reassert),
    ]
}

fn with_limits() -> impl Strategy<Value = Op> {
    prop_oneof![20 => op(), 1 => (1_u32..60).prop_map(Op::Limit)]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Aligned),
        Just(Kind::LongAligned),
        Just(Kind::FirstCall),
        Just(Kind::Sliding),
        Just(Kind::Bucket)
    ]
}

fn limit() -> impl Strategy<Value = u32> {
    prop_oneof![0_u32..6, 6_u32..200]
}

/// Drifts of the nodes' clocks, in millionths.
fn drifts() -> impl Strategy<Value = [i64; 5]> {
    prop::array::uniform5(-10_000_i64..=10_000)
}

/// What random histories meet too seldom, for all laws and some limits.
fn always(ops: &[Op]) {
    for kind in [Kind::Aligned, Kind::LongAligned, Kind::FirstCall, Kind::Sliding, Kind::Bucket] {
        for limit in [1, 2, 10, 50, 200] {
            for drifts in [[0; 5], [-10_000; 5], [10_000, -10_000, 10_000, -10_000, 0]] {
                let mut world = World::new(kind, limit, drifts);
                ops.iter().for_each(|op| world.step(*op));
                if let Err(over) = world.check() {
                    panic!("{kind:?} of {limit}: {over}");
                }
            }
        }
    }
}

#[test]
fn credit_that_is_spent_as_late_as_it_lives_is_within_the_limit() {
    let hoard = |node| Op::Hoard { node, units: 100 };
    for by in [-20_000, 0, 7000, 9000] {
        let late = Op::ToEdge { of: 3, by };
        always(&[hoard(0), hoard(1), late, Op::SpendAll(0), Op::SpendAll(1), Op::Saturate]);
        always(&[Op::Saturate, Op::Pass(990_000), hoard(0), hoard(1), late, Op::Saturate, Op::SpendAll(0)]);
    }
}

#[test]
fn what_is_given_back_is_not_given_back_again_by_a_late_copy() {
    let hoard = Op::Hoard { node: 0, units: 60 };
    for pass in [10, 110_000, 220_000, 350_000] {
        let back = [hoard, Op::HandBackTwice(0), Op::Saturate, Op::Pass(pass), Op::Call { node: 1, cost: 1 }];
        always(&[&back[..], &[Op::Late(0), Op::Saturate, Op::Late(0), Op::Saturate]].concat());
    }
}

#[test]
fn what_is_refunded_late_does_not_count_in_another_window() {
    let hoard = Op::Hoard { node: 0, units: 30 };
    for edge in 0..6 {
        let next = Op::ToEdge { of: edge, by: 50 };
        let refunds = [Op::Refund(0); 25];
        let before = [hoard, Op::SpendAll(0), Op::Saturate, next, hoard];
        always(&[&before[..], &refunds[..], &[Op::SpendAll(0), Op::Saturate]].concat());
    }
}

/// Histories for each law. `PROPTEST_CASES` asks for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(100)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn nothing_the_network_does_makes_a_fleet_spend_more_than_the_limit(
        kind in kind(), limit in limit(), drifts in drifts(), ops in prop::collection::vec(op(), 1..120)
    ) {
        let mut world = World::new(kind, limit, drifts);
        ops.into_iter().for_each(|op| world.step(op));
        world.check()?;
    }

    #[test]
    fn a_lost_ledger_over_grants_only_what_no_node_that_is_left_has_seen(
        kind in kind(), limit in limit(), drifts in drifts(), ops in prop::collection::vec(with_faults(), 1..120)
    ) {
        let mut world = World::new(kind, limit, drifts);
        ops.into_iter().for_each(|op| world.step(op));
        world.check()?;
    }

    #[test]
    fn while_a_limit_changes_no_window_spends_more_than_the_highest_of_it(
        kind in kind(), limit in limit(), drifts in drifts(), ops in prop::collection::vec(with_limits(), 1..120)
    ) {
        let mut world = World::new(kind, limit, drifts);
        ops.into_iter().for_each(|op| world.step(op));
        world.check()?;
    }
}
