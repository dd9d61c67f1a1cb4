//! A cluster: masters that share the slots, each with a replica where asked.

use redis::aio::MultiplexedConnection;

use super::{Redis, eventually, ports, say};

/// Milliseconds until a node is held for dead: long enough that a busy host kills none.
const NODE_TIMEOUT: &str = "2500";

pub(crate) struct Cluster {
    /// Masters first, then their replicas in the same order.
    pub(crate) nodes: Vec<Redis>,
    pub(crate) masters: usize,
}

impl Cluster {
    /// Starts it and waits until every node calls it ok.
    pub(crate) async fn start(masters: usize, replicas: bool) -> Self {
        let count = if replicas { 2 * masters } else { masters };
        let nodes: Vec<Redis> = (0..count).map(|_| node()).collect();
        let cluster = Self { nodes, masters };
        cluster.form().await;
        cluster
    }

    async fn form(&self) {
        let mut first = self.nodes[0].connect().await;
        for node in &self.nodes[1..] {
            let bus: String = node.say::<Vec<String>>("CONFIG GET cluster-port").await[1].clone();
            let () = say(&mut first, &format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port)).await;
        }
        for (n, node) in self.nodes.iter().take(self.masters).enumerate() {
            let (from, to) = (16384 * n / self.masters, 16384 * (n + 1) / self.masters - 1);
            let () = node.say(&format!("CLUSTER ADDSLOTSRANGE {from} {to}")).await;
        }
        for (n, node) in self.nodes.iter().enumerate() {
            let mut own = node.connect().await;
            eventually("every node knows every other", async || {
                let known: String = say(&mut own, "CLUSTER NODES").await;
                (known.lines().count() == self.nodes.len() && !known.contains("handshake")).then_some(())
            })
            .await;
            if n >= self.masters {
                let master: String = self.nodes[n - self.masters].say("CLUSTER MYID").await;
                let () = say(&mut own, &format!("CLUSTER REPLICATE {master}")).await;
            }
        }
        for node in &self.nodes {
            let mut own = node.connect().await;
            eventually("the cluster is ok", async || is_ok(&mut own).await.then_some(())).await;
        }
        for node in &self.nodes[self.masters..] {
            eventually("the replica is linked", async || {
                let info: String = node.say("INFO replication").await;
                info.contains("master_link_status:up").then_some(())
            })
            .await;
        }
    }

    pub(crate) fn url(&self) -> String {
        let all: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis-cluster://{}", all.join(","))
    }
}

fn node() -> Redis {
    let bus = ports::free().port().to_string();
    Redis::start(&[
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        NODE_TIMEOUT,
        "--cluster-port",
        &bus,
    ])
}

async fn is_ok(connection: &mut MultiplexedConnection) -> bool {
    let info: String = say(connection, "CLUSTER INFO").await;
    info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384")
}
