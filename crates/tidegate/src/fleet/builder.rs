//! A fleet's throttle in the making.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tidegate_core::{
    credit::{DEFAULT_DRIFT, Terms},
    lease::Node,
    ledger::Rule,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore},
};

use super::{
    FleetThrottle,
    any::AnyLedger,
    ask::Store,
    away::{self, Away},
    background,
    ledger::{Ledger, MOST_PARTS},
    shard::Shard,
    shared::{OnStoreFailure, Shared},
};
use crate::{
    sync::{AtomicU32, AtomicU64},
    throttle::Mode,
};

/// A fleet's throttle in the making.
#[must_use]
pub struct FleetBuilder {
    name: Arc<str>,
    rule: Rule,
    ledger: Box<dyn AnyLedger>,
    node: Option<Node>,
    handle: Option<Handle>,
    mode: Mode,
    on_failure: OnStoreFailure,
    max_keys: NonZeroU32,
    max_asks: NonZeroU32,
    patience: Duration,
    drift: u32,
}

/// A throttle asks its ledger on a tokio runtime, and there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRuntime;

impl fmt::Display for NoRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a fleet's throttle needs a tokio runtime to ask its ledger on; build it on one, or name one with handle()",
        )
    }
}

impl std::error::Error for NoRuntime {}

impl FleetBuilder {
    pub(super) fn new(name: Arc<str>, rule: Rule, ledger: impl Ledger) -> Self {
        Self {
            name,
            rule,
            ledger: Box::new(ledger),
            node: None,
            handle: None,
            mode: Mode::Enforce,
            on_failure: OnStoreFailure::Deny,
            max_keys: NonZeroU32::new(1_000_000).expect("a million is not zero"),
            max_asks: NonZeroU32::new(1024).expect("1024 is not zero"),
            patience: Duration::from_millis(50),
            drift: DEFAULT_DRIFT,
        }
    }

    /// Sets which node of the fleet this is. No other process may be the same one, and a process that starts anew is
    /// another one. Default: a random one.
    pub const fn node(mut self, node: Node) -> Self {
        self.node = Some(node);
        self
    }

    /// Sets the runtime on which the ledger is asked. Callers may be on others. Default: the one it is built on.
    pub fn handle(mut self, handle: Handle) -> Self {
        self.handle = Some(handle);
        self
    }

    /// Sets whether the limit refuses. A shadow lets calls go without waiting for the ledger, and counts them when it
    /// has answered. Default: it refuses.
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets what becomes of calls that need the ledger while it does not answer. Default: [`OnStoreFailure::Deny`].
    pub const fn on_store_failure(mut self, on_failure: OnStoreFailure) -> Self {
        self.on_failure = on_failure;
        self
    }

    /// Sets how many keys have an account here at once. Those not used of late make room for others, and their credit
    /// goes back; where all have questions under way, calls of new keys are refused. Default: 1 000 000.
    pub const fn max_keys(mut self, max_keys: NonZeroU32) -> Self {
        self.max_keys = max_keys;
        self
    }

    /// Sets how many questions may be under way at once. Calls that need one more are decided as if the ledger did not
    /// answer. Default: 1024.
    pub const fn max_asks(mut self, max_asks: NonZeroU32) -> Self {
        self.max_asks = max_asks;
        self
    }

    /// Sets how long an answer of the ledger may take, and so the longest that a call waits for it. After two in a row that
    /// were missed the store is known to be away: no call waits for it, until a question asked in the background is
    /// answered. Default: 50 ms.
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets by how much the store's clock may run faster than this node's, in parts of a million. Default: 200.
    pub const fn drift(mut self, millionths: u32) -> Self {
        self.drift = millionths;
        self
    }

    /// Makes the throttle. It takes no memory for keys until they come.
    ///
    /// # Errors
    /// [`NoRuntime`] outside of a tokio runtime when no [`handle`](Self::handle) is given.
    pub fn build(self) -> Result<FleetThrottle, NoRuntime> {
        let handle = match self.handle {
            Some(handle) => handle,
            None => Handle::try_current().map_err(|_| NoRuntime)?,
        };
        let keys = self.max_keys.get() as usize;
        // A thousand keys a shard and more, so that chance fills them evenly, and an eighth more for when it does not.
        let shards = (keys / 1024).clamp(1, 256).next_power_of_two();
        let most = (keys * 9 / 8).div_ceil(shards).max(keys.min(8));
        let terms = Terms::of(&self.rule).drift(self.drift);
        let hints = self.ledger.hints();
        let parts = (self.ledger.parts() as usize).clamp(1, MOST_PARTS as usize).next_power_of_two();
        let shared = Arc::new(Shared {
            name: self.name,
            // Below 2^53, so that a store whose numbers are doubles keeps it as it is.
            node: self.node.unwrap_or_else(|| Node(fastrand::u64(1..1 << 53))),
            ledger: self.ledger,
            handle: handle.clone(),
            shards: (0..shards).map(|_| Shard::new(self.rule, terms, self.mode, most)).collect(),
            patience: self.patience,
            drift: self.drift,
            on_failure: Mutex::new(self.on_failure),
            places: Arc::new(Semaphore::new(self.max_asks.get() as usize)),
            most_asks: self.max_asks.get(),
            away: Away::new(parts, self.patience),
            store: Store::new(),
            losses: AtomicU32::new(0),
            loss_noticed: Notify::new(),
            lowered_until: AtomicU64::new(0),
            tasks: Mutex::default(),
        });
        let weak = Arc::downgrade(&shared);
        *shared.tasks.lock() = vec![
            handle.spawn(background::follow(weak.clone(), hints)).abort_handle(),
            handle.spawn(background::tend(weak.clone())).abort_handle(),
            handle.spawn(away::probe(weak)).abort_handle(),
        ];
        Ok(FleetThrottle { shared })
    }
}

impl fmt::Debug for FleetBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetBuilder")
            .field("name", &self.name)
            .field("rule", &self.rule)
            .finish_non_exhaustive()
    }
}
