//! One shard of a fleet's throttle: its accounts behind one short lock, and what becomes of calls and answers there.

use std::time::Duration;

use tidegate_core::{
    Instant,
    credit::{Draft, Spend, Terms},
    lease::Node,
    ledger::{Ask, Reply, Rule},
};
use tokio::sync::oneshot;

use super::{
    accounts::{Accounts, Room},
    owed::Owed,
    slot::{Answer, Receipt, Slot, Told, Waiter},
    stats::{Counts, tell},
    step::{Caller, Delivery, Errand, Errands, Landed, Local, Patience, Whose},
};
use crate::{
    sync::Mutex,
    throttle::{Key, Mode, Ruling, Standing},
};

/// Calls that wait for one key's answer.
pub(super) const MOST_IN_LINE: usize = 10_000;
/// How long the trace of a call that went on waits to be counted: a limit whose credit is over on arrival is not asked for
/// ever.
const TRACED_FOR: Duration = Duration::from_secs(1);

/// A shard on cache lines of its own.
#[repr(align(128))]
pub(super) struct Shard(pub(super) Mutex<State>);

/// What is behind the lock. The rule is here too, so that a change of it needs no lock of its own.
pub(super) struct State {
    pub(super) rule: Rule,
    pub(super) terms: Terms,
    pub(super) mode: Mode,
    /// How often the limit changed the way it counts: what was granted before is of no use after.
    pub(super) era: u32,
    pub(super) is_closed: bool,
    /// The latest instant any call has brought: calls are locked out of the order of their clock readings.
    latest: Instant,
    pub(super) accounts: Accounts,
    /// What accounts owed that were forgotten.
    pub(super) owed: Owed,
    pub(super) counts: Counts,
}

impl Shard {
    pub(super) fn new(rule: Rule, terms: Terms, mode: Mode, most: usize) -> Self {
        Self(Mutex::new(State {
            rule,
            terms,
            mode,
            era: 0,
            is_closed: false,
            latest: Instant::EPOCH,
            accounts: Accounts::new(most),
            owed: Owed::default(),
            counts: Counts::default(),
        }))
    }
}

impl State {
    /// Decides a call by what is in hand, or puts it in line; a shadow counts and lets go.
    #[inline]
    pub(super) fn enter(
        &mut self,
        caller: Caller,
        errands: &mut Errands,
        standing: Option<&mut Standing>,
    ) -> Local {
        self.latest = self.latest.max(caller.now);
        let (local, at) = self.decide(caller, errands);
        let (ruling, local) = match (local, self.mode) {
            (Local::Granted(receipt), _) => {
                self.counts.local += 1;
                (Ruling::Admits, Local::Granted(receipt))
            }
            (Local::Unknown, Mode::Shadow) if caller.patience == Patience::Away => {
                (Ruling::Admits, Local::Granted(Receipt::UNCHARGED))
            }
            (Local::Unknown, Mode::Shadow) => {
                (Ruling::Admits, Local::Granted(Receipt::beside(caller.cost.max(1))))
            }
            (local @ (Local::Waiting(_) | Local::Unknown), _) => (Ruling::Admits, local),
            (Local::Closed, _) => (Ruling::Refuses, Local::Closed),
            (_, Mode::Shadow) => {
                self.counts.shadow_refused += 1;
                (Ruling::WouldRefuse, Local::Granted(Receipt::UNCHARGED))
            }
            (local, Mode::Enforce) => {
                self.counts.refused += 1;
                (Ruling::Refuses, local)
            }
        };
        if let Some(standing) = standing {
            *standing = self.standing(at, ruling);
        }
        local
    }

