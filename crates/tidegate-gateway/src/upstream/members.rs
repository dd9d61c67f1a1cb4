//! The endpoints of an upstream at one time, and which of them takes a call: the less busy of two drawn at random, each as
//! often as its weight says. Those in the gateway's zone come first, until they are much busier than the others.
//!
//! Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing": close to the best choice at a constant price, and
//! no herd runs to the one endpoint that looked best a moment ago.

use std::{cmp::Ordering, sync::Arc};

use super::{endpoint::Endpoint, endpoints::Zone};

/// How many times as busy for its weight as one of another zone an endpoint of this zone may be and still be preferred.
const MUCH_BUSIER: u64 = 2;

/// So many calls in flight are not busy, whatever the others do.
const NOT_BUSY: u32 = 8;

/// One of them.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) endpoint: Arc<Endpoint>,
    /// 0: it takes no new calls.
    pub(super) weight: u32,
    pub(super) zone: Zone,
}

/// The endpoints at one time. They never change: others are another value.
#[derive(Debug, Default)]
pub(super) struct Members {
    all: Arc<[Arc<Endpoint>]>,
    /// Those that take new calls, in the gateway's zone.
    near: Group,
    /// Those that take new calls elsewhere: all, where no zone is known.
    far: Group,
}

impl Members {
    pub(super) fn new(members: Vec<Member>) -> Self {
        let near = Group::new(&members, Zone::Here);
        let far = Group::new(&members, Zone::Elsewhere);
        Self { all: members.into_iter().map(|member| member.endpoint).collect(), near, far }
    }

    pub(super) fn all(&self) -> Arc<[Arc<Endpoint>]> {
        Arc::clone(&self.all)
    }

    pub(super) fn takes_none(&self) -> bool {
        self.count() == 0
    }

    pub(super) fn count(&self) -> usize {
        self.near.open.len() + self.far.open.len()
    }

    /// As [`super::Upstream::pick`].
    pub(super) fn pick(
        &self,
        avoid: Option<&Endpoint>,
        admits: impl Fn(&Endpoint) -> bool,
    ) -> Option<&Arc<Endpoint>> {
        let (near, far) = (self.near.draw(), self.far.draw());
        // Those of the zone first, and the others after them: or the other way about.
        let mut order = [(&self.near, near), (&self.far, far)];
        if let (Some(near), Some(far)) = (near, far)
            && self.spills(near.better, far.better)
        {
            order.reverse();
        }
        let avoided = |endpoint: &Arc<Endpoint>| avoid.is_some_and(|avoid| std::ptr::eq(avoid, &**endpoint));
        let candidates = || order.into_iter().flat_map(|(group, drawn)| group.from(drawn));
        candidates().find(|endpoint| !avoided(endpoint) && admits(endpoint)).or_else(|| {
            avoid.and_then(|_| candidates().find(|endpoint| avoided(endpoint) && admits(endpoint)))
        })
    }

    /// Whether one of the zone is so busy that one of another is better.
    fn spills(&self, near: usize, far: usize) -> bool {
        let busy = self.near.open[near].in_flight();
        let other = u64::from(self.far.open[far].in_flight()) * MUCH_BUSIER;
        busy >= NOT_BUSY && u64::from(busy) * self.far.weight(far) > other * self.near.weight(near)
    }
}

/// Endpoints that are alike but for how busy they are.
#[derive(Debug, Default)]
struct Group {
    open: Box<[Arc<Endpoint>]>,
    /// Of each, the sum of the weights up to and with it; none when all weigh the same.
    sums: Option<Box<[u64]>>,
    /// The weight of each, where all weigh the same.
    alike: u64,
}

/// Two of a group, or its only one twice.
#[derive(Clone, Copy, Debug)]
struct Drawn {
    better: usize,
    other: usize,
}

impl Group {
    fn new(members: &[Member], zone: Zone) -> Self {
        let open = || members.iter().filter(|member| member.zone == zone && member.weight > 0);
        let mut sum = 0;
        let sums = open().map(|member| {
            sum += u64::from(member.weight);
            sum
        });
        let sums: Box<[u64]> = sums.collect();
        let first = open().next().map_or(0, |member| member.weight);
        let alike = open().all(|member| member.weight == first);
        let open = open().map(|member| Arc::clone(&member.endpoint)).collect();
        Self { open, sums: (!alike).then_some(sums), alike: first.into() }
    }

    /// Draws two, of which the less busy is better.
    fn draw(&self) -> Option<Drawn> {
        match self.open.len() {
            0 => return None,
            1 => return Some(Drawn { better: 0, other: 0 }),
            _ => {}
        }
        let (first, second) = self.two();
        let drawn =
            if self.compare(second, first) == Ordering::Less { (second, first) } else { (first, second) };
        Some(Drawn { better: drawn.0, other: drawn.1 })
    }

    /// All of them, those that were drawn first.
    fn from(&self, drawn: Option<Drawn>) -> impl Iterator<Item = &Arc<Endpoint>> {
        drawn.into_iter().flat_map(|Drawn { better, other }| {
            let count = self.open.len();
            let rest = (1..count).map(move |step| (better + step) % count).filter(move |at| *at != other);
            let second = (other != better).then_some(other);
            std::iter::once(better).chain(second).chain(rest).map(|at| &self.open[at])
        })
    }

    /// Two different ones, of at least two.
    fn two(&self) -> (usize, usize) {
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
        let Some(sums) = &self.sums else { return self.alike };
        sums[at] - at.checked_sub(1).map_or(0, |before| sums[before])
    }

    /// Which is less busy for its weight. Idle ones are alike: which comes first was drawn by weight.
    fn compare(&self, one: usize, other: usize) -> Ordering {
        let busy = |at: usize| u64::from(self.open[at].in_flight());
        (busy(one) * self.weight(other)).cmp(&(busy(other) * self.weight(one)))
    }
}
