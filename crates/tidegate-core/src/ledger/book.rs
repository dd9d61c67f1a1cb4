//! One subject's account: the reference that every store equals.

use super::{
    Ask, Epoch, Micros, Reply, Rule,
    census::{Census, Visit},
    used::{Counting, Used},
};
use crate::lease::Node;

/// The longest [`Reply::retry_in`]: for what is never granted.
pub const FAR: Micros = 366 * 86_400_000_000;
/// The most that an account owes; what is owed beyond is forgiven, so that sums stay below 2^53.
pub const MOST_DEBT: u64 = 1 << 50;

/// One subject's account.
///
/// A store keeps its few numbers by subject and [`Law`](super::Law), and forgets them when they are older than
/// [`keep`](Self::keep). It is `PartialEq`, so that a store can be compared with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    /// The latest the store's clock has shown.
    at: Micros,
    used: Used,
    /// What nodes spent beyond their credit and is not paid yet.
    debt: u64,
    /// Until when nothing is granted, as more was asked than there was.
    barred: Micros,
    census: Census,
}

/// What an operator sees of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What is granted and counts.
    pub used: u64,
    /// What could be granted now.
    pub remaining: u64,
    /// What is owed and not paid yet.
    pub debt: u64,
    /// For how long nothing is granted, as more was asked than there was.
    pub barred_in: Micros,
    /// When all can be granted again.
    pub reset_in: Micros,
    /// Nodes that asked lately.
    pub nodes: u32,
}

/// All numbers of an account, for a store to be compared with, or to write down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The latest the store's clock has shown, in microseconds.
    pub at: Micros,
    /// As in [`Mark::of`](super::Mark::of); 0 in a bucket.
    pub of: Micros,
    /// What was granted in a window; of a bucket the instant at which it is full; of a sliding window 0.
    pub level: u64,
    /// What was granted in each slice that counts, by its number, oldest first.
    pub slices: Vec<(u64, u64)>,
    /// Units and microseconds of the rate that the level of a bucket stands on; zeros before it stands on any.
    pub rate: (u64, Micros),
    /// What is owed and not paid yet.
    pub debt: u64,
    /// Until when nothing is granted, as more was asked than there was; on the store's clock.
    pub barred: Micros,
    /// The store's clock divided by [`Rule::memory`].
    pub generation: u64,
    /// Nodes that asked in this generation.
    pub present: u32,
    /// Nodes that asked in the one before.
    pub before: u32,
    /// Nodes of both, each with the highest number of its questions, the generation of the latest, and what it wanted
    /// then and did not get.
    pub nodes: Vec<(Node, u64, u64, u64)>,
    /// What they all wanted and did not get.
    pub unmet: u64,
}

impl Book {
    /// All its numbers.
    pub fn state(&self) -> State {
        let seats = self.census.seats.iter();
        State {
            at: self.at,
            of: self.used.of,
            level: self.used.level,
            slices: self.used.slices.iter().map(|(of, granted)| (*of, *granted)).collect(),
            rate: self.used.rate,
            debt: self.debt,
            barred: self.barred,
            generation: self.census.generation,
            present: self.census.present,
            before: self.census.before,
            nodes: seats.map(|(node, seat)| (*node, seat.seq, seat.generation, seat.unmet)).collect(),
            unmet: self.census.unmet,
        }
    }

    /// Answers a question at `now`, the store's clock.
    ///
    /// The order is part of what it is, as each step changes what the next one finds: the clock, what a node saw of
    /// an earlier epoch, what it gives back, what it owes, what it gets.
    pub fn grant(&mut self, rule: &Rule, ask: &Ask, now: Micros, epoch: Epoch) -> Reply {
        let (count, pause) = (Counting::of(rule.law()), epoch.pause(rule, now));
        let now = self.turn(rule, &count, now);
        if ask.seen.epoch != epoch.id && ask.seen.epoch != 0 {
            count.merge(&mut self.used, ask.seen.mark, rule.life(), now);
        }
        let visit = self.census.visit(ask.node, ask.seq, now, rule.memory());
        if visit == Visit::New && ask.back > 0 {
            count.give_back(&mut self.used, u64::from(ask.back), ask.of, now);
        }
        // A question that was overtaken is the only one to tell of its debt.
        if visit != Visit::Repeated {
            self.debt = (self.debt + u64::from(ask.debt)).min(MOST_DEBT);
        }
        // Until it is known what was used, nothing is known to be there to pay with.
        if pause == 0 {
            self.pay(rule, &count, now);
        }
        let least = u64::from(ask.least);
        let available = self.available(rule, &count, pause, now);
        let nodes = self.census.nodes();
        let parts = u64::from(rule.divisor()) * self.census.sharers(u64::from(ask.want));
        let granted = amount(ask, available, parts);
        self.census.leave(ask.node, u64::from(ask.want).saturating_sub(granted));
        let exceeds = available < least && pause == 0 && self.barred <= now;
        if exceeds && least <= rule.largest() && rule.prohibit() > 0 {
            self.barred = now + rule.prohibit();
        }
        count.take(&mut self.used, granted, now);
        let (of, life) = count.credit(&self.used, rule.life(), now);
        Reply {
            granted: granted as u32,
            of,
            life,
            remaining: self.available(rule, &count, pause, now) as u32,
            reset_in: count.reset_in(&self.used, now),
            retry_in: self.retry_in(rule, &count, least.max(1), pause, now),
            nodes,
            mark: count.mark(&self.used),
            epoch: epoch.id,
        }
    }

