//! The endpoints of an upstream at one time, and which of them takes a call: the less busy of two drawn at random, each as
//! often as its weight says.
//!
//! Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing": close to the best choice at a constant price, and
//! no herd runs to the one endpoint that looked best a moment ago.

use std::{cmp::Ordering, sync::Arc};

use super::endpoint::Endpoint;

/// The endpoints at one time. They never change: others are another value.
#[derive(Debug, Default)]
pub(super) struct Members {
    all: Arc<[Arc<Endpoint>]>,
    /// Those that take new calls.
    open: Box<[Arc<Endpoint>]>,
    /// Of each that takes new calls, the sum of the weights up to and with it; none when all weigh the same.
    sums: Option<Box<[u64]>>,
}

impl Members {
    /// Endpoints and their weights.
    pub(super) fn new(members: Vec<(Arc<Endpoint>, u32)>) -> Self {
        let open = || members.iter().filter(|(_, weight)| *weight > 0);
        let mut sum = 0;
        let sums = open().map(|(_, weight)| {
            sum += u64::from(*weight);
            sum
        });
        let sums: Box<[u64]> = sums.collect();
        let mut weights = open().map(|(_, weight)| weight);
        let first = weights.next();
        let alike = weights.all(|weight| Some(weight) == first);
        let open = open().map(|(endpoint, _)| Arc::clone(endpoint)).collect();
        let all = members.into_iter().map(|(endpoint, _)| endpoint).collect();
        Self { all, open, sums: (!alike).then_some(sums) }
    }

    pub(super) fn all(&self) -> Arc<[Arc<Endpoint>]> {
        Arc::clone(&self.all)
    }

    pub(super) fn takes_none(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// As [`super::Upstream::pick`].
    pub(super) fn pick(
        &self,
        avoid: Option<&Endpoint>,
        admits: impl Fn(&Endpoint) -> bool,
    ) -> Option<&Arc<Endpoint>> {
        let endpoints = &self.open;
        match &**endpoints {
            [] => return None,
            [only] => return admits(only).then_some(only),
            _ => {}
        }
        let count = endpoints.len();
        let (first, second) = self.draw();
        let (better, other) =
            if self.compare(second, first) == Ordering::Less { (second, first) } else { (first, second) };
        let avoided = |endpoint: &Arc<Endpoint>| avoid.is_some_and(|avoid| std::ptr::eq(avoid, &**endpoint));
        let rest = (1..count).map(|step| (first + step) % count).filter(|at| *at != second);
        [better, other]
            .into_iter()
            .chain(rest)
            .map(|at| &endpoints[at])
            .find(|endpoint| !avoided(endpoint) && admits(endpoint))
            .or_else(|| endpoints.iter().find(|endpoint| avoided(endpoint) && admits(endpoint)))
    }

    /// Two different ones, of at least two.
    fn draw(&self) -> (usize, usize) {
        let count = self.open.len();
        let Some(sums) = &self.sums else {
            let first = fastrand::usize(..count);
            return (first, (first + fastrand::usize(1..count)) % count);
        };
        let total = sums[count - 1];
        let drawn = fastrand::u64(..total);
        let first = sums.partition_point(|sum| *sum <= drawn);
        let weight = self.weight(first);
        // As if the first were not there.
        let mut drawn = fastrand::u64(..total - weight);
        if drawn >= sums[first] - weight {
            drawn += weight;
        }
        (first, sums.partition_point(|sum| *sum <= drawn))
    }

    fn weight(&self, at: usize) -> u64 {
        let Some(sums) = &self.sums else { return 1 };
        sums[at] - at.checked_sub(1).map_or(0, |before| sums[before])
    }

    /// Which is less busy for its weight. Idle ones are alike: which comes first was drawn by weight.
    fn compare(&self, one: usize, other: usize) -> Ordering {
        let busy = |at: usize| u64::from(self.open[at].in_flight());
        (busy(one) * self.weight(other)).cmp(&(busy(other) * self.weight(one)))
    }
}
