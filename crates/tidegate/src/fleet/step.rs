//! The words in which a shard speaks with those who call it.

use tidegate_core::{
    Instant,
    credit::Draft,
    ledger::{Ask, Reply, Rule},
};
use tokio::sync::oneshot;

use super::slot::{Answer, Receipt};
use crate::throttle::Key;

/// What a call may do while it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// It takes an answer or leaves.
    None,
    /// It waits in line.
    Waits,
    /// It takes what is in hand or leaves, and nothing is asked: the store is away.
    Away,
    /// It goes on, and only its trace waits in line, to be counted.
    Ghost,
}

/// What became of a call at once.
pub(super) enum Local {
    Granted(Receipt),
    /// It waits for this.
    Waiting(oneshot::Receiver<Answer>),
    /// An answer is needed, and the call does not wait for it; or there is none to be had.
    Unknown,
    Denied(Instant),
    Impossible,
    /// No room for another key.
    Full,
    /// No room in line.
    Crowded,
    Closed,
}

/// A question to be sent.
pub(super) struct Errand {
    pub(super) whose: Whose,
    pub(super) key: Key,
    pub(super) draft: Draft,
    /// Under which rule, and in which era of it.
    pub(super) rule: Rule,
    pub(super) era: u32,
}

/// Whose question it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The key's account.
    Account,
    /// What is held aside for an outage.
    Aside,
    /// An account that was forgotten: nobody hears the answer.
    Nobody,
}

/// At most two questions come of one step: that of an account, and one beside it.
pub(super) type Errands = [Option<Errand>; 2];

/// An answer to a question of an account, or that there is none.
pub(super) struct Landed<'a> {
    pub(super) key: Key,
    pub(super) ask: &'a Ask,
    pub(super) era: u32,
    /// How many losses of the ledger were known when it was sent.
    pub(super) told: u32,
    pub(super) reply: Option<&'a Reply>,
    pub(super) sent_at: Instant,
    pub(super) now: Instant,
}

/// What a call is and may.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    pub(super) key: Key,
    pub(super) cost: u32,
    pub(super) now: Instant,
    pub(super) patience: Patience,
    pub(super) told: u32,
}

/// An answer for a waiter, to be given outside the lock.
pub(super) enum Delivery {
    Receipt(oneshot::Sender<Answer>, Receipt),
    Plain(oneshot::Sender<Answer>, Answer),
}
