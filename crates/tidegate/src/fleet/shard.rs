//! One shard of a fleet's throttle: its accounts behind one short lock, and what becomes of calls and answers there.

use std::time::Duration;

use tidegate_core::{
    Instant,
    credit::{Spend, Terms},
    lease::Node,
    ledger::Rule,
};
use tokio::sync::oneshot;

use super::{
    accounts::{Accounts, Room},
    owed::Owed,
    slot::{Answer, Receipt, Slot, Told, Waiter, standing},
    stats::{Counts, tell},
    step::{Caller, Delivery, Errand, Errands, Local, Patience, Whose},
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

/// What is behind the lock. The rule is here too, so that a change of it needs no lock of its own. What most calls need stands
/// first: together with the lock it is one cache line.
#[repr(C)]
pub(super) struct State {
    /// The latest instant any call has brought: calls are locked out of the order of their clock readings.
    pub(super) latest: Instant,
    /// Calls admitted at once, from credit in hand.
    pub(super) local: u64,
    /// How often the limit changed the way it counts: what was granted before is of no use after.
    pub(super) era: u32,
    pub(super) mode: Mode,
    pub(super) is_closed: bool,
    pub(super) accounts: Accounts,
    pub(super) terms: Terms,
    pub(super) rule: Rule,
    /// What accounts owed that were forgotten.
    pub(super) owed: Owed,
    pub(super) counts: Counts,
}

impl Shard {
    pub(super) fn new(rule: Rule, terms: Terms, mode: Mode, most: usize) -> Self {
        Self(Mutex::new(State {
            latest: Instant::EPOCH,
            local: 0,
            era: 0,
            mode,
            is_closed: false,
            accounts: Accounts::new(most),
            terms,
            rule,
            owed: Owed::default(),
            counts: Counts::default(),
        }))
    }
}

impl State {
    /// Takes a call from credit that is in hand and not about to run out, as nearly all calls are; and where the account is.
    /// With `None` nothing was taken, and [`enter`](Self::enter) decides.
    #[inline]
    pub(super) fn spend(&mut self, key: Key, cost: u32, now: Instant) -> Option<(Receipt, usize)> {
        if self.is_closed || cost == 0 {
            return None;
        }
        let at = self.accounts.find(key)?;
        let now = self.latest.max(now);
        self.latest = now;
        let front = self.accounts.front(at);
        // Nobody overtakes those in line.
        if front.line.is_some() {
            return None;
        }
        let source = front.purse.spend(cost, &self.terms, now)?;
        if !front.used {
            front.used = true;
        }
        self.local += 1;
        Some((Receipt { cost, beside: 0, era: self.era, source }, at))
    }

    /// Decides a call by what is in hand, or puts it in line; a shadow counts and lets go.
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
                self.local += 1;
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
        let mut slot = self.accounts.slot(at);
        if !slot.used {
            slot.used = true;
        }
        // A peek takes one and puts it back.
        let units = cost.max(1);
        if slot.line.is_some() {
            // Nobody overtakes those in line.
            let possible = units <= self.terms.largest();
            return (
                if possible { wait(&mut slot, units, patience, now) } else { Local::Impossible },
                Some(at),
            );
        }
        let source = slot.account.source(units, now);
        let local = match slot.account.spend(units, &self.terms, now) {
            Spend::Wait(draft) => {
                errands[0] =
                    draft.map(|draft| Errand { whose: Whose::Account, key, draft, rule: self.rule, era });
                wait(&mut slot, units, patience, now)
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
        let mut slot = self.accounts.slot(at);
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
        let mut slot = self.accounts.slot(at);
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

    /// Where a call of the key would stand.
    pub(super) fn glance(&self, key: Key, ruling: Ruling) -> Standing {
        self.standing(self.accounts.find(key), ruling)
    }

    fn standing(&self, at: Option<usize>, ruling: Ruling) -> Standing {
        let (now, window) = (self.latest, Duration::from_micros(self.rule.window()));
        match at {
            Some(at) => standing(self.accounts.both(at), &self.rule, ruling, now),
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
        for mut slot in self.accounts.iter_mut() {
            if counts_anew {
                let anew = Slot::new(slot.key, slot.told);
                let line = std::mem::replace(&mut *slot, anew).line;
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

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn the_lock_and_what_most_calls_need_beside_it_share_a_cache_line() {
        // The lock, at most a word; then the addresses and lengths of two tables.
        assert!(8 + offset_of!(State, accounts) + 4 * size_of::<usize>() <= 64);
        assert_eq!(align_of::<Shard>(), 128);
    }
}
