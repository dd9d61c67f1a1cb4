//! etcd dies, hangs, loses a member: nothing that is registered is lost, and "could not ask" is never "there is none".

use std::time::Duration;

use tidegate::registry::{Change, Source as _, SourceErrorKind, Standing, Update, Watch as _, registration};
use tidegate_etcd::EtcdRegistry;

use crate::{
    server::{Etcd, Version, on_both, settings, until},
    support::{TTL, addresses, get, instance, lasting, pass, registered, registry, soon},
};

/// Defect E12: an answer that did not come is no empty answer.
async fn who_cannot_ask_gets_an_error_and_never_an_empty_list(version: Version) {
    let mut etcd = Etcd::start_with_users(version, &[]).await;
    let hurried =
        etcd.settings().call_timeout(Duration::from_secs(2)).attempt_timeout(Duration::from_millis(500));
    let registry = registry(hurried);
    let orders = "orders".parse().unwrap();
    // A busy machine may take longer than a hurried client.
    until("it reads", async || registry.get(&orders).await.is_ok_and(|found| found.instances.is_empty()))
        .await;
    etcd.stop().await;
    for error in [
        registry.get(&orders).await.map(drop).unwrap_err(),
        registry.list().await.map(drop).unwrap_err(),
        registry.watch(&orders).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind, SourceErrorKind::Unavailable, "{error}");
        assert!(error.message.contains(&format!("http://127.0.0.1:{}", etcd.port)), "{error}");
    }
    etcd.signal("-CONT");
    etcd.kill();
    assert_eq!(registry.get(&orders).await.unwrap_err().kind, SourceErrorKind::Unavailable);
    etcd.launch();
    etcd.ready().await;
    until("it reads again", async || registry.get(&orders).await.is_ok()).await;
}

async fn an_etcd_that_is_killed_and_restarted_loses_no_registration(version: Version) {
    let mut etcd = Etcd::start_with_users(version, &[]).await;
    let registry = registry(etcd.settings());
    let mut owners = Vec::new();
    for id in 0..5 {
        owners.push(registered(&registry, instance("orders", &id.to_string())).await);
    }
    let leases = registry.stats().leases_granted;
    etcd.restart().await;
    pass(TTL * 2).await;
    assert_eq!(addresses(&registry, "orders").await.len(), 5);
    for owner in &owners {
        soon("it is registered", owner.registered()).await.unwrap();
    }
    // etcd replays young logins when it starts, and forgets others.
    assert_eq!(registry.stats().leases_granted, leases);
    assert!(etcd.logins() <= 1);
}

async fn an_etcd_that_hangs_for_longer_than_the_lease_loses_no_registration(version: Version) {
    let etcd = Etcd::start_with_users(version, &[]).await;
    let registry = registry(etcd.settings());
    let (mut owner, registrant) = registration(instance("orders", "1"));
    registry.register(registrant).unwrap();
    soon("it is registered", owner.registered()).await.unwrap();
    owner.changed().await.unwrap();
    etcd.stop().await;
    let told = soon("the doubt is told", owner.changed()).await.unwrap();
    assert!(matches!(told, Standing::Lost { .. }), "{told:?}");
    etcd.signal("-CONT");
    soon("it is registered", owner.registered()).await.unwrap();
    until("it is found", async || {
        let found = registry.get(&"orders".parse().unwrap()).await;
        found.is_ok_and(|found| found.instances.len() == 1)
    })
    .await;
    assert_eq!(etcd.logins(), 1, "what hung has forgotten no token");
}

/// Defect E9: of several hosts in the address, one was used, or none.
async fn of_several_hosts_in_a_url_one_that_works_is_found(version: Version) {
    let etcd = Etcd::start_with_users(version, &[]).await;
    for _ in 0..5 {
        let url = format!("etcd://gate:hunter2@127.0.0.1:1,127.0.0.1:{},127.0.0.1:2/tidegate/", etcd.port);
        let registry = EtcdRegistry::connect(&url.parse().unwrap()).unwrap();
        let _owner = registered(&registry, instance("orders", "1")).await;
        assert_eq!(get(&registry, "orders").await.instances.len(), 1);
        assert!(!registry.describe().contains("hunter2"));
    }
}

async fn a_member_lost_of_three_costs_no_registration_and_no_event(version: Version) {
    let mut members = Etcd::start_cluster_with_users(version).await;
    let registry = lasting(settings(members.iter().map(Etcd::server)));
    let writer = lasting(settings(members.iter().map(Etcd::server)));
    let owner = registered(&registry, instance("orders", "1")).await;
    let mut watch = registry.watch(&"orders".parse().unwrap()).await.unwrap();
    assert!(matches!(soon("all", watch.next()).await, Ok(Update::All(_))));
    assert!(matches!(soon("the stream", watch.next()).await, Ok(Update::Caught(_))));
    let mut written = Vec::new();
    let mut logins = 0;
    for (lost, member) in members.iter_mut().enumerate() {
        logins += member.logins();
        member.kill();
        let id = format!("put-{lost}");
        // The rest may have to elect a leader first.
        written.push(registered(&writer, instance("orders", &id)).await);
        soon("the watch tells what came", async {
            loop {
                match watch.next().await.unwrap() {
                    Update::Changes { changes, .. } => {
                        let came = |change: &Change| matches!(change, Change::Put(put) if put.id == id);
                        if changes.iter().any(came) {
                            break;
                        }
                    }
                    Update::Caught(_) => {}
                    Update::All(all) => panic!("{all:?}: the changes were to be had"),
                }
            }
        })
        .await;
        member.launch();
        member.ready().await;
    }
    soon("it is registered", owner.registered()).await.unwrap();
    assert_eq!((registry.stats().resyncs, registry.stats().leases_lost), (0, 0));
    // By their own count. Whoever comes back may have forgotten the tokens: each client logs in again once then.
    logins += members.iter().map(Etcd::logins).sum::<u64>();
    assert!(logins <= 2 * (1 + 3), "{logins} logins: {:?} {:?}", registry.stats(), writer.stats());
    assert_eq!(get(&registry, "orders").await.instances.iter().filter(|one| one.id == "1").count(), 1);
}

/// A member that is cut off from its cluster must not answer from what it remembers.
async fn a_member_without_a_leader_is_not_believed(version: Version) {
    let mut members = Etcd::start_cluster(version).await;
    let registry = registry(settings([members[0].server()]));
    let _owner = registered(&registry, instance("orders", "1")).await;
    members[1].kill();
    members[2].kill();
    until("it says so", async || {
        let reading = registry.get(&"orders".parse().unwrap()).await;
        reading.is_err_and(|error| error.kind == SourceErrorKind::Unavailable)
    })
    .await;
    members[1].launch();
    until("it reads again", async || registry.get(&"orders".parse().unwrap()).await.is_ok()).await;
}

on_both! {
    who_cannot_ask_gets_an_error_and_never_an_empty_list,
    an_etcd_that_is_killed_and_restarted_loses_no_registration,
    an_etcd_that_hangs_for_longer_than_the_lease_loses_no_registration,
    of_several_hosts_in_a_url_one_that_works_is_found,
    a_member_lost_of_three_costs_no_registration_and_no_event,
    a_member_without_a_leader_is_not_believed,
}
