//! Several fleet limits on one call, decided all or none.

use std::time::Duration;

use tidegate_core::{By, Call, Instant, Outcome, Refused};
use tokio::sync::oneshot;

use super::{
    FleetThrottle,
    slot::{Answer, Receipt},
    step::{Local, Patience},
};
use crate::{
    Permit, sync,
    throttle::{Key, MAX_LIMITS, Refusal, Ruling, Standing},
};

/// Times that a call is decided: anew when the credit of one limit was over before another had answered.
const ROUNDS: u32 = 3;

/// Decides a call against several limits of a fleet: it is admitted and charged to all, or to none.
///
/// What is in hand is decided at once; questions that are needed are asked side by side, and waited for as by
/// [`FleetThrottle::enter`]. What the first limits gave goes back into hand when a later one refuses.
///
/// # Panics
/// With more than [`MAX_LIMITS`] limits.
///
/// # Cancel safety
/// Dropping the future takes nothing. Questions that it made others ask go on.
pub async fn enter_all<'a>(limits: &'a [(&'a FleetThrottle, Key)], call: &Call) -> FleetVerdict<'a> {
    decided(Taking::new(limits, &[]), call).await
}

/// As [`enter_all`], for a call that costs something else in each limit: `costs` are in their order, in place of the
/// call's own.
///
/// # Panics
/// With more than [`MAX_LIMITS`] limits, or another number of costs.
///
/// # Cancel safety
/// As for [`enter_all`].
pub async fn enter_all_at<'a>(
    limits: &'a [(&'a FleetThrottle, Key)],
    costs: &'a [u32],
    call: &Call,
) -> FleetVerdict<'a> {
    assert_eq!(limits.len(), costs.len(), "there is a cost for each limit");
    decided(Taking::new(limits, costs), call).await
}

async fn decided<'a>(mut taking: Taking<'a>, call: &Call) -> FleetVerdict<'a> {
    let mut now = call.now;
    for _ in 0..ROUNDS {
        let Some(waiting) = taking.take(call, now) else { break };
        now = taking.wait(call, waiting).await;
        if taking.forget_what_is_over(now) && taking.refusal.is_none() {
            break;
        }
    }
    taking.verdict(now)
}

/// What the limits of a fleet said.
#[derive(Debug)]
#[must_use]
pub struct FleetVerdict<'a> {
    limits: &'a [(&'a FleetThrottle, Key)],
    standings: [Standing; MAX_LIMITS],
    receipts: [Receipt; MAX_LIMITS],
    refusal: Option<Refusal>,
}

/// What an admitted call took of all its limits. Dropping it does nothing.
#[derive(Debug)]
#[must_use = "settle it as unsent if the call is not made"]
pub struct FleetGrants<'a> {
    limits: &'a [(&'a FleetThrottle, Key)],
    receipts: [Receipt; MAX_LIMITS],
}

/// What a call took, without the limits that it was taken of. Dropping it does nothing.
#[derive(Debug)]
#[must_use = "refund it if the call is not made"]
pub struct FleetReceipts([Receipt; MAX_LIMITS]);

impl<'a> FleetVerdict<'a> {
    /// Where the call stands with each limit, in the order given, as far as this node knows.
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
    pub fn into_grants(self) -> Result<FleetGrants<'a>, Refusal> {
        match self.refusal {
            Some(refusal) => Err(refusal),
            None => Ok(FleetGrants { limits: self.limits, receipts: self.receipts }),
        }
    }
}

impl FleetGrants<'_> {
    /// Lets go of the limits, for whoever keeps them in another place.
    pub const fn into_receipts(self) -> FleetReceipts {
        FleetReceipts(self.receipts)
    }
}

impl FleetReceipts {
    /// Gives back what was taken, as far as it is still worth anything. `limits` are those it was taken of.
    pub fn refund(self, limits: &[(&FleetThrottle, Key)], now: Instant) {
        for ((throttle, key), receipt) in limits.iter().zip(self.0).rev() {
            throttle.refund(*key, receipt, now);
        }
    }

    /// Whether credit of one of them is over by `now`: a call that has not been sent by then has to be decided anew.
    pub fn are_over(&self, now: Instant) -> bool {
        let now = crate::clock::awake(now);
        self.0.iter().any(|receipt| receipt.is_over(now))
    }

    /// Tells one limit, by its place among `limits`, what the call cost in the end: as [`FleetPermit::settle_cost`]. The
    /// others keep what they took.
    ///
    /// [`FleetPermit::settle_cost`]: super::FleetPermit::settle_cost
    pub fn settle_cost(&mut self, at: usize, limits: &[(&FleetThrottle, Key)], actual: u32, now: Instant) {
        if let (Some((throttle, key)), Some(receipt)) = (limits.get(at), self.0.get_mut(at)) {
            throttle.settle(*key, *receipt, actual, now);
            // It is settled: nothing of it goes back later.
            receipt.cost = 0;
        }
    }
}

impl Permit for FleetGrants<'_> {
    fn settle(self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Unsent => FleetReceipts(self.receipts).refund(self.limits, now),
            Outcome::Success | Outcome::Ignore | Outcome::Overload { .. } | Outcome::Abandoned => {}
        }
    }
}

type Waiting = [Option<oneshot::Receiver<Answer>>; MAX_LIMITS];

