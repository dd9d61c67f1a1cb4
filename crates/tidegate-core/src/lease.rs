//! Divides the permits of one limit among the instances of a fleet, by demand, as leases with an end.

use std::collections::BTreeMap;

use crate::Instant;

/// One instance of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(pub u64);

/// Permits that an instance may use until a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// How many calls it may have in flight.
    pub permits: u32,
    /// When they return to the fleet, unless they are leased again before.
    pub until: Instant,
}

/// What an instance asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Permits it goes on using until it hears the answer: it has let go of all others before it asked.
    pub kept: u32,
    /// How many permits it could use.
    pub wanted: u32,
}

/// All leases of one limit.
///
/// The sum of what instances may use never exceeds the limit, unless the limit itself is lowered below it; then nothing
/// is leased anew until enough has come back.
#[derive(Clone, Debug)]
pub struct Leases {
    limit: u32,
    nodes: BTreeMap<Node, Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    /// What it may use: its lease, or what it kept and has still to let go of.
    counted: u32,
    wanted: u32,
    until: Instant,
}

/// Most instances that share a limit.
pub const MOST_NODES: usize = 10_000;

impl Leases {
    /// Makes a limit of which nothing is leased.
    pub const fn new(limit: u32) -> Self {
        Self { limit, nodes: BTreeMap::new() }
    }

    /// Leases permits to `node` until `until`, in place of those it has.
    ///
    /// Where all demand fits it gets what it wants. Else it gets its fair share: what small demands leave is divided
    /// among the large ones. It gets nothing that others still have; what it kept beyond its lease counts as its own
    /// until it asks again, having let go of it as its calls end.
    pub fn lease(&mut self, node: Node, demand: Demand, until: Instant, now: Instant) -> Lease {
        self.nodes.retain(|_, held| held.until > now);
        if self.nodes.len() >= MOST_NODES && !self.nodes.contains_key(&node) {
            return Lease { permits: 0, until };
        }
        let before = self.nodes.get(&node).map_or(0, |held| held.counted);
        let free = self.limit.saturating_sub(self.leased() - before);
        let permits = demand.wanted.min(self.share(node, demand.wanted)).min(free);
        // What it claims to keep without having had it is not believed.
        let counted = permits.max(demand.kept.min(before));
        self.nodes.insert(node, Held { counted, wanted: demand.wanted, until });
        Lease { permits, until }
    }

    /// Gives back all that `node` has.
    pub fn give_back(&mut self, node: Node) {
        self.nodes.remove(&node);
    }

    /// Changes the limit.
    pub fn resize(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Permits that instances may use; what has run out counts until the next lease.
    pub fn leased(&self) -> u32 {
        self.nodes.values().map(|held| held.counted).sum()
    }

    /// The most that `node` gets when it wants `wanted`: max-min fairness over all demands.
    fn share(&self, node: Node, wanted: u32) -> u32 {
        let others = self.nodes.iter().filter(|(other, _)| **other != node).map(|(_, held)| held.wanted);
        let mut demands: Vec<u32> = others.collect();
        demands.push(wanted);
        demands.sort_unstable();
        let mut left = self.limit;
        for (at, demand) in demands.iter().enumerate() {
            let level = left.div_ceil((demands.len() - at) as u32);
            if *demand > level {
                // From here on all want more than an equal part of what is left.
                return level;
            }
            left -= demand;
        }
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::EPOCH + Duration::from_secs(seconds)
    }

    fn wants(wanted: u32) -> Demand {
        Demand { kept: 0, wanted }
    }

    #[test]
    fn permits_follow_demand() {
        let mut leases = Leases::new(250);
        assert_eq!(leases.lease(Node(1), wants(300), at(10), at(0)).permits, 250, "alone it gets all");
        assert_eq!(leases.lease(Node(2), wants(50), at(10), at(0)).permits, 0, "nothing is left yet");
        let busy = Demand { kept: 250, wanted: 300 };
        assert_eq!(leases.lease(Node(1), busy, at(11), at(1)).permits, 200, "its share; 50 calls are to end");
        assert_eq!(leases.lease(Node(2), wants(50), at(11), at(1)).permits, 0, "they have not yet");
        let calmer = Demand { kept: 210, wanted: 300 };
        assert_eq!(leases.lease(Node(1), calmer, at(12), at(2)).permits, 200);
        assert_eq!(leases.lease(Node(2), wants(50), at(12), at(2)).permits, 40);
    }

    #[test]
    fn the_permits_of_a_dead_instance_return_after_its_lease() {
        let mut leases = Leases::new(100);
        leases.lease(Node(1), wants(100), at(10), at(0));
        assert_eq!(leases.lease(Node(2), wants(100), at(15), at(9)).permits, 0);
        assert_eq!(leases.lease(Node(2), wants(100), at(20), at(10)).permits, 100);
        leases.give_back(Node(2));
        assert_eq!(leases.leased(), 0);
    }

    #[test]
    fn a_lowered_limit_is_reached_as_calls_end() {
        let mut leases = Leases::new(100);
        leases.lease(Node(1), wants(100), at(10), at(0));
        leases.resize(40);
        let busy = Demand { kept: 70, wanted: 100 };
        assert_eq!(leases.lease(Node(1), busy, at(11), at(1)).permits, 40);
        assert_eq!(leases.lease(Node(2), wants(10), at(11), at(1)).permits, 0);
        let calm = Demand { kept: 10, wanted: 100 };
        assert_eq!(leases.lease(Node(1), calm, at(12), at(2)).permits, 30);
        assert_eq!(leases.lease(Node(2), wants(10), at(12), at(2)).permits, 10);
    }

    proptest! {
        #[test]
        fn what_instances_may_use_never_exceeds_the_limit(
            limit in 1u32..300,
            steps in prop::collection::vec((0u64..8, 0u32..200, 0u32..200, 0u64..3, 1u64..9), 1..200),
        ) {
            let (mut leases, mut now) = (Leases::new(limit), 0);
            // What each may use, and until when.
            let mut used: BTreeMap<u64, Lease> = BTreeMap::new();
            for (node, kept, wanted, pass, life) in steps {
                now += pass;
                let before = used.get(&node).filter(|lease| lease.until > at(now)).map_or(0, |lease| lease.permits);
                let kept = kept.min(before);
                let lease = leases.lease(Node(node), Demand { kept, wanted }, at(now + life), at(now));
                used.insert(node, Lease { permits: lease.permits.max(kept), ..lease });
                let valid: u32 = used.values().filter(|lease| lease.until > at(now)).map(|lease| lease.permits).sum();
                prop_assert!(valid <= limit, "{} of {}", valid, limit);
            }
        }

        #[test]
        fn all_demand_is_met_after_everybody_asked_twice_if_it_fits(
            wanted in prop::collection::vec(0u32..100, 1..10)
        ) {
            let mut leases = Leases::new(wanted.iter().sum::<u32>().max(1));
            for _ in 0..2 {
                for (node, wanted) in wanted.iter().enumerate() {
                    leases.lease(Node(node as u64), wants(*wanted), at(10), at(0));
                }
            }
            prop_assert_eq!(leases.leased(), wanted.iter().sum::<u32>());
        }
    }
}
