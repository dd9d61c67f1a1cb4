//! Where the permits of a fleet are kept, and this process's name among those who share them.

use std::{
    convert::Infallible,
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
    time::Duration,
};

use tidegate::limiter::{Demand, FleetStore, LocalFleet, Node};

/// How long permits are leased for: a dead process's permits return after so much. A third of it lies between two
/// renewals, a fiftieth at least between two questions. Default: 3 s.
pub(super) const LEASE: Duration = Duration::from_secs(3);

/// This process, told from all others that share a store by a number of 64 random bits.
pub(super) fn this_process() -> Node {
    static NODE: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    Node(*NODE)
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

    async fn lease(&self, node: Node, demand: Demand, life: Duration) -> Result<u32, Self::Error> {
        match self {
            Self::Local(local) => local.lease(node, demand, life).await,
        }
    }

    async fn give_back(&self, node: Node) -> Result<(), Self::Error> {
        match self {
            Self::Local(local) => local.give_back(node).await,
        }
    }
}
