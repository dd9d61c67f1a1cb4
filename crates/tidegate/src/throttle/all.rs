//! Several limits on one call, decided all or none.

use std::time::Duration;

use parking_lot::MutexGuard;
use tidegate_core::{By, Call, Counter, Decision, Fixed, Gcra, Instant, Outcome, Refused, Sliding, nanos};

use super::{
    Mode, Tables, Throttle,
    key::Key,
    permit::Receipt,
    shard::{Charged, Ended, State},
    shard_of,
    table::Place,
};
use crate::Permit;

/// The most limits on one call.
pub const MAX_LIMITS: usize = 8;

/// Decides a call against several limits, in the order given: it is admitted and charged to all, or to none.
///
/// The shards of all limits are locked at once, in an order that every thread keeps, so no other call sees a half
/// of it. Nothing waits and nothing is allocated, but to make room for new keys. A limit in [`Mode::Shadow`] is
/// charged when the others admit and it has room, and never refuses.
///
/// ```
/// # use tidegate::{Call, clock, throttle::{Key, Quota, Throttle, enter_all}};
/// let client = Throttle::new(Quota::of("100/s".parse()?).build()?);
/// let backend = Throttle::new(Quota::of("1/s".parse()?).build()?);
/// let limits = [(&client, Key::of(b"alice")), (&backend, Key::ALL)];
/// let call = Call::at(clock::now());
/// assert!(enter_all(&limits, &call).into_grants().is_ok());
/// let verdict = enter_all(&limits, &call);
/// assert_eq!(verdict.refusal().map(|refusal| refusal.limit), Some(1));
/// assert_eq!(verdict.standings()[0].remaining(), 99, "the client was not charged for it");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
/// With more than [`MAX_LIMITS`] limits.
#[inline]
pub fn enter_all<'a>(limits: &'a [(&'a Throttle, Key)], call: &Call) -> Verdict<'a> {
    decided(Verdict::new(limits, &[]), call)
}

/// As [`enter_all`], for a call that costs something else in each limit: `costs` are in their order, in place of the
/// call's own.
///
/// # Panics
/// With more than [`MAX_LIMITS`] limits, or another number of costs.
pub fn enter_all_at<'a>(limits: &'a [(&'a Throttle, Key)], costs: &'a [u32], call: &Call) -> Verdict<'a> {
    assert_eq!(limits.len(), costs.len(), "there is a cost for each limit");
    decided(Verdict::new(limits, costs), call)
}

#[inline]
fn decided<'a>(mut verdict: Verdict<'a>, call: &Call) -> Verdict<'a> {
    let limits = verdict.limits;
    match limits {
        [] => {}
        [(throttle, key)] => Guard::lock(throttle, *key).decide_alone(*key, call, &mut verdict),
        _ => decide_all(limits, call, &mut verdict),
    }
    verdict
}

/// What the limits said.
#[derive(Debug)]
#[must_use]
pub struct Verdict<'a> {
    limits: &'a [(&'a Throttle, Key)],
    /// What the call costs in each; empty where that is the call's own cost in all.
    costs: &'a [u32],
    standings: [Standing; MAX_LIMITS],
    receipts: [Receipt; MAX_LIMITS],
    refusal: Option<Refusal>,
}

/// Where a call stands with one limit, after the decision: what the `RateLimit` header fields say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    pub(super) reset_in: u64,
    pub(super) window: u64,
    pub(super) ruling: Ruling,
}

/// What one limit said to a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ruling {
    /// It may go.
    #[default]
    Admits,
    /// It may not.
    Refuses,
    /// It might not, were the limit not a shadow.
    WouldRefuse,
}

/// A refusal by one limit or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The index of the refusing limit that makes the call wait longest.
    pub limit: usize,
    /// The refusal: no `retry_after` means that the call costs more than that limit ever admits.
    pub refused: Refused,
}

/// What an admitted call took of all its limits. As with [`Permit`](super::Permit), dropping it does nothing.
#[derive(Debug)]
#[must_use = "settle it as unsent if the call is not made"]
pub struct Grants<'a> {
    limits: &'a [(&'a Throttle, Key)],
    receipts: [Receipt; MAX_LIMITS],
}

/// What a call took, without the limits that it was taken of. Dropping it does nothing.
#[derive(Debug)]
#[must_use = "refund it if the call is not made"]
pub struct Receipts([Receipt; MAX_LIMITS]);

impl Standing {
    /// A standing with another ledger than one in memory.
    pub(crate) const fn new(
        limit: u32,
        remaining: u32,
        reset_in: Duration,
        window: Duration,
        ruling: Ruling,
    ) -> Self {
        let (reset_in, window) = (nanos(reset_in), nanos(window));
        Self { limit, remaining, reset_in, window, ruling }
    }

    /// The most units that a rested counter admits at once.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Units that would be admitted now.
    pub const fn remaining(&self) -> u32 {
        self.remaining
    }