/// What a call has taken so far: it goes back unless the call is admitted.
struct Taking<'a> {
    limits: &'a [(&'a FleetThrottle, Key)],
    /// What the call costs in each; empty where that is the call's own cost in all.
    costs: &'a [u32],
    standings: [Standing; MAX_LIMITS],
    receipts: [Option<Receipt>; MAX_LIMITS],
    refusal: Option<Refusal>,
    /// The limits by index for which the call waited.
    waited: [bool; MAX_LIMITS],
}

impl<'a> Taking<'a> {
    fn new(limits: &'a [(&'a FleetThrottle, Key)], costs: &'a [u32]) -> Self {
        assert!(limits.len() <= MAX_LIMITS, "a call has at most {MAX_LIMITS} limits, not {}", limits.len());
        Self {
            limits,
            costs,
            standings: [Standing::default(); MAX_LIMITS],
            receipts: [None; MAX_LIMITS],
            refusal: None,
            waited: [false; MAX_LIMITS],
        }
    }

    /// The call as one limit sees it.
    fn call_at(&self, at: usize, call: &Call) -> Call {
        Call { cost: self.costs.get(at).copied().unwrap_or(call.cost), ..*call }
    }

    /// Takes of every limit that has not given yet. What there is to wait for, if anything.
    fn take(&mut self, call: &Call, now: Instant) -> Option<Waiting> {
        let mut waiting: Waiting = [const { None }; MAX_LIMITS];
        for (at, (throttle, key)) in self.limits.iter().enumerate() {
            if self.receipts[at].is_some() {
                continue;
            }
            // After a refusal nobody is asked for what is of no use.
            let patience = if self.refusal.is_some() { Patience::None } else { Patience::Waits };
            let cost = self.call_at(at, call).cost;
            let standing = Some(&mut self.standings[at]);
            match throttle.shared.enter(*key, cost, now, patience, standing) {
                Local::Granted(receipt) => self.receipts[at] = Some(receipt),
                Local::Waiting(told) => waiting[at] = Some(told),
                Local::Unknown if self.refusal.is_some() => {}
                Local::Unknown => match throttle.shared.without_ledger(*key, cost, now) {
                    Ok(receipt) => self.receipts[at] = Some(receipt),
                    Err(refused) => self.refuse(at, refused),
                },
                other => self.refuse(at, super::refused(other, now)),
            }
        }
        (self.refusal.is_none() && waiting.iter().any(Option::is_some)).then_some(waiting)
    }

    async fn wait(&mut self, call: &Call, waiting: Waiting) -> Instant {
        let since = sync::now();
        for (at, told) in waiting.into_iter().enumerate() {
            let Some(told) = told else { continue };
            let (throttle, key) = self.limits[at];
            self.waited[at] = true;
            match throttle.shared.wait(told, &self.call_at(at, call), key, since).await {
                Some(Ok(receipt)) => self.receipts[at] = Some(receipt),
                Some(Err(refused)) => {
                    self.refuse(at, refused);
                    break;
                }
                None => {}
            }
        }
        sync::now()
    }

    /// Forgets credit that is over: it was given, and the call has not gone yet. Whether all limits have given.
    fn forget_what_is_over(&mut self, now: Instant) -> bool {
        let mut all = true;
        for receipt in &mut self.receipts[..self.limits.len()] {
            if receipt.is_some_and(|receipt| receipt.is_over(now)) {
                *receipt = None;
            }
            all &= receipt.is_some();
        }
        all
    }

    /// Remembers a refusal, if it is the longest so far.
    fn refuse(&mut self, limit: usize, refused: Refused) {
        let longer =
            self.refusal.is_none_or(|known| match (known.refused.retry_after, refused.retry_after) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(known), Some(new)) => new > known,
            });
        if longer {
            self.refusal = Some(Refusal { limit, refused });
        }
    }

    fn verdict(mut self, now: Instant) -> FleetVerdict<'a> {
        let missing = self.receipts[..self.limits.len()].iter().position(Option::is_none);
        if let (None, Some(limit)) = (self.refusal, missing) {
            // Its credit was over each time before the others had answered.
            self.refuse(limit, Refused::after(By::WaitTooLong, Duration::ZERO));
        }
        let mut receipts = [Receipt::default(); MAX_LIMITS];
        let admits = self.refusal.is_none();
        for (at, (throttle, key)) in self.limits.iter().enumerate().rev() {
            let ruling = match (self.refusal, self.standings[at].ruling()) {
                (Some(refusal), Ruling::Admits) if refusal.limit == at => Ruling::Refuses,
                (_, ruling) => ruling,
            };
            match self.receipts[at].take() {
                Some(receipt) if admits => receipts[at] = receipt,
                Some(receipt) => throttle.undo(*key, receipt, now),
                None => {}
            }
            if self.waited[at] || !admits {
                self.standings[at] = throttle.glance(*key, ruling);
            }
        }
        FleetVerdict { limits: self.limits, standings: self.standings, receipts, refusal: self.refusal }
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        for ((throttle, key), receipt) in self.limits.iter().zip(&mut self.receipts).rev() {
            if let Some(receipt) = receipt.take() {
                throttle.undo(*key, receipt, sync::now());
            }
        }
    }
}
