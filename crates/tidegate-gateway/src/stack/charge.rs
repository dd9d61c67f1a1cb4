//! A call against all limits of its route: the keys, the charge, and what the client is told of it.

use std::sync::Arc;

use tidegate::{
    Permit as _, Throttle, clock,
    throttle::{self, Grants, Key, Ruling},
};
use tidegate_core::Outcome;

use crate::{key::Facts, refusal::Standing, table::Limit, upstream::Reach};

/// Where a call stands with each limit of its route, in their order.
pub(super) type Standings = [throttle::Standing; throttle::MAX_LIMITS];

/// The limits of a route with the keys of a call: as many as there are limits count. None when there is no limit.
pub(super) fn keyed<'a>(
    limits: &'a [Arc<Limit>],
    facts: &Facts<'_>,
) -> Option<[(&'a Throttle, Key); throttle::MAX_LIMITS]> {
    let first = &*limits.first()?.throttle;
    Some(std::array::from_fn(|at| match limits.get(at) {
        Some(limit) => (&*limit.throttle, limit.key(facts)),
        None => (first, Key::ALL),
    }))
}

/// What a call took of its limits. It is refunded unless the call may have reached its upstream, whoever stopped it: a
/// later gate, the way to the upstream, or a client that went away. A client that leaves a call that is under way
/// gets nothing back, or calls that are given up early enough would pass any limit.
pub(super) struct Charge<'a> {
    grants: Option<Grants<'a>>,
    reach: &'a Reach,
}

impl<'a> Charge<'a> {
    /// Holds what was taken until the call is over or on its way back; `reach` knows whether it was sent.
    pub(super) fn of(grants: Grants<'a>, reach: &'a Reach) -> Self {
        Self { grants: Some(grants), reach }
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        if let Some(grants) = self.grants.take()
            && !self.reach.is_possible()
        {
            grants.settle(Outcome::Unsent, clock::now());
        }
    }
}

/// What the client is told of its standing with each limit; shadows are not told of.
pub(super) fn told<'a>(
    limits: &'a [Arc<Limit>],
    standings: &'a Standings,
) -> impl Iterator<Item = Standing<'a>> {
    limits.iter().zip(standings).filter(|(limit, _)| !limit.config.shadow).map(|(limit, standing)| Standing {
        policy: &limit.policy,
        remaining: standing.remaining(),
        reset_in: standing.reset_in(),
        violated: standing.ruling() == Ruling::Refuses,
    })
}
