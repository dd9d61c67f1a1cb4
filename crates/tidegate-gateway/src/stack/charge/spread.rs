//! A call against limits of which some have a ledger: those in this process decide first, as they never wait.

use tidegate::{
    Throttle,
    fleet::{self, FleetReceipts, FleetThrottle},
    throttle::{self, Key, Receipts, Refusal, enter_all_at},
};
use tidegate_core::{Call, Instant};

use crate::{
    key::Facts,
    limit::{Guard, Limit},
    tab::Tab,
    table::Route,
};

/// What a call took of limits here and of limits with a ledger.
pub(super) struct Spread<'t> {
    here: Group<&'t Throttle, Receipts>,
    shared: Group<&'t FleetThrottle, FleetReceipts>,
    /// In the order of the route's limits; none of those that have not decided.
    standings: Vec<Option<throttle::Standing>>,
}

/// Limits of one kind.
struct Group<T, R> {
    keyed: Vec<(T, Key)>,
    costs: Vec<u32>,
    /// Their places among the route's limits.
    places: Vec<usize>,
    /// What was taken of them; none before they decided, and after a refusal.
    receipts: Option<R>,
}

impl<T, R> Group<T, R> {
    fn with_room_for(limits: usize) -> Self {
        Self {
            keyed: Vec::with_capacity(limits),
            costs: Vec::with_capacity(limits),
            places: Vec::with_capacity(limits),
            receipts: None,
        }
    }

    fn push(&mut self, guard: T, limit: &Limit, place: usize, facts: &Facts<'_>, body: Option<u64>) {
        self.keyed.push((guard, limit.key(facts)));
        self.costs.push(limit.cost(facts, body));
        self.places.push(place);
    }

    /// Keeps what the limits said, and tells a refusal by its place among the route's limits.
    fn heard(
        &self,
        said: &[throttle::Standing],
        refusal: Option<Refusal>,
        standings: &mut [Option<throttle::Standing>],
    ) -> Option<Refusal> {
        for (place, standing) in self.places.iter().zip(said) {
            standings[*place] = Some(*standing);
        }
        refusal.map(|refusal| Refusal { limit: self.places[refusal.limit], ..refusal })
    }
}

impl<'t> Spread<'t> {
    pub(super) fn take(
        route: &'t Route,
        facts: &Facts<'_>,
        body: Option<u64>,
        call: &Call,
    ) -> (Box<Self>, Option<Refusal>) {
        let limits = route.limits.len();
        let (mut here, mut shared) = (Group::with_room_for(limits), Group::with_room_for(limits));
        for (place, limit) in route.limits.iter().enumerate() {
            match &limit.guard {
                Guard::Here(throttle) => here.push(&**throttle, limit, place, facts, body),
                Guard::Shared(throttle) => shared.push(throttle, limit, place, facts, body),
            }
        }
        let mut standings = vec![None; limits];
        let verdict = enter_all_at(&here.keyed, &here.costs, call);
        let refusal = here.heard(verdict.standings(), verdict.refusal(), &mut standings);
        here.receipts = verdict.into_grants().ok().map(throttle::Grants::into_receipts);
        (Box::new(Self { here, shared, standings }), refusal)
    }

    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.shared.receipts.as_ref().is_none_or(|receipts| receipts.are_over(now))
    }

    pub(super) async fn ask(&mut self, call: &Call) -> Option<Refusal> {
        let Group { keyed, costs, receipts, .. } = &mut self.shared;
        // Credit that was over before the call could go is as good as none.
        if let Some(over) = receipts.take() {
            over.refund(keyed, call.now);
        }
        let verdict = fleet::enter_all_at(keyed, costs, call).await;
        let (said, refusal) = (verdict.standings().to_vec(), verdict.refusal());
        *receipts = verdict.into_grants().ok().map(fleet::FleetGrants::into_receipts);
        self.shared.heard(&said, refusal, &mut self.standings)
    }

    pub(super) fn tab(&mut self, route: &Route) -> Option<Box<Tab>> {
        let sources = self.shared.places.iter().enumerate().filter_map(|(at, place)| {
            let source = route.limits[*place].config.cost.source()?;
            source.is_told_later().then(|| (at, source.clone()))
        });
        let sources: Vec<_> = sources.collect();
        if sources.is_empty() {
            return None;
        }
        let mut receipts = self.shared.receipts.take()?;
        let keyed: Vec<_> =
            self.shared.keyed.iter().map(|(throttle, key)| ((*throttle).clone(), *key)).collect();
        Some(Box::new(Tab::new(sources, move |at, cost| {
            let keyed: Vec<_> = keyed.iter().map(|(throttle, key)| (throttle, *key)).collect();
            receipts.settle_cost(at, &keyed, cost, tidegate::clock::now());
        })))
    }

    /// Where the call stands with the limit at this place of the route, if that has decided.
    pub(super) fn standing(&self, place: usize) -> Option<throttle::Standing> {
        self.standings[place]
    }

    pub(super) fn refund(&mut self, now: Instant) {
        if let Some(receipts) = self.here.receipts.take() {
            receipts.refund(&self.here.keyed, now);
        }
        if let Some(receipts) = self.shared.receipts.take() {
            receipts.refund(&self.shared.keyed, now);
        }
    }
}