    #[inline]
    fn decide(&mut self, caller: Caller, errands: &mut Errands) -> (Local, Option<usize>) {
        let Caller { key, cost, .. } = caller;
        if self.is_closed {
            return (Local::Closed, None);
        }
        let at = match self.accounts.find(key) {
            Some(at) if caller.patience == Patience::Away => {
                return (self.spend_in_hand(at, caller), Some(at));
            }
            Some(at) => at,
            None if caller.patience == Patience::Away => return (Local::Unknown, None),
            None => match self.admit(key, caller.told, errands) {
                Some(at) => at,
                None => return (Local::Full, None),
            },
        };
        let (era, now) = (self.era, self.latest);
        let patience = if self.mode == Mode::Shadow { Patience::Ghost } else { caller.patience };
        let slot = self.accounts.slot(at);
        if !slot.used {
            slot.used = true;
        }
        // A peek takes one and puts it back.
        let units = cost.max(1);
        if slot.line.is_some() {
            // Nobody overtakes those in line.
            let possible = units <= self.terms.largest();
            return (if possible { wait(slot, units, patience, now) } else { Local::Impossible }, Some(at));
        }
        let source = slot.account.source(units, now);
        let local = match slot.account.spend(units, &self.terms, now) {
            Spend::Wait(draft) => {
                errands[0] =
                    draft.map(|draft| Errand { whose: Whose::Account, key, draft, rule: self.rule, era });
                wait(slot, units, patience, now)
            }
            Spend::Deny { retry_at } => Local::Denied(retry_at),
            Spend::Impossible => Local::Impossible,
            admits @ (Spend::Allow | Spend::AllowAndAsk(_)) => {
                if let Spend::AllowAndAsk(draft) = admits {
                    errands[0] = Some(Errand { whose: Whose::Account, key, draft, rule: self.rule, era });
                }
                if cost == 0 {
                    slot.account.refund(units, source.window, now);
                }
                Local::Granted(Receipt { cost, beside: 0, era, source })
            }
        };
        (local, Some(at))
    }

    /// Decides a call by what is in hand and known, while nothing can be asked.
    fn spend_in_hand(&mut self, at: usize, caller: Caller) -> Local {
        let (era, now, units) = (self.era, self.latest, caller.cost.max(1));
        let slot = self.accounts.slot(at);
        slot.used = true;
        if slot.line.is_some() {
            return Local::Unknown;
        }
        // What it would ask is not asked, and it goes on as if nothing had been.
        let mut account = slot.account;
        let source = account.source(units, now);
        match account.spend(units, &self.terms, now) {
            Spend::Wait(_) => Local::Unknown,
            Spend::Deny { retry_at } => Local::Denied(retry_at),
            Spend::Impossible => Local::Impossible,
            admits @ (Spend::Allow | Spend::AllowAndAsk(_)) => {
                if let Spend::AllowAndAsk(draft) = admits {
                    account.failed(&draft.send(Node(0), 0));
                }
                if caller.cost == 0 {
                    account.refund(units, source.window, now);
                }
                slot.account = account;
                Local::Granted(Receipt { cost: caller.cost, beside: 0, era, source })
            }
        }
    }

    #[cold]
    fn admit(&mut self, key: Key, told: u32, errands: &mut Errands) -> Option<usize> {
        let mut slot = Slot::new(key, told);
        let owed = self.owed.take(key);
        slot.account.settle(0, owed, 0, self.latest);
        match self.accounts.insert(slot, self.latest) {
            Room::Free(at) => Some(at),
            Room::Taken(at, gone) => {
                self.counts.evicted += 1;
                errands[1] = self.farewell(*gone);
                Some(at)
            }
            Room::None => {
                self.owe(key, owed);
                None
            }
        }
    }

    /// Remembers what a key owes, with its account or without.
    pub(super) fn owe(&mut self, key: Key, units: u32) {
        match self.accounts.find(key) {
            Some(at) => self.accounts.slot(at).account.settle(0, units, 0, self.latest),
            None => self.counts.forgiven += u64::from(self.owed.add(key, units)),
        }
    }

