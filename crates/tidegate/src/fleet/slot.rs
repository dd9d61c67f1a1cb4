//! What a node keeps of one key: its account, who waits for it, and what it last heard.

use std::{
    collections::VecDeque,
    ops::{Deref, DerefMut},
    time::Duration,
};

use tidegate_core::{
    Instant,
    credit::{Account, Aside, Purse, Reserve, Source},
    ledger::{Reply, Rule},
};
use tokio::sync::oneshot;

use super::parcel::Parcel;
use crate::throttle::{Key, Ruling, Standing};

/// One key of one limit.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) key: Key,
    pub(super) account: Account,
    /// Who waits for an answer. While anybody does, a question is under way.
    pub(super) line: Option<Box<Line>>,
    /// What is kept for an outage, where the limit keeps something.
    pub(super) aside: Option<Box<Aside>>,
    /// When the limit is whole again, as the ledger said.
    reset_at: Instant,
    /// What the ledger could grant, as it said.
    left: u32,
    /// The loss of the ledger that this account has been told after.
    pub(super) told: u32,
    /// Whether a call came since the hand of the clock was here.
    pub(super) used: bool,
}

/// What a call looks at that finds credit, in a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct Front {
    pub(super) key: Key,
    pub(super) purse: Purse,
    pub(super) line: Option<Box<Line>>,
    told: u32,
    pub(super) used: bool,
}

/// The rest of a slot.
#[derive(Default)]
pub(super) struct Back {
    reserve: Reserve,
    aside: Option<Box<Aside>>,
    reset_at: Instant,
    left: u32,
}

/// A slot whose two parts are together for as long as somebody changes it.
pub(super) struct Open<'a> {
    slot: Slot,
    front: &'a mut Front,
    back: &'a mut Back,
}

impl<'a> Open<'a> {
    pub(super) fn of(front: &'a mut Front, back: &'a mut Back) -> Self {
        Self { slot: Slot::joined(std::mem::take(front), std::mem::take(back)), front, back }
    }

    /// Takes it out: its place is empty then.
    pub(super) fn take(mut self) -> Slot {
        std::mem::take(&mut self.slot)
    }
}

impl Deref for Open<'_> {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        &self.slot
    }
}

impl DerefMut for Open<'_> {
    fn deref_mut(&mut self) -> &mut Slot {
        &mut self.slot
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        (*self.front, *self.back) = std::mem::take(&mut self.slot).apart();
    }
}

/// Those who wait for one answer, in the order they came.
#[derive(Default)]
pub(super) struct Line(pub(super) VecDeque<Waiter>);

/// A caller that waits, or what is left of one.
pub(super) struct Waiter {
    pub(super) cost: u32,
    pub(super) told: Told,
}

/// Who is told what becomes of a waiter.
pub(super) enum Told {
    /// The caller.
    Caller(oneshot::Sender<Answer>),
    /// Nobody: the call went on, as its limit is a shadow, and is only counted, by then.
    Nobody(Instant),
}

impl Waiter {
    /// Whether nobody wants to know any more.
    pub(super) fn is_gone(&self, now: Instant) -> bool {
        match &self.told {
            Told::Caller(tell) => tell.is_closed(),
            Told::Nobody(until) => *until <= now,
        }
    }
}

/// What a waiter is told.
pub(super) enum Answer {
    /// It may go.
    Granted(Parcel),
    /// It may not, before then.
    Denied(Instant),
    /// It never may.
    Impossible,
    /// The ledger did not answer.
    Failed,
    /// The limit counts in another way now: to be decided anew.
    Again,
    /// The throttle was closed.
    Closed,
}

/// What a call took of its credit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Receipt {
    /// Units; 0 when nothing was taken that could go back.
    pub(super) cost: u32,
    /// Units that are charged elsewhere and do not go back: what the call costs in the end is charged beyond them.
    pub(super) beside: u32,
    /// How often the limit changed the way it counts, before.
    pub(super) era: u32,
    pub(super) source: Source,
}

impl Receipt {
    /// Of a call that a shadow would have refused: it is not charged, whatever it costs in the end.
    pub(super) const UNCHARGED: Self = Self::beside(u32::MAX);

    /// Of a call that is charged `units` elsewhere: what was held aside, or the trace it leaves in a shadow's line.
    pub(super) const fn beside(units: u32) -> Self {
        let source = Source { window: 0, until: Instant::EPOCH };
        Self { cost: 0, beside: units, era: 0, source }
    }

    /// Whether the credit is over that was taken: a call that has not gone by then may not.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.cost > 0 && self.source.until <= now
    }
}

impl Slot {
    pub(super) fn new(key: Key, told: u32) -> Self {
        Self { key, told, used: true, ..Self::default() }
    }

    pub(super) fn joined(front: Front, back: Back) -> Self {
        let Front { key, purse, line, told, used } = front;
        let Back { reserve, aside, reset_at, left } = back;
        Self { key, account: Account { purse, reserve }, line, aside, reset_at, left, told, used }
    }

    pub(super) fn apart(self) -> (Front, Back) {
        let Self { key, account: Account { purse, reserve }, line, aside, reset_at, left, told, used } = self;
        (Front { key, purse, line, told, used }, Back { reserve, aside, reset_at, left })
    }

    /// Remembers what the ledger said of the whole limit.
    pub(super) fn heard(&mut self, reply: &Reply, now: Instant) {
        (self.left, self.reset_at) = (reply.remaining, now + Duration::from_micros(reply.reset_in));
    }

    /// Whether nothing is lost when it is forgotten, but time.
    pub(super) fn is_at_rest(&self) -> bool {
        self.line.is_none() && !self.account.is_asking()
    }

    /// What waiters need together, in units.
    pub(super) fn need(&self) -> u32 {
        let costs = self.line.iter().flat_map(|line| &line.0).map(|waiter| waiter.cost);
        costs.fold(0, u32::saturating_add)
    }
}

/// Where a call stands, as far as this node knows.
pub(super) fn standing(
    (front, back): (&Front, &Back),
    rule: &Rule,
    ruling: Ruling,
    now: Instant,
) -> Standing {
    // Before the first answer, and after the window, the whole limit may be there.
    let left = if now < back.reset_at { back.left } else { rule.limit() };
    let in_hand = Account::in_hand_of(&front.purse, &back.reserve, now);
    let remaining = left.saturating_add(in_hand).min(rule.limit());
    let window = Duration::from_micros(rule.window());
    Standing::new(rule.limit(), remaining, back.reset_at.since(now), window, ruling)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn what_most_calls_look_at_is_one_cache_line() {
        assert_eq!((size_of::<Front>(), align_of::<Front>()), (64, 64));
        assert!(size_of::<Back>() <= 88, "{}", size_of::<Back>());
    }

    #[test]
    fn a_slot_that_was_open_is_as_it_was_left() {
        let slot = Slot { told: 3, left: 7, reset_at: Instant::from_nanos(9), ..Slot::new(Key::of(b"a"), 0) };
        let (mut front, mut back) = slot.apart();
        {
            let mut open = Open::of(&mut front, &mut back);
            assert_eq!((open.key, open.told, open.left, open.used), (Key::of(b"a"), 3, 7, true));
            open.account.settle(0, 5, 0, Instant::EPOCH);
            open.line = Some(Box::default());
        }
        assert!(front.line.is_some());
        let slot = Open::of(&mut front, &mut back).take();
        assert_eq!(
            (slot.key, slot.account.debt(), slot.reset_at),
            (Key::of(b"a"), 5, Instant::from_nanos(9))
        );
        assert_eq!((front.key, front.line.is_some()), (Key::default(), false), "its place is empty");
    }
}
