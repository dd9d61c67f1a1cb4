//! One key's credit on one node.

mod forecast;
mod parts;

use std::time::Duration;

pub use parts::{Purse, Reserve};

use super::{Draft, Terms};
use crate::{
    Instant,
    ledger::{Ask, Mark, Micros, Reply, Seen},
    nanos,
};

/// How often a key is asked for that is denied for longer: what others gave back is told by a hint, and a hint may be
/// lost.
const SECOND_LOOK: Duration = Duration::from_secs(30);

/// What an account says to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Spend {
    /// It may go, paid from credit in hand.
    Allow,
    /// It may go, and the question is to be asked in the background.
    AllowAndAsk(Draft),
    /// It must wait for an answer: to this question, or to the one under way. Then it asks again.
    Wait(Option<Draft>),
    /// It may not go: the ledger said that nothing is there before then.
    Deny {
        /// When it is worth another try, on the node's clock.
        retry_at: Instant,
    },
    /// It can never go: it costs more than the limit ever grants at once.
    Impossible,
}

/// What a call is paid from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The window of the credit: what [`Account::refund`] asks for.
    pub window: Micros,
    /// When that credit is over, and with it the permission to make the call.
    pub until: Instant,
}

/// Credit of one grant.
#[derive(Clone, Copy, Debug, Default)]
struct Credit {
    until: Instant,
    of: Micros,
    units: u32,
}

/// One key's credit on one node, in 96 bytes. A call that finds credit costs two comparisons and a subtraction.
///
/// It asks one question at a time. It holds what it spends and the refill it asked for ahead. Whoever drives it
/// sends what it wants asked and tells it what became of that, once; how long it waits and what it does when the
/// store is away is the driver's.
///
/// Whoever keeps many of them may keep the two parts in two places: most calls need the [`Purse`] alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// What calls are paid from first.
    pub purse: Purse,
    /// The rest of it.
    pub reserve: Reserve,
}

impl Account {
    /// Credit that could be spent now of an account in two parts, in units.
    pub fn in_hand_of(purse: &Purse, reserve: &Reserve, now: Instant) -> u32 {
        purse.in_hand(now).saturating_add(reserve.in_hand(now))
    }

    /// Spends `cost` at `now`, or says what to do instead. A cost of 0 is always allowed.
    #[inline]
    pub fn spend(&mut self, cost: u32, terms: &Terms, now: Instant) -> Spend {
        match self.purse.spend(cost, terms, now) {
            Some(_) => Spend::Allow,
            None => self.spend_slowly(cost, terms, now),
        }
    }

    fn spend_slowly(&mut self, cost: u32, terms: &Terms, now: Instant) -> Spend {
        self.turn(now);
        let there = self.in_hand(now);
        if cost <= there {
            self.take(cost, now);
            let stale =
                self.purse.renews && !terms.is_fresh(self.purse.until, now) && self.reserve.next_units == 0;
            if self.purse.low > there - cost || stale && self.purse.low > 0 {
                return self.refill(terms, now).map_or(Spend::Allow, Spend::AllowAndAsk);
            }
            return Spend::Allow;
        }
        if cost > terms.largest() {
            return Spend::Impossible;
        }
        let missing = cost - there;
        let denied = now < self.reserve.retry_at && missing >= self.purse.retry_cost;
        // What is given back to a bucket has flowed in by then.
        let looks_again = terms.keeps() && !self.purse.asking && now >= self.reserve.asked_at + SECOND_LOOK;
        if denied && !looks_again {
            return Spend::Deny { retry_at: self.reserve.retry_at };
        }
        if self.purse.asking {
            return Spend::Wait(None);
        }
        let want = self.want(terms, missing, now);
        Spend::Wait(Some(self.ask(missing, want, now)))
    }

    /// Takes the answer to a question that was sent at `sent_at`, read right before it was sent.
    ///
    /// Each question is answered or failed once; an answer that comes after that is not for the account.
    pub fn replied(&mut self, ask: &Ask, reply: &Reply, terms: &Terms, sent_at: Instant, now: Instant) {
        self.purse.asking = false;
        // What is whole again needs no repair; the mark of a bucket is an instant, and stays.
        self.reserve.level = if reply.reset_in > 0 { reply.mark.level } else { 0 };
        self.reserve.epoch = reply.epoch;
        self.turn(now);
        self.place(
            Credit { until: terms.until(sent_at, reply.life), of: reply.of, units: reply.granted },
            now,
        );
        self.reserve.base = self.reserve.base.saturating_add(reply.granted);
        self.purse.renews = terms.is_whole(reply.life);
        // The call that exceeds a limit with a prohibition is the ledger's to refuse, or nobody would be barred.
        let unheard = terms.prohibits() && reply.granted >= ask.least;
        if reply.retry_in > 0 && !unheard {
            self.reserve.retry_at = sent_at + Duration::from_micros(reply.retry_in);
            self.purse.retry_cost = ask.least.max(1);
        } else {
            self.reserve.retry_at = Instant::EPOCH;
        }
        // Where nothing is left to grant, or nothing was granted ahead of need, a refill is of no use: the next call
        // that misses credit asks for itself.
        let refills = reply.retry_in == 0 && reply.granted > ask.least;
        self.purse.low = if refills { self.low_water(terms, now) } else { 0 };
    }