    /// What an account that is forgotten has to say.
    pub(super) fn farewell(&self, mut gone: Slot) -> Option<Errand> {
        let (rule, era) = (self.rule, self.era);
        let draft = gone.account.hand_back(self.latest)?;
        Some(Errand { whose: Whose::Nobody, key: gone.key, draft, rule, era })
    }

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
        let slot = self.accounts.slot(at);
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
        let next = self.serve(at, landed.reply.is_some(), deliveries);
        (lost, [next.map(|draft| errand(Whose::Account, draft)), beside])
    }

    /// Decides those in line as far as credit goes; when it does not go far enough, what is to be asked next.
    fn serve(&mut self, at: usize, is_answered: bool, deliveries: &mut Vec<Delivery>) -> Option<Draft> {
        let (now, terms, era) = (self.latest, self.terms, self.era);
        let slot = self.accounts.slot(at);
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

    /// Gives back what a call took that was not sent.
    pub(super) fn refund(&mut self, key: Key, receipt: Receipt, now: Instant) {
        self.give_back(key, receipt, now);
        self.counts.refunded += 1;
    }

    /// Gives back what was taken, as far as it is still worth anything.
    pub(super) fn give_back(&mut self, key: Key, receipt: Receipt, now: Instant) {
        self.latest = self.latest.max(now);
        if receipt.cost > 0
            && receipt.era == self.era
            && let Some(at) = self.accounts.find(key)
        {
            self.accounts.slot(at).account.refund(receipt.cost, receipt.source.window, self.latest);
        }
    }

    /// Settles a call that took `receipt` and cost `actual`.
    pub(super) fn settle(
        &mut self,
        key: Key,
        receipt: Receipt,
        actual: u32,
        now: Instant,
        told: u32,
        errands: &mut Errands,
    ) {
        self.latest = self.latest.max(now);
        let now = self.latest;
        let reserved = receipt.cost.max(receipt.beside);
        if actual <= reserved && receipt.cost == 0 {
            return;
        }
        let at = match self.accounts.find(key) {
            Some(at) => at,
            // Forgotten meanwhile: what it cost beyond its reserve is owed by a new account.
            None if actual > reserved => match self.admit(key, told, errands) {
                Some(at) => at,
                None => return self.owe(key, actual - reserved),
            },
            None => return,
        };
        let slot = self.accounts.slot(at);
        // What was reserved under another way of counting cannot go back there.
        let window = if receipt.era == self.era { receipt.source.window } else { u64::MAX };
        slot.account.settle(reserved, actual, window, now);
    }

    /// Takes a call from what is held aside for an outage.
    pub(super) fn spend_aside(&mut self, key: Key, cost: u32, now: Instant) -> bool {
        self.latest = self.latest.max(now);
        let now = self.latest;
        let Some(at) = self.accounts.find(key) else { return false };
        self.accounts.slot(at).aside.as_mut().is_some_and(|aside| aside.spend(cost, now))
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

    /// Where a call of the key would stand.
    pub(super) fn glance(&mut self, key: Key, ruling: Ruling) -> Standing {
        self.standing(self.accounts.find(key), ruling)
    }

    fn standing(&mut self, at: Option<usize>, ruling: Ruling) -> Standing {
        let (now, window) = (self.latest, Duration::from_micros(self.rule.window()));
        match at {
            Some(at) => self.accounts.slot(at).standing(&self.rule, ruling, now),
            None => Standing::new(self.rule.limit(), 0, Duration::ZERO, window, ruling),
        }
    }

    /// Takes another rule. Where it counts in another way, credit in hand is of no use any more.
    pub(super) fn update(&mut self, rule: Rule, terms: Terms, told: &mut Vec<(Key, Vec<Delivery>)>) {
        let counts_anew = rule.law().to_string() != self.rule.law().to_string();
        (self.rule, self.terms) = (rule, terms);
        if counts_anew {
            self.era += 1;
        }
        for slot in self.accounts.iter_mut() {
            if counts_anew {
                let line = std::mem::replace(slot, Slot::new(slot.key, slot.told)).line;
                let mut deliveries = Vec::new();
                for waiter in line.into_iter().flat_map(|line| line.0) {
                    tell(waiter, Answer::Again, &mut deliveries);
                }
                told.push((slot.key, deliveries));
            } else {
                slot.account.replenished();
            }
        }
    }
}

/// Puts a call in line.
fn wait(slot: &mut Slot, cost: u32, patience: Patience, now: Instant) -> Local {
    if slot.line.as_ref().is_some_and(|line| line.0.len() >= MOST_IN_LINE) {
        return Local::Crowded;
    }
    let (told, local) = match patience {
        Patience::None | Patience::Away => return Local::Unknown,
        Patience::Ghost => (Told::Nobody(now + TRACED_FOR), Local::Unknown),
        Patience::Waits => {
            let (tell, told) = oneshot::channel();
            (Told::Caller(tell), Local::Waiting(told))
        }
    };
    slot.line.get_or_insert_default().0.push_back(Waiter { cost, told });
    local
}
