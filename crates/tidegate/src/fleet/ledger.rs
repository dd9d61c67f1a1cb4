//! What a store of credit can do.

use std::{future::Future, sync::Arc, time::Duration};

use tidegate_core::{
    Instant,
    ledger::{Ask, Reply, Rule, Standing},
};
use tokio::sync::broadcast;

use super::error::LedgerError;
use crate::throttle::Key;

/// Whose account it is: a limit, and a key within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subject<'a> {
    /// The name of the limit, the same on all nodes.
    pub limit: &'a str,
    /// The key, made with a [`Seed`](crate::throttle::Seed) that all nodes share.
    pub key: Key,
}

/// The shared ledger: counts credit when it is granted, by its own clock, in one atomic step.
///
/// It equals [`Book`](tidegate_core::ledger::Book), question by question. All that a node may rely on is that: nothing
/// else it does, late, never or twice, changes what the fleet spends in all.
///
/// A ledger that lost what it knew begins another [`Epoch`](tidegate_core::ledger::Epoch), and grants nothing for
/// [`NOTICED_WITHIN`] and a life of credit: until then all nodes that are alive have told it what they saw.
///
/// Every operation ends within a deadline of the ledger's own, and dropping its future is always allowed: the ledger
/// may have booked the question or not.
pub trait Ledger: Send + Sync + 'static {
    /// Asks for credit, gives some back, and says what is owed, as `ask` tells.
    ///
    /// # Errors
    /// [`LedgerError`] when there is no answer; the question may have been booked.
    fn ask(
        &self,
        subject: Subject<'_>,
        rule: &Rule,
        ask: &Ask,
    ) -> impl Future<Output = Result<Reply, LedgerError>> + Send;

    /// Reads an account; nothing is changed by looking.
    ///
    /// # Errors
    /// [`LedgerError`] when there is no answer.
    fn inspect(
        &self,
        subject: Subject<'_>,
        rule: &Rule,
    ) -> impl Future<Output = Result<Standing, LedgerError>> + Send;

    /// Changes an account by an operator's hand, and says how it stood before and after.
    ///
    /// # Errors
    /// [`LedgerError`] when there is no answer; the change may have been made.
    fn adjust(
        &self,
        subject: Subject<'_>,
        rule: &Rule,
        adjustment: Adjustment,
    ) -> impl Future<Output = Result<Adjusted, LedgerError>> + Send;

    /// What the ledger says unasked, from now on. Hints that are lost, late or repeated change how fast nodes are and
    /// how much they hand back, never what is admitted in all; so the channel may be short and drop the oldest.
    fn hints(&self) -> broadcast::Receiver<Hint>;

    /// How many parts of it may be away while the others are there: a power of two, at most [`MOST_PARTS`]. A key is in
    /// the part of its [bits](Key::bits) modulo this number. Default: 1, the whole.
    fn parts(&self) -> u32 {
        1
    }

    /// Whether this ledger itself tells again, after a loss of what it knew, what this node saw of a subject: whoever holds
    /// an account of it need not, then. Default: no.
    fn tells_again(&self, _subject: Subject<'_>) -> bool {
        false
    }

    /// When the part that a key is in answered last, whomever and however late, where that is known. A question that is
    /// not answered in time while others are has met a ledger with too much to do, and not one that is away.
    /// Default: `None`, nothing but the answers themselves says so.
    fn heard_at(&self, _key: Key) -> Option<Instant> {
        None
    }
}

/// The most parts of a ledger that are told apart.
pub const MOST_PARTS: u32 = 256;

/// The longest time in which a node notices that the ledger began another epoch, even one that has no calls.
pub const NOTICED_WITHIN: Duration = Duration::from_secs(1);

/// What an operator does to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adjustment {
    /// Lets so many units more be granted in this window, as far as so many were; what is owed is forgiven first.
    Relieve(u64),
    /// Takes so many units away; what is not there is owed.
    Charge(u64),
    /// Forgets what was granted, owed and barred. What nodes hold they may still spend, so this window may see as much
    /// more than its limit.
    Reset,
}

/// An account before and after an [`Adjustment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjusted {
    /// As it stood before.
    pub before: Standing,
    /// As it stands now.
    pub after: Standing,
}

/// What a ledger says unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The limit's name.
    pub limit: Arc<str>,
    /// The key within it.
    pub key: Key,
    /// What it says of it.
    pub tidings: Tidings,
}

/// What a [`Hint`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tidings {
    /// Somebody asked for more than is left: whoever holds credit it does not use gives it back, and nobody fetches
    /// ahead for so long.
    Exhausted(Duration),
    /// An operator changed the account, or its limit was lowered: credit in hand goes back.
    Recall,
    /// More can be had than was said before: "exhausted" holds no longer.
    Relieved,
}
