//! Who asked lately: how many nodes share a subject, and which of their questions are new.

use std::collections::BTreeMap;

use super::Micros;
use crate::lease::Node;

/// Most nodes that an account remembers. What a node beyond them gives back is lost.
pub const MOST_NODES: usize = 1024;

/// The nodes of this generation and the last. A generation is as long as what was granted may be given back, so whoever
/// may is in one of both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    /// The number of this generation: the store's clock divided by the rule's memory.
    pub(super) generation: u64,
    /// Nodes that asked in this generation.
    pub(super) present: u32,
    /// Nodes that asked in the one before.
    pub(super) before: u32,
    pub(super) seats: BTreeMap<Node, Seat>,
    /// What they wanted and did not get.
    pub(super) unmet: u64,
}

/// What is known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    /// The highest number of its questions.
    pub(super) seq: u64,
    /// When it asked last.
    pub(super) generation: u64,
    /// What it wanted then and did not get.
    pub(super) unmet: u64,
}

/// What a question is, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visit {
    /// From a node that is not remembered: what it gives back may have been booked before.
    Unknown,
    /// The next of a node that is remembered.
    New,
    /// The last one again.
    Repeated,
    /// One that a later one came before; or one of those that were repeated.
    Overtaken,
}

impl Census {
    /// Enters a question of `node` at `now`.
    pub(super) fn visit(&mut self, node: Node, seq: u64, now: Micros, memory: Micros) -> Visit {
        let generation = now / memory;
        if generation != self.generation {
            self.before = if generation == self.generation + 1 { self.present } else { 0 };
            self.present = 0;
            self.generation = generation;
            self.seats.retain(|_, seat| seat.generation + 1 >= generation && seat.generation <= generation);
            self.unmet = self.seats.values().map(|seat| seat.unmet).sum();
        }
        let seat = self.seats.get(&node).copied();
        let visit = match seat {
            None => Visit::Unknown,
            Some(seat) if seq > seat.seq => Visit::New,
            Some(seat) if seq == seat.seq => Visit::Repeated,
            Some(_) => Visit::Overtaken,
        };
        if seat.is_none_or(|seat| seat.generation != generation) {
            self.present += 1;
        }
        if seat.is_some() || self.seats.len() < MOST_NODES {
            let seq = seat.map_or(seq, |seat| seat.seq.max(seq));
            self.unmet -= seat.map_or(0, |seat| seat.unmet);
            self.seats.insert(node, Seat { seq, generation, unmet: 0 });
        }
        visit
    }

    /// Notes what `node`, which visits, wanted and did not get.
    pub(super) fn leave(&mut self, node: Node, unmet: u64) {
        if let Some(seat) = self.seats.get_mut(&node) {
            seat.unmet = unmet;
            self.unmet += unmet;
        }
    }

    /// How many would want it all together, if each of them wanted as much as one that wants `want`; at most all nodes.
    pub(super) fn sharers(&self, want: u64) -> u64 {
        let all = (self.unmet + want).div_ceil(want.max(1));
        all.clamp(1, u64::from(self.nodes()))
    }

    /// Nodes that share the subject, at least 1.
    pub(super) fn nodes(&self) -> u32 {
        self.present.max(self.before).max(1)
    }
}