    /// How long until the whole limit is there again, if nothing else is admitted.
    pub const fn reset_in(&self) -> Duration {
        Duration::from_nanos(self.reset_in)
    }

    /// The time in which the whole limit regenerates.
    pub const fn window(&self) -> Duration {
        Duration::from_nanos(self.window)
    }

    /// What the limit said.
    pub const fn ruling(&self) -> Ruling {
        self.ruling
    }
}

impl<'a> Verdict<'a> {
    #[inline]
    fn new(limits: &'a [(&'a Throttle, Key)], costs: &'a [u32]) -> Self {
        assert!(limits.len() <= MAX_LIMITS, "a call has at most {MAX_LIMITS} limits, not {}", limits.len());
        Self {
            limits,
            costs,
            standings: [Standing::default(); MAX_LIMITS],
            receipts: [Receipt::default(); MAX_LIMITS],
            refusal: None,
        }
    }

    /// Where the call stands with each limit, in the order given.
    pub fn standings(&self) -> &[Standing] {
        &self.standings[..self.limits.len()]
    }

    /// Why the call may not go, if it may not.
    pub const fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// What the call took, to give back if it is not sent.
    ///
    /// # Errors
    /// The [`Refusal`]; nothing was taken then.
    pub fn into_grants(self) -> Result<Grants<'a>, Refusal> {
        match self.refusal {
            Some(refusal) => Err(refusal),
            None => Ok(Grants { limits: self.limits, receipts: self.receipts }),
        }
    }

    /// Remembers a refusal, if it is the longest so far.
    fn refuse(&mut self, limit: usize, retry_after: Option<Duration>) {
        let longer = self.refusal.is_none_or(|known| match (known.refused.retry_after, retry_after) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(known), Some(new)) => new > known,
        });
        if longer {
            self.refusal = Some(Refusal { limit, refused: Refused { by: By::Quota, retry_after } });
        }
    }
}

impl Grants<'_> {
    /// Lets go of the limits, for whoever keeps them in another place.
    pub fn into_receipts(self) -> Receipts {
        Receipts(self.receipts)
    }
}

impl Receipts {
    /// Gives back what was taken, as far as it has not regenerated by `now`. `limits` are those it was taken of.
    pub fn refund(self, limits: &[(&Throttle, Key)], now: Instant) {
        for ((throttle, key), receipt) in limits.iter().zip(self.0).rev() {
            throttle.refund(*key, receipt, now);
        }
    }
}

impl Permit for Grants<'_> {
    fn settle(self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Unsent => Receipts(self.receipts).refund(self.limits, now),
            Outcome::Success | Outcome::Ignore | Outcome::Overload { .. } | Outcome::Abandoned => {}
        }
    }
}

