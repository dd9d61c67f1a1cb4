//! Credit that is held aside for an outage of the store.

use super::{Draft, Terms};
use crate::{
    Instant,
    ledger::{Ask, Micros, Reply, Seen},
};

/// Credit held aside while the store answers, and spent when it does not.
///
/// It was granted like any other, so the limit holds; while the store answers, so much of the limit lies idle on each
/// node. It dies like any other: for how long it bridges an outage is the life of the rule's credit, at most the rest
/// of the window, so give a rule that bridges outages a [life](crate::ledger::RuleBuilder::life) as long as they last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Aside {
    until: Instant,
    /// Not asked again before this.
    next_at: Instant,
    units: u32,
    asking: bool,
    seen: Seen,
    of: Micros,
}

impl Aside {
    /// What to ask so that `slice` units are held aside, if it is time to. What is over is given back.
    ///
    /// Its questions count as the node's on this subject: not two of them, of the account and of this, under way at
    /// once, for the later one in number makes the earlier one stale.
    ///
    /// It is asked for when less than half a life is left of what is held. What is held is granted again, even where the
    /// limit is used up; what is new, up to one part of the node's share.
    pub fn ask(&mut self, slice: u32, terms: &Terms, now: Instant) -> Option<Draft> {
        if self.asking || now < self.next_at {
            return None;
        }
        self.asking = true;
        let need = self.units(now).min(slice);
        let (back, of) = (std::mem::take(&mut self.units), self.of);
        self.next_at = now + std::time::Duration::from_nanos(terms.life() / 2);
        Some(Draft { least: 0, need, want: slice, back, of, debt: 0, seen: self.seen })
    }

    /// Gives back all that it holds, if there is any: when a node shuts down, or its limit has changed.
    ///
    /// As with [`ask`](Self::ask), not while a question of the account is under way.
    pub fn hand_back(&mut self, now: Instant) -> Option<Draft> {
        if self.asking || self.units == 0 {
            return None;
        }
        self.asking = true;
        self.next_at = now;
        let back = std::mem::take(&mut self.units);
        Some(Draft { least: 0, need: 0, want: 0, back, of: self.of, debt: 0, seen: self.seen })
    }

    /// What became of the question, which was sent at `sent_at`.
    pub fn replied(&mut self, reply: &Reply, terms: &Terms, sent_at: Instant) {
        self.asking = false;
        self.seen = Seen { epoch: reply.epoch, mark: reply.mark };
        (self.units, self.of) = (reply.granted, reply.of);
        self.until = terms.until(sent_at, reply.life);
        // A window that ends sooner begins anew then.
        self.next_at = self.next_at.min(self.until.max(sent_at));
    }

    /// The question was not answered: what it gave back is lost.
    pub fn failed(&mut self, _: &Ask) {
        self.asking = false;
    }

    /// Spends `cost` of what is aside, if it is there and alive: for when the store does not answer.
    pub fn spend(&mut self, cost: u32, now: Instant) -> bool {
        let enough = now < self.until && cost <= self.units;
        if enough {
            self.units -= cost;
        }
        enough
    }

    /// What could be spent of it now.
    pub fn units(&self, now: Instant) -> u32 {
        if now < self.until { self.units } else { 0 }
    }
}
