//! Nodes that ask for credit without a rest, and what they were granted together: for a checker.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tidegate::{
    Rate,
    fleet::{Ledger, LedgerErrorKind, Node, Rule, Subject},
    throttle::{Key, KeyHasher, Seed},
};
use tidegate_core::{
    Algorithm, Quota,
    ledger::{Ask, Micros, Seen},
};
use tidegate_redis::{Client, Namespace, RedisLedger, Settings, StoreUrl};
use tokio::{task::JoinSet, time::sleep};

use crate::support::eventually;

/// What all nodes may be granted in a window.
pub(crate) const LIMIT: u32 = 60;
const WINDOW: Duration = Duration::from_millis(2500);
/// Short beside the window: after a loss grants go on in the same window, and must know what was granted in it.
const LIFE: Duration = Duration::from_millis(200);
/// Keys, so that several buckets and all masters of a cluster are asked.
const KEYS: u8 = 12;

pub(crate) fn rule() -> Rule {
    let rate = Rate::new(LIMIT, WINDOW).expect("a rate");
    let quota = Quota::of(rate).algorithm(Algorithm::FixedWindow).build().expect("a quota");
    Rule::of(quota).life(LIFE).build().expect("a rule")
}

pub(crate) fn key(number: u8) -> Key {
    KeyHasher::seeded(Seed::of(b"test")).part(&[number]).finish()
}

/// Nodes of their own connections, asking.
pub(crate) struct Fleet {
    _nodes: JoinSet<()>,
    seen: Arc<Witness>,
}

/// What was granted, and what went wrong.
#[derive(Default)]
pub(crate) struct Witness {
    granted: Mutex<BTreeMap<(u8, Micros), u64>>,
    total: AtomicU64,
    errors: Mutex<BTreeMap<&'static str, u64>>,
}

impl Fleet {
    /// Starts `count` nodes, and waits until each key was granted all of a window.
    pub(crate) async fn start(url: &str, count: u64) -> Self {
        let (mut nodes, seen) = (JoinSet::new(), Arc::new(Witness::default()));
        for number in 0..count {
            let url: StoreUrl = url.parse().expect("a URL");
            let settings = Settings { heartbeat: Duration::from_millis(50), ..Settings::default() };
            let client = Client::start(&url, settings).expect("good settings");
            eventually("the store is reached", async || client.ready().await.ok()).await;
            let ledger = RedisLedger::new(client, Namespace::new("test").expect("a namespace"));
            nodes.spawn(node(ledger, Node(number), seen.clone()));
        }
        let fleet = Self { _nodes: nodes, seen };
        fleet.full_window_after(fleet.windows()).await;
        fleet
    }

    /// The latest window of which anything was granted.
    pub(crate) fn windows(&self) -> Micros {
        self.seen.granted.lock().keys().map(|(_, of)| *of).max().unwrap_or(0)
    }

    /// Waits until all of a later window was granted to every key, and none more than that in any.
    pub(crate) async fn full_window_after(&self, window: Micros) {
        eventually("every key is granted all of a window", async || {
            let granted = self.seen.granted.lock();
            (0..KEYS)
                .all(|key| {
                    granted
                        .iter()
                        .any(|((k, of), units)| *k == key && *of > window && *units == u64::from(LIMIT))
                })
                .then_some(())
        })
        .await;
        self.check();
    }

    /// The invariant: no window of any key was granted more than the limit, over all nodes, faults included.
    pub(crate) fn check(&self) {
        for ((key, of), units) in &*self.seen.granted.lock() {
            assert!(*units <= u64::from(LIMIT), "key {key}: {units} granted in the window {of}, of {LIMIT}");
        }
    }

    /// Waits until some node met such an error.
    pub(crate) async fn met(&self, kind: LedgerErrorKind) {
        eventually(kind.as_str(), async || self.seen.errors.lock().get(kind.as_str()).map(|_| ())).await;
    }

    pub(crate) fn total(&self) -> u64 {
        self.seen.total.load(Relaxed)
    }
}

async fn node(ledger: RedisLedger, node: Node, seen: Arc<Witness>) {
    let rule = rule();
    let mut memory = [Seen::default(); KEYS as usize];
    let mut seq = 0;
    loop {
        for number in 0..KEYS {
            seq += 1;
            let last = memory[usize::from(number)];
            let ask = Ask { node, seq, least: 1, need: 1, want: 20, back: 0, of: 0, debt: 0, seen: last };
            let subject = Subject { limit: "per-key", key: key(number) };
            match ledger.ask(subject, &rule, &ask).await {
                Ok(reply) => {
                    memory[usize::from(number)] = Seen { epoch: reply.epoch, mark: reply.mark };
                    if reply.granted > 0 {
                        *seen.granted.lock().entry((number, reply.of)).or_default() +=
                            u64::from(reply.granted);
                        seen.total.fetch_add(reply.granted.into(), Relaxed);
                    }
                }
                Err(error) => *seen.errors.lock().entry(error.kind().as_str()).or_default() += 1,
            }
        }
        sleep(Duration::from_millis(5)).await;
    }
}
