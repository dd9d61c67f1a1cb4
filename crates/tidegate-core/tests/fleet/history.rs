//! What may happen in a fleet, one thing after the other.

use std::time::Duration;

use tidegate_core::{
    Algorithm, Quota, Rate,
    ledger::{Ask, Mark, Micros, Opening, Reply, Rule},
};

const PERIOD: Duration = Duration::from_secs(1);

/// The law of a history's limit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Aligned,
    /// Credit dies long before its window.
    LongAligned,
    FirstCall,
    Sliding,
    Bucket,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Call {
        node: u8,
        cost: u32,
    },
    Rush {
        node: u8,
        calls: u32,
    },
    Deliver(u8),
    Repeat(u8),
    Drop(u8),
    Pass(u32),
    GiveUp(u8),
    HandBack(u8),
    Exhausted(u8),
    Refund(u8),
    Owe {
        node: u8,
        beyond: u32,
    },
    Die(u8),
    Snapshot,
    Lose,
    SetBack,
    Reassert(u8),
    /// A node comes to hold much, and spends nothing yet.
    Hoard {
        node: u8,
        units: u32,
    },
    /// A node spends all it holds.
    SpendAll(u8),
    /// A node hands back, and the network keeps a copy.
    HandBackTwice(u8),
    /// A copy arrives, and not for the last time.
    Late(u8),
    /// All nodes call until nothing is left, over a network at its best.
    Saturate,
    /// Time passes to just before or after the end of a window, a slice, or a life of credit.
    ToEdge {
        of: u8,
        by: i32,
    },
    Limit(u32),
}

/// The limit of a second that a history runs under.
pub(crate) fn rule(kind: Kind, limit: u32) -> Rule {
    let rate = Rate::new(limit, PERIOD).expect("a second is a period");
    let quota = |algorithm| Quota::of(rate).algorithm(algorithm).build().expect("valid");
    match kind {
        Kind::Aligned => Rule::of(quota(Algorithm::FixedWindow)).build(),
        Kind::LongAligned => Rule::of(quota(Algorithm::FixedWindow)).life(Duration::from_millis(100)).build(),
        Kind::FirstCall => Rule::of(quota(Algorithm::FixedWindow)).opening(Opening::FirstCall).build(),
        Kind::Sliding => Rule::of(quota(Algorithm::SlidingWindow)).life(Duration::from_millis(50)).build(),
        Kind::Bucket => Rule::of(quota(Algorithm::TokenBucket)).build(),
    }
    .expect("the rules of this test are valid")
}

/// What the network carries.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Message {
    Question(Ask),
    Answer { ask: Ask, reply: Reply },
}

/// A ledger that was lost and is not repaired yet.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) at: Micros,
    /// The epoch before.
    pub(crate) epoch: u64,
    /// The marks of that epoch which the new ledger was told of.
    pub(crate) heard: Vec<Mark>,
}
