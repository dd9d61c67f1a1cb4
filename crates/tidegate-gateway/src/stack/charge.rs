//! A call against all limits of its route: the keys, the charge, and what the client is told of it.

mod spread;

use http::HeaderValue;
use tidegate::{
    Throttle, clock,
    throttle::{self, Key, MAX_LIMITS, Receipts, Refusal, Ruling, enter_all_at},
};
use tidegate_core::{Call, Instant};

use self::spread::Spread;
use crate::{key::Facts, refusal::Standing, tab::Tab, table::Route, upstream::Reach};

/// What a call took of the limits of its route. It is refunded unless the call may have reached its upstream, whoever
/// stopped it: a later gate, the way to the upstream, or a client that went away. A client that leaves a call that is
/// under way gets nothing back, or calls that are given up early enough would pass any limit.
pub(super) struct Charge<'t> {
    route: &'t Route,
    taken: Taken<'t>,
    /// Whether the call was sent.
    pub(super) reach: Reach,
}

/// What was taken, in a box, as it lives as long as the call's future, which is moved about.
enum Taken<'t> {
    /// The route has no limits.
    Nothing,
    /// All limits count in this process.
    Here(Box<Here<'t>>),
    /// Some limits have a ledger, which may have to be asked.
    Spread(Box<Spread<'t>>),
}

struct Here<'t> {
    /// As many as there are limits count.
    keyed: [(&'t Throttle, Key); MAX_LIMITS],
    standings: [throttle::Standing; MAX_LIMITS],
    receipts: Option<Receipts>,
}

impl<'t> Charge<'t> {
    /// Decides all limits that count in this process at once: all are charged, or none, and then it says which refused.
    /// Those that have a ledger are left to [`ask`](Self::ask). `body` is the length of the request's, if it is known.
    pub(super) fn take(
        route: &'t Route,
        facts: &Facts<'_>,
        body: Option<u64>,
        call: &Call,
    ) -> (Self, Option<Refusal>) {
        let (taken, refusal) = match route.limits.first().map(|first| first.guard.here()) {
            None => (Taken::Nothing, None),
            Some(Some(first)) if !route.asks => {
                let (here, refusal) = Here::take(route, first, facts, call);
                (Taken::Here(here), refusal)
            }
            Some(_) => {
                let (spread, refusal) = Spread::take(route, facts, body, call);
                (Taken::Spread(spread), refusal)
            }
        };
        (Self { route, taken, reach: Reach::default() }, refusal)
    }

    /// Whether limits with a ledger have yet to decide, or what they gave is over by `now`.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        matches!(&self.taken, Taken::Spread(spread) if spread.is_open(now))
    }

    /// Has the limits with a ledger decide: all are charged, or none, and then it says which refused.
    ///
    /// # Cancel safety
    /// Dropping the future takes nothing of them.
    pub(super) async fn ask(&mut self, call: &Call) -> Option<Refusal> {
        match &mut self.taken {
            Taken::Nothing | Taken::Here(_) => None,
            Taken::Spread(spread) => spread.ask(call).await,
        }
    }

    /// What is settled at the end of the call; from then on it is the tab's.
    pub(super) fn tab(&mut self) -> Option<Box<Tab>> {
        match &mut self.taken {
            Taken::Nothing | Taken::Here(_) => None,
            Taken::Spread(spread) => spread.tab(self.route),
        }
    }

    /// What the client is told of the limits themselves.
    pub(super) fn policies(&self) -> Option<&'t HeaderValue> {
        self.route.policies.as_ref()
    }

    /// What the client is told of its standing with each limit that has decided; shadows are not told of.
    pub(super) fn told(&self) -> impl Iterator<Item = Standing<'t>> {
        let enforced = self.route.limits.iter().enumerate().filter(|(_, limit)| !limit.config.shadow);
        enforced.filter_map(|(at, limit)| {
            let standing = match &self.taken {
                Taken::Nothing => return None,
                Taken::Here(here) => here.standings[at],
                Taken::Spread(spread) => spread.standing(at)?,
            };
            Some(Standing {
                policy: &limit.policy,
                remaining: standing.remaining(),
                reset_in: standing.reset_in(),
                violated: standing.ruling() == Ruling::Refuses,
            })
        })
    }
}

impl<'t> Here<'t> {
    fn take(
        route: &'t Route,
        first: &'t Throttle,
        facts: &Facts<'_>,
        call: &Call,
    ) -> (Box<Self>, Option<Refusal>) {
        let limits = &route.limits;
        let keyed = std::array::from_fn(|at| match limits.get(at) {
            Some(limit) => (limit.guard.here().unwrap_or(first), limit.key(facts)),
            None => (first, Key::ALL),
        });
        let mut costs = [1; MAX_LIMITS];
        for (cost, limit) in costs.iter_mut().zip(limits) {
            *cost = limit.cost(facts, None);
        }
        let mut taken = Box::new(Self { keyed, standings: Default::default(), receipts: None });
        let Self { keyed, standings, receipts } = &mut *taken;
        let verdict = enter_all_at(&keyed[..limits.len()], &costs[..limits.len()], call);
        standings[..limits.len()].copy_from_slice(verdict.standings());
        let refusal = match verdict.into_grants() {
            Ok(grants) => {
                *receipts = Some(grants.into_receipts());
                None
            }
            Err(refusal) => Some(refusal),
        };
        (taken, refusal)
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        if self.reach.is_possible() {
            return;
        }
        match &mut self.taken {
            Taken::Nothing => {}
            Taken::Here(here) => {
                if let Some(receipts) = here.receipts.take() {
                    receipts.refund(&here.keyed[..self.route.limits.len()], clock::now());
                }
            }
            Taken::Spread(spread) => spread.refund(clock::now()),
        }
    }
}
