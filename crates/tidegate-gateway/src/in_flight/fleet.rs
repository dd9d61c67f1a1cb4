//! Where the permits of a fleet are kept, and the names of those who share them.

use std::{
    convert::Infallible,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tidegate::limiter::{Answer, Demand, FleetStore, LocalFleet, Node};

/// How long permits are leased for: a dead process's permits return after so much. A third of it lies between two
/// renewals, a fiftieth at least between two questions. Default: 3 s.
pub(super) const LEASE: Duration = Duration::from_secs(3);

/// A new member of a fleet, told from all others by 64 random bits: one that joins again must not be taken for the one
/// that left, whose requests may still be on their way.
pub(super) fn new_member() -> Node {
    Node(RandomState::new().hash_one(std::process::id()))
}

/// The permits that a fleet shares.
#[derive(Clone, Debug)]
pub(super) enum FleetPermits {
    /// In this process: with a store of `memory://` it is the whole fleet.
    Local(LocalFleet),
}

impl FleetPermits {
    pub(super) fn new(limit: u32) -> Self {
        Self::Local(LocalFleet::new(limit))
    }

    /// Changes the limit; a lower one is reached as leases are renewed.
    pub(super) fn resize(&self, limit: u32) {
        match self {
            Self::Local(local) => local.resize(limit),
        }
    }
}

impl FleetStore for FleetPermits {
    type Error = Infallible;

    async fn lease(&self, node: Node, demand: Demand, life: Duration) -> Result<Answer, Self::Error> {
        match self {
            Self::Local(local) => local.lease(node, demand, life).await,
        }
    }

    async fn give_back(&self, node: Node, seq: u64) -> Result<(), Self::Error> {
        match self {
            Self::Local(local) => local.give_back(node, seq).await,
        }
    }
}