/// A locked shard of whichever algorithm.
enum Guard<'a> {
    Gcra(MutexGuard<'a, State<Gcra>>),
    Fixed(MutexGuard<'a, State<Fixed>>),
    Sliding(MutexGuard<'a, State<Sliding>>),
}

/// A counter of whichever algorithm, as it was before the decision, and whose it was.
#[derive(Clone, Copy)]
enum Before {
    Gcra(Gcra, Charged),
    Fixed(Fixed, Charged),
    Sliding(Sliding, Charged),
}

impl<'a> Guard<'a> {
    #[inline]
    fn lock(throttle: &'a Throttle, key: Key) -> Self {
        match &throttle.tables {
            Tables::Gcra(shards) => Self::Gcra(shards[shard_of(key, shards.len())].lock()),
            Tables::Fixed(shards) => Self::Fixed(shards[shard_of(key, shards.len())].lock()),
            Tables::Sliding(shards) => Self::Sliding(shards[shard_of(key, shards.len())].lock()),
        }
    }

    #[inline]
    fn decide_alone(self, key: Key, call: &Call, verdict: &mut Verdict<'_>) {
        match self {
            Self::Gcra(mut state) => alone(&mut state, key, call, verdict),
            Self::Fixed(mut state) => alone(&mut state, key, call, verdict),
            Self::Sliding(mut state) => alone(&mut state, key, call, verdict),
        }
    }

    fn decide(&mut self, index: usize, key: Key, call: &Call, verdict: &mut Verdict<'_>) -> Before {
        match self {
            Self::Gcra(state) => {
                let place = state.locate(key, call.now);
                let before = Before::Gcra(state.counter(place), place.into());
                decide(state, index, place, call, verdict);
                before
            }
            Self::Fixed(state) => {
                let place = state.locate(key, call.now);
                let before = Before::Fixed(state.counter(place), place.into());
                decide(state, index, place, call, verdict);
                before
            }
            Self::Sliding(state) => {
                let place = state.locate(key, call.now);
                let before = Before::Sliding(state.counter(place), place.into());
                decide(state, index, place, call, verdict);
                before
            }
        }
    }

    /// Undoes a decision, and says where the call stands without it.
    fn undo(&mut self, key: Key, before: Before, call: &Call, standing: &mut Standing) {
        let left = match (self, before) {
            (Self::Gcra(state), Before::Gcra(counter, charged)) => state.put_back(key, charged, counter),
            (Self::Fixed(state), Before::Fixed(counter, charged)) => state.put_back(key, charged, counter),
            (Self::Sliding(state), Before::Sliding(counter, charged)) => {
                state.put_back(key, charged, counter)
            }
            (Self::Gcra(_) | Self::Fixed(_) | Self::Sliding(_), _) => {
                unreachable!("a decision is undone where it was taken")
            }
        };
        if let Some(left) = left {
            (standing.remaining, standing.reset_in) = (left.remaining, nanos_until(left.reset_at, call.now));
        }
    }

    fn count(&mut self, ended: Ended) {
        match self {
            Self::Gcra(state) => state.count(ended),
            Self::Fixed(state) => state.count(ended),
            Self::Sliding(state) => state.count(ended),
        }
    }
}

#[inline(always)]
fn alone<C: Counter>(state: &mut State<C>, key: Key, call: &Call, verdict: &mut Verdict<'_>) {
    let place = state.locate(key, call.now);
    decide(state, 0, place, call, verdict);
    state.count(match verdict.standings[0].ruling {
        Ruling::Admits => Ended::Admitted,
        Ruling::Refuses => Ended::Refused,
        Ruling::WouldRefuse => Ended::Shadowed,
    });
}

/// Takes from one limit and writes down what it said.
#[inline(always)]
fn decide<C: Counter>(
    state: &mut State<C>,
    index: usize,
    place: Place,
    call: &Call,
    verdict: &mut Verdict<'_>,
) {
    let refuses = if state.mode == Mode::Enforce { Ruling::Refuses } else { Ruling::WouldRefuse };
    let cost = verdict.costs.get(index).copied().unwrap_or(call.cost);
    let (ruling, retry_at) = match state.reserve(place, cost, call.now) {
        Decision::Admit(grant) => {
            verdict.receipts[index] = Receipt { grant, charged: place.into() };
            (Ruling::Admits, None)
        }
        Decision::Deny { retry_at } => (refuses, Some(retry_at)),
        Decision::Impossible => (refuses, None),
    };
    if ruling == Ruling::Refuses {
        verdict.refuse(index, retry_at.map(|at| at.since(call.now)));
    }
    let left = state.standing(place);
    verdict.standings[index] = Standing {
        limit: state.quota.limit(),
        remaining: left.remaining,
        reset_in: nanos_until(left.reset_at, call.now),
        window: state.quota.window().as_nanos() as u64,
        ruling,
    };
}

fn nanos_until(at: Instant, now: Instant) -> u64 {
    at.as_nanos().saturating_sub(now.as_nanos())
}

fn decide_all(limits: &[(&Throttle, Key)], call: &Call, verdict: &mut Verdict<'_>) {
    // Every thread locks in the order of (throttle, shard), and a shard that two limits share once.
    let lock_of = |limit: usize| {
        let (throttle, key) = &limits[limit];
        (throttle.id, shard_of(*key, throttle.shards()))
    };
    let mut order: [usize; MAX_LIMITS] = std::array::from_fn(|index| index);
    let order = &mut order[..limits.len()];
    order.sort_unstable_by_key(|limit| lock_of(*limit));
    let mut guards: [Option<Guard<'_>>; MAX_LIMITS] = Default::default();
    let mut guard_of = [0; MAX_LIMITS];
    for (turn, limit) in order.iter().copied().enumerate() {
        let before =
            turn.checked_sub(1).map(|turn| order[turn]).filter(|before| lock_of(*before) == lock_of(limit));
        guard_of[limit] = match before {
            Some(before) => guard_of[before],
            None => {
                let (throttle, key) = limits[limit];
                guards[limit] = Some(Guard::lock(throttle, key));
                limit
            }
        };
    }
    let mut before = [None; MAX_LIMITS];
    for (limit, (_, key)) in limits.iter().enumerate() {
        let guard = guards[guard_of[limit]].as_mut().expect("locked above");
        before[limit] = Some(guard.decide(limit, *key, call, verdict));
    }
    for (limit, (_, key)) in limits.iter().enumerate().rev() {
        let guard = guards[guard_of[limit]].as_mut().expect("locked above");
        let standing = &mut verdict.standings[limit];
        guard.count(match (standing.ruling, verdict.refusal) {
            (Ruling::Refuses, _) => Ended::Refused,
            (Ruling::WouldRefuse, _) => Ended::Shadowed,
            (Ruling::Admits, None) => Ended::Admitted,
            (Ruling::Admits, Some(_)) => Ended::Undone,
        });
        if let (Some(before), Some(_)) = (before[limit], verdict.refusal) {
            guard.undo(*key, before, call, standing);
        }
    }
}