    /// What the account says at `now`; nothing is changed by looking.
    pub fn inspect(&self, rule: &Rule, now: Micros) -> Standing {
        let (mut book, count) = (self.clone(), Counting::of(rule.law()));
        let now = book.turn(rule, &count, now);
        let limit = u64::from(rule.limit());
        Standing {
            used: count.used(&book.used, limit, now),
            remaining: book.available(rule, &count, 0, now),
            debt: book.debt,
            barred_in: book.barred.saturating_sub(now),
            reset_in: count.reset_in(&book.used, now),
            nodes: book.census.nodes(),
        }
    }

    /// Lets `units` more be granted in this window than were left, as far as so many were: an operator's kindness.
    pub fn relieve(&mut self, rule: &Rule, units: u64, now: Micros) {
        let count = Counting::of(rule.law());
        let now = self.turn(rule, &count, now);
        let forgiven = units.min(self.debt);
        self.debt -= forgiven;
        count.relieve(&mut self.used, units - forgiven, now);
        self.barred = 0;
    }

    /// Takes `units` away: what is not there is owed.
    pub fn charge(&mut self, rule: &Rule, units: u64, now: Micros) {
        let count = Counting::of(rule.law());
        let now = self.turn(rule, &count, now);
        self.debt = (self.debt + units.min(MOST_DEBT)).min(MOST_DEBT);
        self.pay(rule, &count, now);
    }

    /// Forgets what was granted, owed and barred. What nodes hold they may still spend: so much more than the limit
    /// may be spent in this window.
    pub fn reset(&mut self) {
        let census = std::mem::take(&mut self.census);
        *self = Self { at: self.at, census, ..Self::default() };
    }

    /// For how long from `now` the account must be kept when nobody asks: later, forgetting it changes nothing.
    pub fn keep(&self, rule: &Rule, now: Micros) -> Micros {
        let count = Counting::of(rule.law());
        let busy = count.reset_in(&self.used, now).max(self.barred.saturating_sub(now));
        // Windows in which nobody asks would have paid the debt.
        let windows = self.debt.div_ceil(u64::from(rule.limit()).max(1)).min(1 << 20);
        let owing = windows.saturating_mul(rule.window()).min(FAR);
        busy.min(FAR) + owing + 2 * rule.memory()
    }

    /// Brings the account to `now`, or to the latest it knows: time does not run backwards in it. A clock that was
    /// set back by more than a life of credit is followed.
    fn turn(&mut self, rule: &Rule, count: &Counting, now: Micros) -> Micros {
        if now + rule.life() < self.at {
            count.step_back(&mut self.used, rule.life(), self.at, now);
            self.barred = self.barred.saturating_sub(self.at - now);
            self.census = Census::default();
            self.at = now;
        }
        self.at = self.at.max(now);
        count.roll(&mut self.used, self.at);
        self.at
    }

    /// Pays what is owed, as far as there is something to pay with.
    fn pay(&mut self, rule: &Rule, count: &Counting, now: Micros) {
        let paid = self.debt.min(count.available(&self.used, u64::from(rule.limit()), now));
        if rule.limit() > 0 && paid > 0 {
            count.take(&mut self.used, paid, now);
            self.debt -= paid;
        }
    }

    fn available(&self, rule: &Rule, count: &Counting, pause: Micros, now: Micros) -> u64 {
        if rule.limit() == 0 || pause > 0 || self.barred > now || self.debt > 0 {
            return 0;
        }
        count.available(&self.used, u64::from(rule.limit()), now)
    }

    fn retry_in(&self, rule: &Rule, count: &Counting, units: u64, pause: Micros, now: Micros) -> Micros {
        if units > rule.largest() {
            return FAR;
        }
        let units = (units + self.debt).min(rule.largest());
        let there = count.retry_in(&self.used, units, u64::from(rule.limit()), now);
        there.max(pause).max(self.barred.saturating_sub(now)).min(FAR)
    }
}

/// How much is granted: what is needed, and beyond it what is wanted up to one part in `parts` of what there is.
fn amount(ask: &Ask, available: u64, parts: u64) -> u64 {
    let (least, need, want) = (u64::from(ask.least), u64::from(ask.need), u64::from(ask.want));
    if available < least {
        return 0;
    }
    available.min(need.max(least).max(want.min(available / parts)))
}
