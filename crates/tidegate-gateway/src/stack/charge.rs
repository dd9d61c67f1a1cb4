//! A call against all limits of its route: the keys, the charge, and what the client is told of it.

use http::HeaderValue;
use tidegate::{
    Throttle, clock,
    throttle::{self, Key, MAX_LIMITS, Receipts, Refusal, Ruling, enter_all_at},
};
use tidegate_core::Call;

use crate::{key::Facts, refusal::Standing, table::Route, upstream::Reach};

/// What a call took of the limits of its route. It is refunded unless the call may have reached its upstream, whoever
/// stopped it: a later gate, the way to the upstream, or a client that went away. A client that leaves a call that is
/// under way gets nothing back, or calls that are given up early enough would pass any limit.
pub(super) struct Charge<'t> {
    route: &'t Route,
    /// None when the route has no limits. In a box, as it lives as long as the call's future, which is moved about.
    taken: Option<Box<Taken<'t>>>,
    /// Whether the call was sent.
    pub(super) reach: Reach,
}

struct Taken<'t> {
    /// As many as there are limits count.
    keyed: [(&'t Throttle, Key); MAX_LIMITS],
    standings: [throttle::Standing; MAX_LIMITS],
    receipts: Option<Receipts>,
}

impl<'t> Charge<'t> {
    /// Decides all limits at once: all are charged, or none, and then it says which refused.
    pub(super) fn take(route: &'t Route, facts: &Facts<'_>, call: &Call) -> (Self, Option<Refusal>) {
        let limits = &route.limits;
        let Some(first) = limits.first() else {
            return (Self { route, taken: None, reach: Reach::default() }, None);
        };
        let keyed = std::array::from_fn(|at| match limits.get(at) {
            Some(limit) => (&*limit.throttle, limit.key(facts)),
            None => (&*first.throttle, Key::ALL),
        });
        let mut costs = [1; MAX_LIMITS];
        for (cost, limit) in costs.iter_mut().zip(limits) {
            *cost = limit.cost(facts);
        }
        let mut taken = Box::new(Taken { keyed, standings: Default::default(), receipts: None });
        let Taken { keyed, standings, receipts } = &mut *taken;
        let verdict = enter_all_at(&keyed[..limits.len()], &costs[..limits.len()], call);
        standings[..limits.len()].copy_from_slice(verdict.standings());
        let refusal = match verdict.into_grants() {
            Ok(grants) => {
                *receipts = Some(grants.into_receipts());
                None
            }
            Err(refusal) => Some(refusal),
        };
        (Self { route, taken: Some(taken), reach: Reach::default() }, refusal)
    }

    /// What the client is told of the limits themselves.
    pub(super) fn policies(&self) -> Option<&'t HeaderValue> {
        self.route.policies.as_ref()
    }

    /// What the client is told of its standing with each limit; shadows are not told of.
    pub(super) fn told(&self) -> impl Iterator<Item = Standing<'t>> {
        let standings = self.taken.iter().flat_map(|taken| &taken.standings);
        self.route.limits.iter().zip(standings).filter(|(limit, _)| !limit.config.shadow).map(
            |(limit, standing)| Standing {
                policy: &limit.policy,
                remaining: standing.remaining(),
                reset_in: standing.reset_in(),
                violated: standing.ruling() == Ruling::Refuses,
            },
        )
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        let Some(taken) = &mut self.taken else { return };
        if let Some(receipts) = taken.receipts.take()
            && !self.reach.is_possible()
        {
            receipts.refund(&taken.keyed[..self.route.limits.len()], clock::now());
        }
    }
}