    /// The question was not answered, in time or at all: it may have been booked, or not. What it gave back is lost,
    /// what it owed is owed again.
    pub fn failed(&mut self, ask: &Ask) {
        self.purse.asking = false;
        self.reserve.debt = self.reserve.debt.saturating_add(ask.debt);
        self.purse.low = 0;
    }

    /// The window of the credit that is spent from now: what [`refund`](Self::refund) asks for.
    pub const fn window(&self) -> Micros {
        self.purse.of
    }

    /// What a call of `cost` would be paid from at `now`: to be asked before it spends, and to be told when it is
    /// refunded. Of two grants together nothing goes back.
    #[inline]
    pub fn source(&self, cost: u32, now: Instant) -> Source {
        if now < self.purse.until && cost <= self.purse.units {
            return Source { window: self.purse.of, until: self.purse.until };
        }
        if self.purse.units == 0 || now >= self.purse.until {
            return Source { window: self.reserve.next_of, until: self.reserve.next_until };
        }
        Source { window: Micros::MAX, until: self.purse.until.min(self.reserve.next_until) }
    }

    /// Takes back what a call paid that surely was not sent: into credit of the same window, or not at all.
    pub fn refund(&mut self, cost: u32, window: Micros, now: Instant) {
        if self.purse.of == window && now < self.purse.until {
            self.purse.units = self.purse.units.saturating_add(cost);
        } else if self.reserve.next_of == window && now < self.reserve.next_until {
            self.reserve.next_units = self.reserve.next_units.saturating_add(cost);
        }
    }

    /// Settles a call that paid `reserved` of `window` and cost `actual`: the rest is refunded, or what it cost beyond
    /// is paid from credit in hand and then owed.
    pub fn settle(&mut self, reserved: u32, actual: u32, window: Micros, now: Instant) {
        if actual <= reserved {
            return self.refund(reserved - actual, window, now);
        }
        self.turn(now);
        let beyond = actual - reserved;
        let paid = beyond.min(self.in_hand(now));
        self.take(paid, now);
        self.reserve.debt = self.reserve.debt.saturating_add(beyond - paid);
    }

    /// Whether it should hand back: nothing was spent since the last question, for half a life of credit or more; or it
    /// owes something for so long; or some was spent and the rest has died in hand. Who is busy has asked again by then,
    /// and given back what is left; the ledger does not remember for long who may.
    pub fn is_idle(&self, terms: &Terms, now: Instant) -> bool {
        let spent = self.reserve.base > self.purse.units.saturating_add(self.reserve.next_units);
        let quiet = if spent && self.reserve.debt == 0 { terms.life() } else { terms.life() / 2 };
        let is_due = !spent || self.reserve.debt > 0 || self.stranded(now) > 0;
        is_due && now >= self.reserve.asked_at + Duration::from_nanos(quiet)
    }

    /// Hands back the credit it holds and tells what it owes, if there is any. It goes on: the next call asks.
    ///
    /// For an account that is idle, on a recall, and when a node shuts down. Credit of two windows takes two turns.
    pub fn hand_back(&mut self, now: Instant) -> Option<Draft> {
        self.turn(now);
        if self.purse.asking
            || self.purse.units == 0 && self.reserve.next_units == 0 && self.reserve.debt == 0
        {
            return None;
        }
        let mut draft = self.ask(0, 0, now);
        self.purse.called = false;
        if draft.back == 0 {
            (draft.back, draft.of) = (self.purse.units, self.purse.of);
            self.purse.units = 0;
            if self.reserve.next_of == self.purse.of {
                draft.back = draft.back.saturating_add(self.reserve.next_units);
                self.reserve.next_units = 0;
            }
            self.reserve.base = self.reserve.next_units;
        }
        Some(draft)
    }

    /// Another node was told that nothing is left: asks for no refills, and hands back what its own demand will not
    /// use before it dies; of a bucket it keeps it, for what was granted has flowed in again.
    pub fn exhausted(&mut self, terms: &Terms, now: Instant) -> Option<Draft> {
        self.purse.low = 0;
        self.turn(now);
        if self.purse.asking || now >= self.purse.until || !terms.keeps() {
            return None;
        }
        let left = nanos(self.purse.until.since(now)) as f32 / 1e9;
        // Its calls may have become fewer since it asked.
        let spent =
            self.reserve.base.saturating_sub(self.purse.units.saturating_add(self.reserve.next_units));
        let since = nanos(now.since(self.reserve.asked_at)).max(terms.trip()).max(1) as f32 / 1e9;
        let own = (self.reserve.demand.min(spent as f32 / since) * left) as u32;
        let surplus = self.in_hand(now).saturating_sub(own).min(self.purse.units);
        if surplus == 0 {
            return None;
        }
        let mut draft = self.ask(0, 0, now);
        if draft.back == 0 {
            (draft.back, draft.of) = (surplus, self.purse.of);
            self.purse.units -= surplus;
            self.reserve.base -= surplus.min(self.reserve.base);
        }
        Some(draft)
    }

