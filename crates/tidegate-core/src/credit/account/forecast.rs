//! How much to ask for and when: what an account's calls are likely to need while its credit lives.

use std::time::Duration;

use super::Account;
use crate::{
    Instant,
    credit::{Draft, Terms},
    nanos,
};

/// Refills are asked for when so much of what was in hand is left: one part in five.
const LOW_PART: u32 = 5;

/// Or when so many round trips of demand are left: calls come in bursts, and an answer may be late.
const TRIPS: f32 = 4.0;

/// A question asks for so much of what its calls are likely to need: the rest is asked for when it is known better.
const PART: f32 = 0.5;

/// What is likely: so many standard deviations more than on average.
const DEVIATIONS: f32 = 1.5;

/// Credit is renewed unasked where so many calls or more are likely in a life of it.
const WORTH_RENEWING: f32 = 4.0;

/// The shortest life of credit that is renewed unasked: whoever looks after accounts comes by a few times in it.
const RENEWED_FROM: Duration = Duration::from_secs(1);

/// Over how long demand is averaged, in seconds: half a life of credit within these.
const SHORTEST_MEMORY: f32 = 0.05;
const LONGEST_MEMORY: f32 = 1.0;

impl Account {
    /// What to ask for at low water. While it is asked for, or nothing is wanted, low water is lower.
    pub(super) fn refill(&mut self, terms: &Terms, now: Instant) -> Option<Draft> {
        self.purse.low = 0;
        if self.purse.asking {
            return None;
        }
        if self.suffices(terms, now) {
            self.purse.low = self.in_hand(now) / 2;
            return None;
        }
        let want = self.want(terms, 0, now).max(1);
        Some(self.ask(0, want, now))
    }

    /// Asks for credit in place of what has died, or is about to where it can be had anew, if calls used it and more of
    /// them are likely to come in another life of it: so that they do not wait.
    ///
    /// For whoever looks after accounts a few times a second.
    pub fn renew(&mut self, terms: &Terms, now: Instant) -> Option<Draft> {
        let lasts =
            if self.purse.renews { terms.is_fresh(self.purse.until, now) } else { now < self.purse.until };
        let used =
            self.purse.called || self.reserve.base > self.purse.units.saturating_add(self.reserve.next_units);
        let is_due = used
            && !lasts
            && !self.purse.asking
            && now >= self.reserve.retry_at
            && now >= self.reserve.next_until;
        let likely = self.reserve.demand * terms.life() as f32 / 1e9;
        if !is_due || likely < WORTH_RENEWING || terms.life() < nanos(RENEWED_FROM) {
            return None;
        }
        let want = self.want(terms, 0, now);
        if want == 0 {
            return None;
        }
        let draft = self.ask(0, want, now);
        self.purse.called = false;
        Some(draft)
    }

    /// What to ask for beside what is missing: a part of what it could use while credit lives, by what was spent since
    /// the last question and waits now. It learns its demand by that.
    pub(super) fn want(&mut self, terms: &Terms, missing: u32, now: Instant) -> u32 {
        let hand = self.purse.units.saturating_add(self.reserve.next_units);
        let spent = self.reserve.base.saturating_sub(hand).saturating_add(missing);
        if self.reserve.epoch == 0 {
            // The first question: one call says nothing about the next.
            return spent;
        }
        let passed = nanos(now.since(self.reserve.asked_at)).max(terms.trip()).max(1) as f32 / 1e9;
        let latest = spent as f32 / passed;
        let life = terms.life() as f32 / 1e9;
        // Weighed by its time, as many short times with one call each would make it look busier than it is.
        let memory = (life / 2.0).clamp(SHORTEST_MEMORY, LONGEST_MEMORY);
        // What came in the first moment says little: believed, it would be held for a whole life.
        let memory = if self.reserve.demand == 0.0 { SHORTEST_MEMORY } else { memory };
        self.reserve.demand += passed / (passed + memory) * (latest - self.reserve.demand);
        let part = (PART * self.likely(self.reserve.demand, terms, now)) as u32;
        part.saturating_add(missing).saturating_sub(self.lasting(terms, now))
    }

    /// What calls of `demand` are likely to need while credit that is granted now can be spent, if they come
    /// independently of each other.
    fn likely(&self, demand: f32, terms: &Terms, now: Instant) -> f32 {
        let left = if self.purse.renews { 0 } else { nanos(self.purse.until.since(now)) };
        let time = if left > 0 { left } else { terms.life() };
        let mean = demand * time as f32 / 1e9;
        mean + DEVIATIONS * mean.sqrt()
    }

    /// Credit in hand, but for what is about to die and can be had anew.
    fn lasting(&self, terms: &Terms, now: Instant) -> u32 {
        if self.purse.renews && !terms.is_fresh(self.purse.until, now) { 0 } else { self.in_hand(now) }
    }

    /// Whether what is in hand is likely to last as long as it lives, and by what came since the last question, too.
    fn suffices(&self, terms: &Terms, now: Instant) -> bool {
        let hand = self.in_hand(now);
        let passed = nanos(now.since(self.reserve.asked_at)).max(terms.trip()).max(1) as f32 / 1e9;
        let latest = self.reserve.base.saturating_sub(hand) as f32 / passed;
        !self.purse.renews && hand as f32 >= self.likely(self.reserve.demand.max(latest), terms, now)
    }

    /// When to ask for a refill: with a fifth left, or what is spent in four round trips, and at least with the last
    /// unit, or two of several.
    pub(super) fn low_water(&self, terms: &Terms, now: Instant) -> u32 {
        let (hand, trips) = (self.in_hand(now), self.reserve.demand * TRIPS * terms.trip() as f32 / 1e9);
        (hand / LOW_PART).max(trips.ceil() as u32).max(if hand < 4 { 1 } else { 2 })
    }
}
