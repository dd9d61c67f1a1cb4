//! The gateway under test: the real binary, with a configuration in a directory of its own.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use http::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

use super::{LOOK_AGAIN, client, eventually, ports, process::Process, within};

/// A running gateway. Dropping it kills it.
pub struct Gateway {
    process: Process,
    http: SocketAddr,
    admin: SocketAddr,
    directory: TempDir,
}

/// Ports are looked for and given back before the gateway takes them; another process may be faster.
const TRIES: usize = 5;

impl Gateway {
    /// Starts it with this configuration, which two workers and `listen` are put before, and waits until it is ready.
    pub async fn start(config: &str) -> Self {
        Self::start_with(|_| config.to_owned()).await
    }

    /// As [`Gateway::start`], for a configuration that names files: it is told the directory they are in.
    pub async fn start_with(config: impl Fn(&Path) -> String) -> Self {
        Self::launch(config, &[]).await
    }

    /// As [`Gateway::start`], with this in its environment.
    pub async fn start_under(environment: &[(&str, String)], config: &str) -> Self {
        Self::launch(|_| config.to_owned(), environment).await
    }

    async fn launch(config: impl Fn(&Path) -> String, environment: &[(&str, String)]) -> Self {
        for _ in 0..TRIES {
            let directory = tempfile::tempdir().unwrap();
            let (http, admin) = (ports::free(), ports::free());
            let text = whole(&config(directory.path()), http, admin);
            fs::write(directory.path().join("tidegate.yaml"), text).unwrap();
            let mut command = command();
            command.args(["serve", "--config"]).arg(directory.path().join("tidegate.yaml"));
            command.envs(environment.iter().map(|(name, value)| (name, value)));
            let process = Process::start("tidegate", &mut command);
            let mut gateway = Self { process, http, admin, directory };
            if gateway.ready().await {
                return gateway;
            }
        }
        panic!("the gateway found no free port in {TRIES} tries");
    }

    /// Whether it became ready; not so when somebody else had its port.
    async fn ready(&mut self) -> bool {
        within("the gateway getting ready", async {
            loop {
                if self.process.ended().is_some() {
                    let status = self.process.end().await;
                    let output = self.process.output();
                    assert!(output.contains("in use"), "the gateway ended with {status}:\n{output}");
                    return false;
                }
                if client::try_get_at(self.admin, "/ready").await.is_some_and(|a| a.status == StatusCode::OK)
                {
                    return true;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        })
        .await
    }

    /// Where it takes traffic.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where its admin pages are.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its configuration file.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("tidegate.yaml")
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Replaces its configuration file in one step, as an editor does, and keeps the addresses.
    pub fn write(&self, config: &str) {
        let next = self.directory.path().join("next");
        fs::write(&next, whole(config, self.http, self.admin)).unwrap();
        fs::rename(next, self.file()).unwrap();
    }

    /// The value of a metric's sample, like `tidegate_queued{upstream="main",pool="calls"}`.
    pub async fn metric(&self, sample: &str) -> f64 {
        let page = client::get_at(self.admin, "/metrics", &[]).await.text();
        let value = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no sample {sample} in\n{page}"));
        value.parse().expect("a sample has a value")
    }

    /// What it is doing now: `/state` as JSON.
    pub async fn state(&self) -> Value {
        let answer = client::get_at(self.admin, "/state", &[("accept", "application/json")]).await;
        assert_eq!(answer.status, StatusCode::OK, "/state: {}", answer.text());
        serde_json::from_slice(&answer.body).expect("/state is JSON")
    }

    /// Waits until `/state` is as wanted.
    pub async fn state_is(&self, what: &str, is: impl Fn(&Value) -> bool) {
        let mut last = Value::Null;
        let look = async || {
            last = self.state().await;
            is(&last)
        };
        eventually(what, look).await;
    }

    /// Waits until nothing is held any more: no client connections, no calls in flight or waiting, at no endpoint.
    pub async fn is_at_rest(&self) {
        self.state_is("the gateway coming to rest", |state| {
            let listener = array(state, "/listeners").iter().find(|l| l["name"] == "http").unwrap();
            listener["connections"] == 0
                && array(state, "/routes").iter().all(|route| {
                    let own = &route["in_flight"];
                    own.is_null() || (own["in_flight"] == 0 && own["queued"] == 0)
                })
                && array(state, "/upstreams").iter().all(|upstream| {
                    let idle =
                        |pool: &Value| pool.is_null() || (pool["in_flight"] == 0 && pool["queued"] == 0);
                    idle(&upstream["in_flight"])
                        && idle(&upstream["streams"])
                        && array(upstream, "/endpoints").iter().all(|endpoint| {
                            endpoint["in_flight"] == 0
                                && endpoint["connections"]["waiting"] == 0
                                && endpoint["connections"]["open"] == endpoint["connections"]["idle"]
                        })
                })
        })
        .await;
    }

    /// Kills it at once.
    pub fn kill(self) {
        drop(self);
    }

    /// Ends it with SIGTERM and waits for that.
    pub async fn drain(&mut self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.end().await
    }
}

/// The binary under test.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    // What the developer's own shell sets must not change a test.
    for (name, _) in std::env::vars() {
        if name.starts_with("TIDEGATE_") || name.starts_with("OTEL_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1");
    command
}

/// A list in `/state`.
pub fn array<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .unwrap_or_else(|| panic!("no list at {pointer} in {value:#}"))
}

fn whole(config: &str, http: SocketAddr, admin: SocketAddr) -> String {
    // The machine's memory is no part of a test that does not say so.
    let pressure = if config.contains("pressure:") { "" } else { "pressure: off\n" };
    format!("{pressure}workers: 2\nlisten:\n  http: {http}\n  admin: {admin}\n{config}")
}