    /// There may be more than the ledger said: something was given back, a limit raised, a counter reset. The next call
    /// asks.
    pub fn replenished(&mut self) {
        self.reserve.retry_at = Instant::EPOCH;
    }

    /// Tells a ledger of another epoch what it saw, if it saw anything that may still count.
    ///
    /// To be asked of every account as soon as a new epoch is noticed, and again until it has answered: the ledger
    /// pauses for one life of credit to hear it.
    pub fn reassert(&mut self, epoch: u64, terms: &Terms, now: Instant) -> Option<Draft> {
        let due = self.reserve.epoch != 0
            && self.reserve.epoch != epoch
            && !self.purse.asking
            && self.counts(terms, now);
        due.then(|| self.ask(0, 0, now))
    }

    /// Whether what it saw of the ledger may still count there: an account that is forgotten before cannot repair a
    /// ledger that is lost.
    pub fn counts(&self, terms: &Terms, now: Instant) -> bool {
        self.reserve.level > 0 && self.is_recent(terms, now)
    }

    /// Whether it asked so lately that what it heard may still hold.
    pub fn is_recent(&self, terms: &Terms, now: Instant) -> bool {
        let span = terms.window().saturating_add(terms.life());
        self.reserve.epoch != 0 && now < self.reserve.asked_at + Duration::from_nanos(span)
    }

    /// Credit that could be spent now, in units.
    pub fn in_hand(&self, now: Instant) -> u32 {
        Self::in_hand_of(&self.purse, &self.reserve, now)
    }

    /// Credit that died unspent and was not given back yet, in units.
    pub fn stranded(&self, now: Instant) -> u32 {
        self.purse.units.saturating_add(self.reserve.next_units) - self.in_hand(now)
    }

    /// Whether a question is under way.
    pub const fn is_asking(&self) -> bool {
        self.purse.asking
    }

    /// The epoch of the ledger that answered it last; 0 before any did.
    pub const fn seen_epoch(&self) -> u64 {
        self.reserve.epoch
    }

    /// What it owes and has not told yet, in units.
    pub const fn debt(&self) -> u32 {
        self.reserve.debt
    }

    /// What it estimates its calls to cost, in units a second.
    pub const fn demand(&self) -> f32 {
        self.reserve.demand
    }

    /// Brings the credit forward that can be spent: what is over or dead goes behind what is alive.
    fn turn(&mut self, now: Instant) {
        let spent = self.purse.units == 0 || now >= self.purse.until;
        if spent && self.reserve.next_units > 0 && now < self.reserve.next_until {
            std::mem::swap(&mut self.purse.units, &mut self.reserve.next_units);
            std::mem::swap(&mut self.purse.until, &mut self.reserve.next_until);
            std::mem::swap(&mut self.purse.of, &mut self.reserve.next_of);
        }
    }

    /// Takes `cost`, which is in hand, of what dies first.
    fn take(&mut self, cost: u32, now: Instant) {
        let held = if now < self.purse.until { self.purse.units.min(cost) } else { 0 };
        self.purse.units -= held;
        self.reserve.next_units -= cost - held;
        self.turn(now);
    }

    /// Puts credit where there is room for it. Where there is none it joins the refill: it dies with what dies first,
    /// and of several grants nothing can be given back.
    fn place(&mut self, credit: Credit, now: Instant) {
        if self.purse.units == 0 {
            (self.purse.until, self.purse.of, self.purse.units) = (credit.until, credit.of, credit.units);
        } else if self.reserve.next_units == 0 || now >= self.reserve.next_until {
            (self.reserve.next_until, self.reserve.next_of, self.reserve.next_units) =
                (credit.until, credit.of, credit.units);
        } else if credit.units > 0 {
            self.reserve.next_units = self.reserve.next_units.saturating_add(credit.units);
            self.reserve.next_until = self.reserve.next_until.min(credit.until);
            if self.reserve.next_of != credit.of {
                self.reserve.next_of = 0;
            }
        }
        self.turn(now);
    }

    /// Makes a question. What has died in hand goes back with it, one window at a time.
    fn ask(&mut self, missing: u32, want: u32, now: Instant) -> Draft {
        let seen = Seen {
            epoch: self.reserve.epoch,
            mark: Mark { of: self.purse.of.max(self.reserve.next_of), level: self.reserve.level },
        };
        let (mut back, mut of) = (0, 0);
        if now >= self.purse.until && self.purse.units > 0 {
            (back, of) = (std::mem::take(&mut self.purse.units), self.purse.of);
        } else if now >= self.reserve.next_until && self.reserve.next_units > 0 {
            (back, of) = (std::mem::take(&mut self.reserve.next_units), self.reserve.next_of);
        }
        self.purse.asking = true;
        self.purse.called = true;
        self.purse.low = 0;
        self.reserve.asked_at = now;
        self.reserve.base = self.purse.units.saturating_add(self.reserve.next_units);
        let debt = std::mem::take(&mut self.reserve.debt);
        Draft { least: missing, need: missing, want: want.max(missing), back, of, debt, seen }
    }
}
