//! What becomes of a shard's accounts, and of those who wait, when the ledger has answered or has not.

use tidegate_core::{
    Instant,
    credit::{Draft, Spend},
    ledger::{Ask, Reply},
};

use super::{
    shard::State,
    slot::{Answer, Receipt},
    stats::tell,
    step::{Delivery, Errand, Errands, Landed, Whose},
};
use crate::throttle::Key;

impl State {
    /// Takes the answer to a question of an account, and tells those who waited for it. Whether the ledger is found to
    /// have lost what it knew, and what is to be asked next.
    pub(super) fn answered(
        &mut self,
        landed: &Landed<'_>,
        aside: u32,
        deliveries: &mut Vec<Delivery>,
    ) -> (bool, Errands) {
        self.latest = self.latest.max(landed.now);
        let Some(at) = self.accounts.find(landed.key).filter(|_| landed.era == self.era) else {
            // What was granted counts elsewhere, and whoever waited was told.
            return (false, [None, None]);
        };
        let (rule, era, key, now) = (self.rule, self.era, landed.key, self.latest);
        let errand = |whose, draft| Errand { whose, key, draft, rule, era };
        let is_closed = self.is_closed;
        let mut slot = self.accounts.slot(at);
        let (mut lost, mut beside) = (false, None);
        match landed.reply {
            Some(reply) => {
                let before = slot.account.seen_epoch();
                // Accounts that are asked because a loss is known find it, too; only one that was asked since finds another.
                lost = before != 0 && before != reply.epoch && slot.told == landed.told;
                slot.told = landed.told;
                slot.account.replied(landed.ask, reply, &self.terms, landed.sent_at, now);
                slot.heard(reply, now);
                if aside > 0 && !is_closed {
                    let held = slot.aside.get_or_insert_default();
                    beside = held.ask(aside, &self.terms, now).map(|draft| errand(Whose::Aside, draft));
                }
            }
            None => slot.account.failed(landed.ask),
        }
        drop(slot);
        let next = self.serve(at, landed.reply.is_some(), deliveries);
        (lost, [next.map(|draft| errand(Whose::Account, draft)), beside])
    }

    /// Decides those in line as far as credit goes; when it does not go far enough, what is to be asked next.
    fn serve(&mut self, at: usize, is_answered: bool, deliveries: &mut Vec<Delivery>) -> Option<Draft> {
        let (now, terms, era) = (self.latest, self.terms, self.era);
        let mut slot = self.accounts.slot(at);
        let mut line = slot.line.take()?;
        let mut next = None;
        while let Some(waiter) = line.0.pop_front() {
            if waiter.is_gone(now) {
                continue;
            }
            if !is_answered {
                tell(waiter, Answer::Failed, deliveries);
                continue;
            }
            let (waiter_cost, source) = (waiter.cost, slot.account.source(waiter.cost, now));
            match slot.account.spend(waiter.cost, &terms, now) {
                Spend::Allow => {}
                Spend::AllowAndAsk(draft) => next = Some(draft),
                Spend::Wait(draft) => {
                    next = next.or(draft);
                    line.0.push_front(waiter);
                    break;
                }
                Spend::Deny { retry_at } => {
                    self.counts.deny(waiter, Answer::Denied(retry_at), deliveries);
                    continue;
                }
                Spend::Impossible => {
                    self.counts.deny(waiter, Answer::Impossible, deliveries);
                    continue;
                }
            }
            self.counts.grant(waiter, Receipt { cost: waiter_cost, beside: 0, era, source }, deliveries);
        }
        if !line.0.is_empty() {
            slot.line = Some(line);
            next = next.map(|draft| draft.for_all(slot.need()));
        }
        next
    }

    /// Takes the answer to a question for what is held aside.
    pub(super) fn aside_answered(
        &mut self,
        key: Key,
        era: u32,
        ask: &Ask,
        reply: Option<&Reply>,
        sent_at: Instant,
    ) {
        let Some(at) = self.accounts.find(key).filter(|_| era == self.era) else { return };
        match (&mut self.accounts.slot(at).aside, reply) {
            (Some(aside), Some(reply)) => aside.replied(reply, &self.terms, sent_at),
            (Some(aside), None) => aside.failed(ask),
            (None, _) => {}
        }
    }
}
