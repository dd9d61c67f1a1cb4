//! What keeps the permits of a fleet: the trait, and a store in memory.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tidegate_core::lease::Leases;
pub(super) use tidegate_core::lease::{Answer, Demand, Node};

use crate::clock;

/// Keeps the permits of a limit that a fleet shares, by the rules of [`Leases`].
///
/// Whatever it is asked may be lost, late, repeated or out of order, and so may its answers: requests are numbered, and
/// the numbers are its business to check.
pub trait FleetStore: Send + Sync + 'static {
    /// Why the store could not answer.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Leases permits to `node` for `life`, in place of those it has.
    ///
    /// The store counts `life` from when it hears, the node from when it asked: the node always stops first. The future
    /// is dropped when its answer takes longer than a quarter of `life`; the request may be heard all the same.
    fn lease(
        &self,
        node: Node,
        demand: Demand,
        life: Duration,
    ) -> impl Future<Output = Result<Answer, Self::Error>> + Send;

    /// Gives back all that `node` has. `seq` numbers this among its requests.
    fn give_back(&self, node: Node, seq: u64) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// A store in memory: for one process, and for tests.
#[derive(Clone, Debug)]
pub struct LocalFleet(Arc<Mutex<Leases>>);

impl LocalFleet {
    /// Makes a store of `limit` permits.
    pub fn new(limit: u32) -> Self {
        Self(Arc::new(Mutex::new(Leases::new(limit))))
    }

    /// Changes the limit. A lower one is reached as leases are renewed.
    pub fn resize(&self, limit: u32) {
        self.0.lock().resize(limit);
    }

    /// Permits leased now; those of leases that have run out since the last request count.
    pub fn leased(&self) -> u32 {
        self.0.lock().leased()
    }
}

impl FleetStore for LocalFleet {
    type Error = Infallible;

    async fn lease(&self, node: Node, demand: Demand, life: Duration) -> Result<Answer, Infallible> {
        let now = clock::now();
        Ok(self.0.lock().lease(node, demand, life, now))
    }

    async fn give_back(&self, node: Node, seq: u64) -> Result<(), Infallible> {
        self.0.lock().give_back(node, seq);
        Ok(())
    }
}
