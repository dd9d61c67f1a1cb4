//! Stores of several servers, of which one takes over from another.

use tidegate::throttle::{KeyHasher, Seed};

use super::{Fleet, LONG_WINDOW, WINDOW, patient_with};
use crate::{
    servers::{Redis, cluster::Cluster, sentinels::Sentinels},
    support::{eventually, load::Load},
};

#[tokio::test]
async fn under_sentinels_a_replica_takes_over_and_the_limit_holds() {
    let mut sentinels = Sentinels::start().await;
    let limit = "rate: 40/s, algorithm: fixed-window, lease: 500ms";
    let fleet = Fleet::start(2, &sentinels.url(), limit).await;
    let load = fleet.load("sentinels");
    load.admits(60).await;
    sentinels.servers[0].kill();
    // Some refusals while nobody is master, and then the new one grants.
    load.admits(120).await;
    drop(load);
    fleet.tally.assert_windows(40, WINDOW);
}

#[tokio::test]
async fn in_a_cluster_a_replica_takes_over_and_the_limit_holds() {
    let cluster = Cluster::start(3, true).await;
    let limit = "rate: 40/s, algorithm: fixed-window, lease: 500ms";
    let fleet = Fleet::start(2, &cluster.url(), limit).await;
    let loads = ["a", "b", "c", "d"].map(|key| fleet.load(key));
    for load in &loads {
        load.admits(40).await;
    }
    for replica in &cluster.nodes[cluster.masters..] {
        replica.say::<()>("CLUSTER FAILOVER").await;
    }
    for load in &loads {
        load.admits(80).await;
    }
    drop(loads);
    fleet.tally.assert_windows(40, WINDOW);
}

/// Makes a replica forget all it copied, for itself alone.
async fn forget(replica: &Redis) {
    replica.say::<()>("CONFIG SET replica-read-only no").await;
    replica.say::<()>("FLUSHALL").await;
}

#[tokio::test]
async fn a_replica_that_lacks_the_grants_of_its_master_grants_nothing_twice() {
    let mut sentinels = Sentinels::start().await;
    let limit = "rate: 300/1000h, algorithm: fixed-window, lease: 500ms";
    let fleet = Fleet::start(2, &patient_with(&sentinels.url()), limit).await;
    let load = fleet.load("sentinels");
    load.admits(150).await;
    forget(&sentinels.servers[1]).await;
    sentinels.servers[0].kill();
    eventually("the new master granting the rest", async || load.admitted() >= 250).await;
    load.refuses(600).await;
    drop(load);
    fleet.tally.assert_windows(300, LONG_WINDOW);
}

#[tokio::test]
async fn in_a_cluster_a_replica_that_lacks_grants_takes_over_from_a_dead_master_and_grants_nothing_twice() {
    let mut cluster = Cluster::start(3, true).await;
    let limit = "rate: 300/1000h, algorithm: fixed-window, lease: 500ms";
    let fleet = Fleet::start(2, &patient_with(&cluster.url()), limit).await;
    let key = key_on(&cluster, 1).await;
    let load = fleet.load(&key);
    load.admits(150).await;
    forget(&cluster.nodes[cluster.masters + 1]).await;
    cluster.nodes[1].kill();
    eventually("the new master granting the rest", async || load.admitted() >= 250).await;
    load.refuses(600).await;
    drop(load);
    fleet.tally.assert_windows(300, LONG_WINDOW);
}

/// A key whose account is on this master.
async fn key_on(cluster: &Cluster, master: usize) -> String {
    for number in 0.. {
        let key = format!("client-{number}");
        let bits = KeyHasher::seeded(Seed::of(b"test")).part(key.as_bytes()).finish().bits();
        let slot: usize = cluster.nodes[0].say(&format!("CLUSTER KEYSLOT {{test:{}}}", bits % 256)).await;
        if slot * cluster.masters / 16384 == master {
            return key;
        }
    }
    unreachable!("each master has buckets")
}

#[tokio::test]
async fn in_a_cluster_a_master_that_is_away_refuses_no_call_whose_account_is_on_another() {
    let mut cluster = Cluster::start(3, false).await;
    for node in &cluster.nodes {
        node.say::<()>("CONFIG SET cluster-require-full-coverage no").await;
    }
    // Credit that is over at once: each call has to ask.
    let limit = "rate: 100000/s, algorithm: fixed-window, lease: 20ms";
    let fleet = Fleet::start(2, &patient_with(&cluster.url()), limit).await;
    let mut loads = Vec::new();
    for master in 0..3 {
        let load = Load::start(&fleet.addresses(), &key_on(&cluster, master).await, 2);
        load.admits(50).await;
        loads.push(load);
    }
    cluster.nodes[2].kill();
    for gateway in &fleet.gateways {
        gateway.state_is("a server being away", |state| state["store"]["state"] != "up").await;
    }
    let before: Vec<usize> = loads.iter().map(Load::refused).collect();
    loads[2].refuses(1000).await;
    for (master, load) in loads.iter().enumerate().take(2) {
        load.admits(500).await;
        assert_eq!(load.refused(), before[master], "refused on account of another master");
    }
    // And is found again, by whoever waits for it.
    cluster.nodes[2].run();
    loads[2].admits(50).await;
    assert_eq!(loads.iter().map(Load::other).sum::<usize>(), 0);
}
