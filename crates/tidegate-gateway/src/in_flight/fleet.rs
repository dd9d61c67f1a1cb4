//! Where the permits of a fleet are kept, and the names of those who share them.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tidegate::limiter::{Answer, Demand, FleetStore, LocalFleet, Node};
use tidegate_redis::{RedisFleet, RedisLedger, StoreError};

/// How long permits are leased for: a dead process's permits return after so much. A third of it lies between two
/// renewals, a fiftieth at least between two questions. Default: 3 s.
pub(super) const LEASE: Duration = Duration::from_secs(3);

/// A new member of a fleet, told from all others by 64 random bits: one that joins again must not be taken for the one
/// that left, whose requests may still be on their way.
pub(super) fn new_member() -> Node {
    Node(RandomState::new().hash_one(std::process::id()))
}

/// The permits that a fleet shares.
#[derive(Clone)]
pub(crate) enum FleetPermits {
    /// In this process: with a store of `memory://` it is the whole fleet.
    Local(LocalFleet),
    /// In the store that the fleet shares.
    Shared {
        /// Where they are.
        ledger: RedisLedger,
        /// What the fleet calls them.
        name: Arc<str>,
        /// As many as the last configuration said.
        permits: Arc<Mutex<RedisFleet>>,
    },
}

/// The store that leases permits could not be asked.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct NotLeased(#[from] StoreError);

impl FleetPermits {
    /// `limit` permits of the upstream `name`, in a shared store.
    pub(crate) fn shared(ledger: &RedisLedger, name: &str, limit: u32) -> Self {
        let permits = Arc::new(Mutex::new(RedisFleet::new(ledger, name, limit)));
        Self::Shared { ledger: ledger.clone(), name: name.into(), permits }
    }

    /// `limit` permits in this process.
    pub(crate) fn local(limit: u32) -> Self {
        Self::Local(LocalFleet::new(limit))
    }

    /// Changes the limit; a lower one is reached as leases are renewed.
    pub(super) fn resize(&self, limit: u32) {
        match self {
            Self::Local(local) => local.resize(limit),
            Self::Shared { ledger, name, permits } => *permits.lock() = RedisFleet::new(ledger, name, limit),
        }
    }
}

impl FleetStore for FleetPermits {
    type Error = NotLeased;

    async fn lease(&self, node: Node, demand: Demand, life: Duration) -> Result<Answer, Self::Error> {
        match self {
            Self::Local(local) => match local.lease(node, demand, life).await {
                Ok(answer) => Ok(answer),
                Err(never) => match never {},
            },
            Self::Shared { permits, .. } => {
                let permits = permits.lock().clone();
                Ok(permits.lease(node, demand, life).await?)
            }
        }
    }

    async fn give_back(&self, node: Node, seq: u64) -> Result<(), Self::Error> {
        match self {
            Self::Local(local) => match local.give_back(node, seq).await {
                Ok(()) => Ok(()),
                Err(never) => match never {},
            },
            Self::Shared { permits, .. } => {
                let permits = permits.lock().clone();
                Ok(permits.give_back(node, seq).await?)
            }
        }
    }
}

impl fmt::Debug for FleetPermits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local(_) => "Local",
            Self::Shared { .. } => "Shared",
        })
    }
}
