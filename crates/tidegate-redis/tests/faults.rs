//! Real servers, real faults: whatever happens to the store, no window is granted more than its limit, and grants go on
//! afterwards.

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use fleet::Fleet;
use rustix::process::Signal;
use support::{Redis, cluster::Cluster, eventually, say, sentinels::Sentinels};
use tidegate::fleet::LedgerErrorKind;

const NODES: u64 = 4;

#[tokio::test]
async fn forgotten_scripts_are_sent_again() {
    let redis = Redis::start(&[]);
    let fleet = Fleet::start(&redis.url(), NODES).await;
    let window = fleet.windows();
    let () = redis.say("SCRIPT FLUSH").await;
    fleet.full_window_after(window).await;
}

#[tokio::test]
async fn a_flushed_ledger_is_told_what_was_granted() {
    let redis = Redis::start(&[]);
    let fleet = Fleet::start(&redis.url(), NODES).await;
    for _ in 0..2 {
        let window = fleet.windows();
        let () = redis.say("FLUSHALL").await;
        fleet.full_window_after(window).await;
    }
}

#[tokio::test]
async fn a_server_that_comes_back_empty_is_told_what_was_granted() {
    let mut redis = Redis::start(&[]);
    let fleet = Fleet::start(&redis.url(), NODES).await;
    let window = fleet.windows();
    redis.kill();
    fleet.met(LedgerErrorKind::Unreachable).await;
    redis.run();
    fleet.full_window_after(window).await;
}

#[tokio::test]
async fn a_server_that_comes_back_with_old_data_is_told_what_was_granted() {
    let mut redis = Redis::start(&["--dbfilename", "ledger.rdb"]);
    let fleet = Fleet::start(&redis.url(), NODES).await;
    let () = redis.say("SAVE").await;
    let window = fleet.windows();
    fleet.full_window_after(window).await;
    let window = fleet.windows();
    redis.kill();
    redis.run();
    fleet.full_window_after(window).await;
}

#[tokio::test]
async fn a_server_that_hangs_is_late_and_serves_on() {
    let redis = Redis::start(&[]);
    let fleet = Fleet::start(&redis.url(), NODES).await;
    let window = fleet.windows();
    redis.signal(Signal::STOP);
    fleet.met(LedgerErrorKind::Late).await;
    redis.signal(Signal::CONT);
    fleet.full_window_after(window).await;
}

#[tokio::test]
async fn a_server_that_pauses_its_clients_is_late_and_serves_on() {
    let redis = Redis::start(&[]);
    let fleet = Fleet::start(&redis.url(), NODES).await;
    let window = fleet.windows();
    let () = redis.say("CLIENT PAUSE 300 ALL").await;
    fleet.met(LedgerErrorKind::Late).await;
    fleet.full_window_after(window).await;
}

#[tokio::test]
async fn a_server_that_becomes_a_replica_is_not_ready_and_serves_on_as_master() {
    let redis = Redis::start(&[]);
    let fleet = Fleet::start(&redis.url(), NODES).await;
    let window = fleet.windows();
    let () = redis.say("REPLICAOF 127.0.0.1 1").await;
    fleet.met(LedgerErrorKind::Unready).await;
    let () = redis.say("REPLICAOF NO ONE").await;
    fleet.full_window_after(window).await;
}

#[tokio::test]
async fn a_master_that_dies_is_replaced_and_its_replica_is_told_what_was_granted() {
    let mut sentinels = Sentinels::start().await;
    let fleet = Fleet::start(&sentinels.url(), NODES).await;
    let window = fleet.windows();
    sentinels.servers[0].kill();
    fleet.met(LedgerErrorKind::Unreachable).await;
    fleet.full_window_after(window).await;
    assert_eq!(sentinels.servers[1].is_master().await, Some(()));
}

#[tokio::test]
async fn a_master_that_sentinels_replace_on_purpose_is_followed() {
    let sentinels = Sentinels::start().await;
    let fleet = Fleet::start(&sentinels.url(), NODES).await;
    let window = fleet.windows();
    let mut sentinel = support::connect(sentinels.ports[0]).await;
    let () = say(&mut sentinel, &format!("SENTINEL FAILOVER {}", support::sentinels::NAME)).await;
    eventually("the replica is the master", async || sentinels.servers[1].is_master().await).await;
    fleet.full_window_after(window).await;
}

#[tokio::test]
async fn a_master_that_too_few_sentinels_vouch_for_is_not_asked() {
    let sentinels = Sentinels::start().await;
    let fleet = Fleet::start(&sentinels.url(), NODES).await;
    // One of three may be away.
    sentinels.signal(0, Signal::STOP);
    fleet.full_window_after(fleet.windows()).await;
    let window = fleet.windows();
    sentinels.signal(1, Signal::STOP);
    fleet.met(LedgerErrorKind::Unreachable).await;
    sentinels.signal(1, Signal::CONT);
    fleet.full_window_after(window).await;
    sentinels.signal(0, Signal::CONT);
}

#[tokio::test]
async fn a_cluster_that_changes_masters_is_followed() {
    let cluster = Cluster::start(3, true).await;
    let fleet = Fleet::start(&cluster.url(), NODES).await;
    let window = fleet.windows();
    let () = cluster.nodes[3].say("CLUSTER FAILOVER").await;
    eventually("the replica is a master", async || cluster.nodes[3].is_master().await).await;
    fleet.full_window_after(window).await;
}

#[tokio::test]
async fn a_cluster_that_loses_a_master_is_followed() {
    let mut cluster = Cluster::start(3, true).await;
    let fleet = Fleet::start(&cluster.url(), NODES).await;
    let window = fleet.windows();
    let before = fleet.total();
    cluster.nodes[1].kill();
    fleet.met(LedgerErrorKind::Unreachable).await;
    // The other masters go on.
    eventually("other keys are granted more", async || (fleet.total() > before).then_some(())).await;
    fleet.full_window_after(window).await;
}

#[tokio::test]
async fn a_slot_that_moves_is_followed() {
    let cluster = Cluster::start(3, false).await;
    let fleet = Fleet::start(&cluster.url(), NODES).await;
    let window = fleet.windows();
    let (from, to) = (&cluster.nodes[0], &cluster.nodes[1]);
    let (source, target): (String, String) = (from.say("CLUSTER MYID").await, to.say("CLUSTER MYID").await);
    let (mut from_node, mut to_node) = (from.connect().await, to.connect().await);
    let mut other = cluster.nodes[2].connect().await;
    // Every slot of the first node that has a key, one by one, as a resharding does it.
    let keys: Vec<String> = say(&mut from_node, "KEYS *:epoch").await;
    assert!(keys.len() > 50, "{keys:?}");
    for marker in keys {
        let slot: u16 = say(&mut from_node, &format!("CLUSTER KEYSLOT {marker}")).await;
        let () = say(&mut to_node, &format!("CLUSTER SETSLOT {slot} IMPORTING {source}")).await;
        let () = say(&mut from_node, &format!("CLUSTER SETSLOT {slot} MIGRATING {target}")).await;
        loop {
            let keys: Vec<String> = say(&mut from_node, &format!("CLUSTER GETKEYSINSLOT {slot} 100")).await;
            if keys.is_empty() {
                break;
            }
            for key in keys {
                let _: String =
                    say(&mut from_node, &format!("MIGRATE 127.0.0.1 {} {key} 0 5000", to.port)).await;
            }
        }
        for node in [&mut to_node, &mut from_node, &mut other] {
            let () = say(node, &format!("CLUSTER SETSLOT {slot} NODE {target}")).await;
        }
    }
    fleet.full_window_after(window).await;
}
