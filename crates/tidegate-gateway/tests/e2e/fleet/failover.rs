//! Stores of several servers, of which one takes over from another.

use super::{Fleet, WINDOW};
use crate::servers::{cluster::Cluster, sentinels::Sentinels};

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
