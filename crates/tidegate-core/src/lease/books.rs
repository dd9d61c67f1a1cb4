//! The store's side: who has how many permits, and until when.

use std::{collections::BTreeMap, time::Duration};

use super::{Answer, Demand, Node};
use crate::Instant;

/// All leases of one limit.
///
/// The sum of what instances may use never exceeds the limit, unless the limit itself is lowered below it; then nothing
/// is leased anew until enough has come back.
#[derive(Clone, Debug)]
pub struct Leases {
    limit: u32,
    nodes: BTreeMap<Node, Held>,
    learning_until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    /// The last request that was heard, and its answer.
    seq: u64,
    permits: u32,
    /// What it may use: its lease, or what it kept and has still to let go of.
    counted: u32,
    wanted: u32,
    until: Instant,
    /// Until when its number is remembered, so that a request of long ago leases nothing.
    remembered_until: Instant,
}

/// Most instances that share a limit; those that left within two lives of a lease count too.
pub const MOST_NODES: usize = 10_000;

impl Leases {
    /// Makes a limit of which nothing is leased.
    pub const fn new(limit: u32) -> Self {
        Self { limit, nodes: BTreeMap::new(), learning_until: Instant::EPOCH }
    }

    /// Makes the books of a limit whose books were lost, and of which others may hold leases up to `until`, one life from
    /// now. Until then it leases to each no more than what it says it has.
    pub const fn learning(limit: u32, until: Instant) -> Self {
        Self { limit, nodes: BTreeMap::new(), learning_until: until }
    }

    /// Leases permits to `node` for `life`, in place of those it has.
    ///
    /// Where all demand fits it gets what it wants. Else it gets its fair share: what small demands leave is divided
    /// among the large ones. It gets nothing that others still have; what it kept beyond its lease counts as its own
    /// until it asks again, having let go of it as its calls end.
    ///
    /// A request is taken once: repeated, it gets the same answer and no longer life; overtaken by a later one it is out
    /// of order. Numbers are remembered for a life longer than leases. A request that is older still is that of an instance
    /// which has nothing any more and does not listen: at worst what it wanted lies idle for one life.
    pub fn lease(&mut self, node: Node, demand: Demand, life: Duration, now: Instant) -> Answer {
        self.expire(now);
        let before = match self.nodes.get(&node) {
            Some(held) if demand.seq == held.seq => return Answer::Leased(held.permits),
            Some(held) if demand.seq < held.seq => return Answer::OutOfOrder,
            Some(held) => held.counted,
            None if self.nodes.len() >= MOST_NODES => return Answer::Leased(0),
            None => 0,
        };
        let (permits, counted) = if now < self.learning_until {
            // It may have more than it wants now; all that it keeps counts.
            (demand.wanted.min(demand.kept), demand.kept)
        } else {
            let free = self.limit.saturating_sub(self.leased() - before);
            let permits = demand.wanted.min(self.share(node, demand.wanted)).min(free);
            // What it claims to keep without having had it is not believed.
            (permits, permits.max(demand.kept.min(before)))
        };
        let until = now + life;
        let held = Held {
            seq: demand.seq,
            permits,
            counted,
            wanted: demand.wanted,
            until,
            remembered_until: until + life,
        };
        self.nodes.insert(node, held);
        Answer::Leased(permits)
    }

    /// Takes back all that `node` has: it uses none of it any more. `seq` numbers it among its requests.
    pub fn give_back(&mut self, node: Node, seq: u64) {
        if let Some(held) = self.nodes.get_mut(&node).filter(|held| held.seq < seq) {
            held.end();
            held.seq = seq;
        }
    }

