//! What a fleet's throttle has done and holds now.

use std::time::Duration;

use super::{
    error::LedgerErrorKind,
    slot::{Answer, Receipt, Told, Waiter},
    step::Delivery,
};

/// What a fleet's throttle has done and holds now, on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetStats {
    /// Keys that have an account here.
    pub keys: usize,
    /// Bytes of the tables of accounts as they are now.
    pub bytes: usize,
    /// Credit in hand, in units: what could be spent now without asking.
    pub in_hand: u64,
    /// Credit held aside for an outage, in units.
    pub aside: u64,
    /// Credit that died unspent in hand and was not given back yet, in units.
    pub stranded: u64,
    /// What was spent beyond what was reserved and is not told to the ledger yet, in units.
    pub debt: u64,
    /// What was owed and is not any more, in units: there was no room to remember it until the ledger could be told.
    pub forgiven: u64,
    /// Calls admitted at once, from credit in hand.
    pub local: u64,
    /// Calls admitted after they waited for the ledger.
    pub waited: u64,
    /// Calls refused because the limit is used up, or for want of room.
    pub refused: u64,
    /// Calls refused because the ledger did not answer in time.
    pub unanswered: u64,
    /// Calls admitted from what was held aside, while the ledger did not answer.
    pub from_aside: u64,
    /// Calls admitted without credit, because the limit fails open.
    pub open: u64,
    /// Calls that would have been refused, had the limit been enforced.
    pub shadow_refused: u64,
    /// Calls that this limit admitted and another one refused, or whose caller went away before it heard: nothing was
    /// taken.
    pub undone: u64,
    /// Calls admitted whose credit was given back, as they were not sent.
    pub refunded: u64,
    /// Accounts forgotten to make room for others.
    pub evicted: u64,
    /// Whether the store, or a part of it, is known to be away: no call waits for it, until it answers a question in the
    /// background.
    pub is_away: bool,
    /// How many [parts](super::Ledger::parts) it has.
    pub parts: usize,
    /// How many of them are known to be away.
    pub parts_away: usize,
    /// How long the first of them has been known to be away.
    pub away_for: Option<Duration>,
    /// How often the store, or a part of it, was found to be away so far.
    pub outages: u64,
    /// Questions under way.
    pub asking: usize,
    /// Operations of the store: questions sent.
    pub asked: u64,
    /// Questions not sent, as too many were under way or the store is given a rest.
    pub withheld: u64,
    /// Questions without an answer, in the order of [`LedgerErrorKind::ALL`].
    pub errors: [u64; LedgerErrorKind::ALL.len()],
    /// How long the latest answer took.
    pub latency: Duration,
    /// How long answers take: a moving average.
    pub round_trip: Duration,
    /// Losses of the ledger that were noticed: it began a new epoch.
    pub losses: u64,
    /// The most units that could be admitted beyond the limit now: 0 where the limit is strict, `None` where nothing
    /// bounds it, as it fails open. More than 0 while a lowered limit waits for credit granted before, and for
    /// a bucket with a [tolerance](tidegate_core::ledger::Rule::tolerance).
    pub largest_over: Option<u64>,
}

/// What a shard counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) waited: u64,
    pub(super) refused: u64,
    pub(super) unanswered: u64,
    pub(super) from_aside: u64,
    pub(super) open: u64,
    pub(super) shadow_refused: u64,
    pub(super) undone: u64,
    pub(super) refunded: u64,
    pub(super) evicted: u64,
    pub(super) forgiven: u64,
}

impl Counts {
    /// Lets a waiter go.
    pub(super) fn grant(&mut self, waiter: Waiter, receipt: Receipt, deliveries: &mut Vec<Delivery>) {
        self.waited += 1;
        if let Told::Caller(tell) = waiter.told {
            deliveries.push(Delivery::Receipt(tell, receipt));
        }
    }

    /// Refuses a waiter because of the limit.
    pub(super) fn deny(&mut self, waiter: Waiter, answer: Answer, deliveries: &mut Vec<Delivery>) {
        match waiter.told {
            Told::Caller(tell) => {
                self.refused += 1;
                deliveries.push(Delivery::Plain(tell, answer));
            }
            Told::Nobody(_) => self.shadow_refused += 1,
        }
    }

    pub(super) fn add(&self, sum: &mut FleetStats) {
        sum.waited += self.waited;
        sum.refused += self.refused;
        sum.unanswered += self.unanswered;
        sum.from_aside += self.from_aside;
        sum.open += self.open;
        sum.shadow_refused += self.shadow_refused;
        sum.undone += self.undone;
        sum.refunded += self.refunded;
        sum.evicted += self.evicted;
        sum.forgiven += self.forgiven;
    }
}

/// Tells a waiter what is not the limit's doing.
pub(super) fn tell(waiter: Waiter, answer: Answer, deliveries: &mut Vec<Delivery>) {
    if let Told::Caller(tell) = waiter.told {
        deliveries.push(Delivery::Plain(tell, answer));
    }
}
