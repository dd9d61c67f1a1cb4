//! A master, a replica and three sentinels.

use std::process::Child;

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Redis, connect, eventually, ports, say, server, signal_to, spawn, wait_for_line};

/// The name under which the sentinels know the master.
pub(crate) const NAME: &str = "cache";

pub(crate) struct Sentinels {
    pub(crate) servers: [Redis; 2],
    pub(crate) ports: Vec<u16>,
    children: Vec<Child>,
    _directory: TempDir,
}

impl Sentinels {
    /// Starts all, and waits until the sentinels know the replica and each other.
    pub(crate) async fn start() -> Self {
        let master = Redis::start(&[]);
        let port = master.port.to_string();
        let replica = Redis::start(&["--replicaof", "127.0.0.1", &port]);
        let directory = TempDir::new().expect("a directory");
        let (mut ports, mut children) = (Vec::new(), Vec::new());
        for n in 0..3 {
            let own = ports::free().port();
            let path = directory.path().join(format!("sentinel-{n}.conf"));
            let text = format!(
                "port {own}\nbind 127.0.0.1\ndir {}\nsentinel monitor {NAME} 127.0.0.1 {port} 2\n\
                 sentinel down-after-milliseconds {NAME} 400\nsentinel failover-timeout {NAME} 2000\n",
                directory.path().display()
            );
            std::fs::write(&path, text).expect("a file");
            let mut child = spawn(server().arg(&path).arg("--sentinel"));
            wait_for_line(&mut child, "+monitor");
            ports.push(own);
            children.push(child);
        }
        for &own in &ports {
            let mut sentinel = connect(own).await;
            eventually("the sentinels know all", async || {
                let known: redis::Value = say(&mut sentinel, &format!("SENTINEL MASTER {NAME}")).await;
                let fields: std::collections::HashMap<String, String> =
                    redis::from_redis_value(known).expect("a map");
                (fields["num-slaves"] == "1" && fields["num-other-sentinels"] == "2").then_some(())
            })
            .await;
        }
        eventually("the replica is linked", async || {
            let info: String = replica.say("INFO replication").await;
            info.contains("master_link_status:up").then_some(())
        })
        .await;
        Self { servers: [master, replica], ports, children, _directory: directory }
    }

    /// Signals a sentinel.
    pub(crate) fn signal(&self, at: usize, signal: Signal) {
        signal_to(&self.children[at], signal);
    }

    pub(crate) fn url(&self) -> String {
        let all: Vec<_> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis-sentinel://{}/{NAME}", all.join(","))
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