    /// Changes the limit.
    pub const fn resize(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Permits that instances may use; what has run out counts until the next request.
    pub fn leased(&self) -> u32 {
        self.nodes.values().fold(0, |sum, held| sum.saturating_add(held.counted))
    }

    fn expire(&mut self, now: Instant) {
        self.nodes.retain(|_, held| held.remembered_until > now);
        self.nodes.values_mut().filter(|held| held.until <= now).for_each(Held::end);
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

impl Held {
    /// Ends the lease. What was answered goes with it, as a repeated request must not bring it back.
    const fn end(&mut self) {
        (self.permits, self.counted, self.wanted) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIFE: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Instant {
        Instant::EPOCH + Duration::from_secs(seconds)
    }

    fn wants(seq: u64, wanted: u32) -> Demand {
        Demand { seq, kept: 0, wanted }
    }

    /// What `node` gets at `second`.
    fn lease(leases: &mut Leases, node: u64, demand: Demand, second: u64) -> u32 {
        match leases.lease(Node(node), demand, LIFE, at(second)) {
            Answer::Leased(permits) => permits,
            Answer::OutOfOrder => panic!("{demand:?} is in order"),
        }
    }

    #[test]
    fn permits_follow_demand() {
        let mut leases = Leases::new(250);
        assert_eq!(lease(&mut leases, 1, wants(1, 300), 0), 250, "alone it gets all");
        assert_eq!(lease(&mut leases, 2, wants(1, 50), 0), 0, "nothing is left yet");
        let busy = Demand { seq: 2, kept: 250, wanted: 300 };
        assert_eq!(lease(&mut leases, 1, busy, 1), 200, "its share; 50 calls are to end");
        assert_eq!(lease(&mut leases, 2, wants(2, 50), 1), 0, "they have not yet");
        let calmer = Demand { seq: 3, kept: 210, wanted: 300 };
        assert_eq!(lease(&mut leases, 1, calmer, 2), 200);
        assert_eq!(lease(&mut leases, 2, wants(3, 50), 2), 40);
    }

    #[test]
    fn the_permits_of_a_dead_instance_return_after_its_lease() {
        let mut leases = Leases::new(100);
        lease(&mut leases, 1, wants(1, 100), 0);
        assert_eq!(lease(&mut leases, 2, wants(1, 100), 9), 0);
        assert_eq!(lease(&mut leases, 2, wants(2, 100), 10), 100);
        leases.give_back(Node(2), 3);
        assert_eq!(leases.leased(), 0);
    }

    #[test]
    fn a_lowered_limit_is_reached_as_calls_end() {
        let mut leases = Leases::new(100);
        lease(&mut leases, 1, wants(1, 100), 0);
        leases.resize(40);
        let busy = Demand { seq: 2, kept: 70, wanted: 100 };
        assert_eq!(lease(&mut leases, 1, busy, 1), 40);
        assert_eq!(lease(&mut leases, 2, wants(1, 10), 1), 0);
        let calm = Demand { seq: 3, kept: 10, wanted: 100 };
        assert_eq!(lease(&mut leases, 1, calm, 2), 30);
        assert_eq!(lease(&mut leases, 2, wants(2, 10), 2), 10);
    }

    #[test]
    fn a_late_request_brings_no_permit_back_to_life() {
        let mut leases = Leases::new(100);
        assert_eq!(lease(&mut leases, 1, wants(2, 10), 0), 10);
        let late = leases.lease(Node(1), wants(1, 100), LIFE, at(1));
        assert_eq!((late, leases.leased()), (Answer::OutOfOrder, 10), "overtaken by a renewal");

        leases.give_back(Node(1), 4);
        assert_eq!(leases.lease(Node(1), wants(3, 100), LIFE, at(1)), Answer::OutOfOrder);
        assert_eq!(lease(&mut leases, 1, wants(4, 100), 1), 0, "the number of what was given back");
        assert_eq!(lease(&mut leases, 2, wants(1, 100), 1), 100);

        assert_eq!(
            leases.lease(Node(1), wants(3, 100), LIFE, at(19)),
            Answer::OutOfOrder,
            "remembered still"
        );
        assert_eq!(leases.leased(), 0, "and the other's lease has run out");
    }

    #[test]
    fn a_repeated_request_gets_the_same_answer_and_no_longer_life() {
        let mut leases = Leases::new(100);
        assert_eq!(lease(&mut leases, 1, wants(1, 60), 0), 60);
        assert_eq!(lease(&mut leases, 1, wants(1, 60), 9), 60);
        assert_eq!(
            lease(&mut leases, 2, wants(1, 100), 10),
            100,
            "it ended ten seconds after it was first heard"
        );
        assert_eq!(lease(&mut leases, 1, wants(1, 60), 10), 0, "and is not renewed by its echo");
        assert_eq!(lease(&mut leases, 1, wants(2, 60), 20), 60, "a new request begins a new lease");
    }

    #[test]
    fn a_late_give_back_takes_nothing_from_a_later_lease() {
        let mut leases = Leases::new(100);
        lease(&mut leases, 1, wants(3, 60), 0);
        leases.give_back(Node(1), 2);
        assert_eq!(leases.leased(), 60);
        leases.give_back(Node(7), 1);
        assert_eq!(leases.leased(), 60, "who has nothing gives nothing back");
    }

    #[test]
    fn lost_books_lease_only_what_instances_still_have_until_all_was_heard_or_has_run_out() {
        let mut leases = Leases::learning(100, at(10));
        assert_eq!(lease(&mut leases, 1, Demand { seq: 7, kept: 60, wanted: 90 }, 0), 60);
        assert_eq!(lease(&mut leases, 2, wants(1, 50), 1), 0, "the other 40 may be somebody's");
        assert_eq!(lease(&mut leases, 3, Demand { seq: 2, kept: 40, wanted: 5 }, 9), 5);
        assert_eq!(leases.leased(), 100, "what the third kept counts until it asks again");
        assert_eq!(
            lease(&mut leases, 2, wants(2, 70), 10),
            60,
            "all was heard, and the lease of the first ran out"
        );
        assert_eq!(lease(&mut leases, 3, Demand { seq: 3, kept: 5, wanted: 5 }, 11), 5);
        assert_eq!(lease(&mut leases, 2, wants(3, 95), 12), 95);
    }

    #[test]
    fn a_fleet_that_is_too_large_gets_no_more_books() {
        let mut leases = Leases::new(100);
        lease(&mut leases, 0, wants(1, 0), 0);
        let held = leases.nodes[&Node(0)];
        leases.nodes.extend((1..MOST_NODES as u64).map(|node| (Node(node), held)));
        assert_eq!(lease(&mut leases, u64::MAX, wants(1, 1), 0), 0);
        assert_eq!(lease(&mut leases, 0, wants(2, 1), 0), 1, "those known go on");
        assert_eq!(lease(&mut leases, u64::MAX, wants(2, 1), 20), 1, "and those long gone make room");
    }

    proptest! {
        #[test]
        fn all_demand_is_met_after_everybody_asked_twice_if_it_fits(
            wanted in prop::collection::vec(0u32..100, 1..10)
        ) {
            let mut leases = Leases::new(wanted.iter().sum::<u32>().max(1));
            for seq in 1..3 {
                for (node, wanted) in wanted.iter().enumerate() {
                    lease(&mut leases, node as u64, wants(seq, *wanted), 0);
                }
            }
            prop_assert_eq!(leases.leased(), wanted.iter().sum::<u32>());
        }
    }
}
