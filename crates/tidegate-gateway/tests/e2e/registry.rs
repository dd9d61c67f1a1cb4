//! Upstreams that are looked up in a registry: real etcds, real sidecars, and what clients see when they fail.

mod faults;
mod files;
mod names;
mod sidecar;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::Response;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    server::Etcd,
    support::{
        client, eventually,
        gateway::{Gateway, command},
        process::Process,
        upstream::Upstream,
    },
};

/// The life of leases in these tests.
const TTL: &str = "2s";

/// An instance of the service: a server, and the sidecar that registers it.
struct Instance {
    server: Upstream,
    sidecar: Process,
}

impl Instance {
    /// Starts both, and waits until the server is registered.
    async fn start(etcd: &Etcd, more: &[&str]) -> Self {
        let server = Upstream::start(|_| async { Response::new(client::empty()) }).await;
        let sidecar = sidecar(&url(etcd), server.addr(), more);
        sidecar.printed("Z registered orders").await;
        Self { server, sidecar }
    }

    fn calls(&self) -> usize {
        self.server.calls()
    }
}

fn url(etcd: &Etcd) -> String {
    format!("etcd://gate:hunter2@127.0.0.1:{}/", etcd.port)
}

/// Registers a server as `orders`.
fn sidecar(url: &str, server: SocketAddr, more: &[&str]) -> Process {
    let mut command = command();
    command.env("TIDEGATE_REGISTRY", url).args(["register", "--service", "orders", "--ttl", TTL]);
    command.args(["--address", &server.to_string()]).args(more);
    Process::start("tidegate register", &mut command)
}

/// A configuration whose one upstream is looked up, with these further settings of the registry.
fn config(url: &str, registry: &str) -> String {
    format!(
        "registry:\n  url: {url}\n  minimum_retry_interval: 100ms\n{}upstreams:\n  main:\n    service: orders\n    timeout: 10s\n\
         routes:\n  - upstream: main\n    name: everything\n",
        registry.lines().map(|line| format!("  {line}\n")).collect::<String>()
    )
}

fn service(state: &Value) -> &Value {
    &state["registry"]["services"][0]
}

/// Waits until the service stands so.
async fn stands(gateway: &Gateway, provenance: &str) {
    gateway.state_is(provenance, |state| service(state)["provenance"] == provenance).await;
}

/// Waits until it has so many endpoints that the registry vouches for.
async fn has(gateway: &Gateway, count: usize) {
    gateway
        .state_is(&format!("{count} endpoints"), |state| {
            let service = service(state);
            service["endpoints"].as_array().map_or(0, Vec::len) == count && service["suspects"] == 0
        })
        .await;
}

/// Callers that never rest, and remember the first call that was not answered with 200.
struct Callers {
    good: Arc<AtomicUsize>,
    bad: Arc<Mutex<Option<String>>>,
    _tasks: JoinSet<()>,
}

impl Callers {
    fn start(gateway: &Gateway) -> Self {
        let (good, bad) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Option<String>>>::default());
        let mut tasks = JoinSet::new();
        for _ in 0..2 {
            let (at, good, bad) = (gateway.http(), good.clone(), bad.clone());
            tasks.spawn(async move {
                loop {
                    let answer = client::get(at, "/").await;
                    if answer.status == 200 {
                        good.fetch_add(1, Relaxed);
                    } else {
                        bad.lock()
                            .unwrap()
                            .get_or_insert_with(|| format!("{}: {}", answer.status, answer.text()));
                    }
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
            });
        }
        Self { good, bad, _tasks: tasks }
    }

    /// Waits for so many more good answers.
    async fn served(&self, more: usize) {
        let until = self.good.load(Relaxed) + more;
        eventually("calls being served", async || {
            self.assert_all_served();
            self.good.load(Relaxed) >= until
        })
        .await;
    }

    fn assert_all_served(&self) {
        let bad = self.bad.lock().unwrap();
        assert!(bad.is_none(), "{bad:?}");
    }
}
