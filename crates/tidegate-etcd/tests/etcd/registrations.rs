//! What is registered stays registered, and what is not wanted any more is gone.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tidegate::registry::{Source as _, Standing, registration};
use tidegate_etcd::{EtcdRegistry, Layout, LeaseSettings};

use crate::{
    server::{Etcd, Version, on_both, until},
    support::{
        Root, TTL, addresses, get, instance, lasting, pass, registered, registry, soon, url, with_layout,
    },
};

/// Defect E1: a new lease whose keep-alive was that of the old one.
async fn a_changed_address_does_not_expire_behind_its_owners_back(version: Version) {
    let etcd = Etcd::start_with_users(version, &[]).await;
    let registry = registry(etcd.settings());
    let owner = registered(&registry, instance("orders", "1")).await;
    owner.update(|instance| instance.address = "10.0.0.8:9002".parse().unwrap());
    until("the change is published", async || addresses(&registry, "orders").await == ["10.0.0.8:9002"])
        .await;
    pass(TTL * 2).await;
    assert_eq!(addresses(&registry, "orders").await, ["10.0.0.8:9002"]);
    assert!(matches!(owner.standing(), Standing::Registered { .. }));
    assert_eq!((registry.stats().leases_granted, registry.stats().leases_lost), (1, 0));
}

/// Defect E1, its other half: a process that restarts with the id, and another address, while its old lease runs.
async fn a_key_taken_over_from_a_dead_process_outlives_its_lease(version: Version) {
    let etcd = Etcd::start(version).await;
    let root = Root::of(&etcd).await;
    let former = root.grant(2).await;
    root.put("/tidegate/services/orders/1", b"{}", former).await;
    let registry = registry(etcd.settings());
    let owner = registered(&registry, instance("orders", "1")).await;
    until("the former lease has ended", async || root.left(former).await == -1).await;
    assert_eq!(addresses(&registry, "orders").await, ["10.0.0.7:9001"]);
    assert!(matches!(owner.standing(), Standing::Registered { .. }));
}

/// Defect E2: leases that nobody uses are renewed for ever.
async fn deregistering_the_last_instance_deletes_its_key_and_gives_the_lease_back(version: Version) {
    let etcd = Etcd::start_with_users(version, &[]).await;
    let (root, registry) = (Root::of(&etcd).await, registry(etcd.settings()));
    let first = registered(&registry, instance("orders", "1")).await;
    let second = registered(&registry, instance("orders", "2")).await;
    let lease = root.all("/tidegate/").await[0].lease;
    soon("it is deregistered", first.deregister()).await.unwrap();
    assert_eq!(root.all("/tidegate/").await.len(), 1);
    assert!(root.left(lease).await > 0, "the other lives with the lease");
    drop(second);
    until("the lease is gone", async || root.left(lease).await == -1).await;
    assert_eq!(root.all("/tidegate/").await, []);
    // And it can begin again.
    let _third = registered(&registry, instance("orders", "3")).await;
    assert_eq!(registry.stats().leases_granted, 2);
}

async fn closing_deregisters_everything_by_one_revocation(version: Version) {
    let etcd = Etcd::start_with_users(version, &[]).await;
    let (root, registry) = (Root::of(&etcd).await, registry(etcd.settings()));
    let mut owners = Vec::new();
    for id in 0..5 {
        owners.push(registered(&registry, instance("orders", &id.to_string())).await);
    }
    let lease = root.all("/tidegate/").await[0].lease;
    let calls = registry.stats().calls;
    soon("it closes", registry.close()).await;
    assert_eq!((root.left(lease).await, root.all("/tidegate/").await), (-1, vec![]));
    assert_eq!(registry.stats().calls - calls, 1);
    let standing = owners[0].standing();
    assert!(
        matches!(&standing, Standing::Lost { why, .. } if why.message.contains("closed")),
        "{standing:?}"
    );
}

/// A lease that is not revoked leaves its keys behind for as long as it lives.
async fn closing_tries_again_while_etcd_is_slow(version: Version) {
    let etcd = Etcd::start_with_users(version, &[]).await;
    let registry = registry(etcd.settings());
    let _owner = registered(&registry, instance("orders", "1")).await;
    let calls = registry.stats().calls;
    etcd.stop().await;
    let closing = tokio::spawn({
        let registry = registry.clone();
        async move { registry.close().await }
    });
    until("it asks again", async || registry.stats().calls >= calls + 2).await;
    etcd.signal("-CONT");
    soon("it closes", closing).await.unwrap();
    assert_eq!(registry.list().await.unwrap(), []);
}

/// Defects E3 and E7: an end of the lease that is never noticed, or only with the next registration.
async fn a_lost_lease_is_noticed_told_and_healed(version: Version) {
    let etcd = Etcd::start_with_users(version, &[]).await;
    let (root, registry) = (Root::of(&etcd).await, registry(etcd.settings()));
    let (mut owner, registrant) = registration(instance("orders", "1"));
    registry.register(registrant).unwrap();
    soon("it is registered", owner.registered()).await.unwrap();
    owner.changed().await.unwrap();
    let former = root.all("/tidegate/").await[0].lease;
    root.revoke(former).await;
    let lost = soon("the loss is told", owner.changed()).await.unwrap();
    assert!(matches!(lost, Standing::Lost { .. }), "{lost:?}");
    soon("it is registered again", owner.registered()).await.unwrap();
    let now = root.all("/tidegate/").await;
    assert!(now.len() == 1 && now[0].lease != former, "{now:?}");
    assert_eq!(registry.stats().logins, 1);
}

/// Defect E5: the end of a former registration removes its successor.
async fn a_registration_that_follows_its_namesake_at_once_stays(version: Version) {
    let etcd = Etcd::start(version).await;
    let registry = registry(etcd.settings());
    let mut owner = registered(&registry, instance("orders", "1")).await;
    for _ in 0..10 {
        let (next, registrant) = registration(instance("orders", "1"));
        drop(owner);
        registry.register(registrant).unwrap();
        owner = next;
    }
    soon("the last is registered", owner.registered()).await.unwrap();
    pass(TTL).await;
    assert_eq!(addresses(&registry, "orders").await.len(), 1);
    assert!(matches!(owner.standing(), Standing::Registered { .. }));
}

/// Defect E6: only changes of the node were published.
async fn every_part_of_an_instance_that_changes_is_published(version: Version) {
    let etcd = Etcd::start(version).await;
    for layout in [Layout::Tidegate, Layout::GoMicro] {
        let registry = with_layout(etcd.settings(), layout);
        let owner = registered(&registry, instance("orders", "1")).await;
        for step in 0..4 {
            owner.update(|instance| match step {
                0 => instance.version = "2".into(),
                1 => instance.weight = 7,
                2 => instance.zone = Some("eu-1".into()),
                _ => drop(instance.metadata.insert("k".into(), "v".into())),
            });
            until("the change is published", async || {
                let seen = get(&registry, "orders").await.instances[0].clone();
                let done =
                    [seen.version == "2", seen.weight == 7, seen.zone.is_some(), !seen.metadata.is_empty()];
                done.iter().filter(|done| **done).count() == step + 1
            })
            .await;
        }
    }
}

/// Whatever a process registers, and however often it says so, is one lease and one stream.
async fn many_services_of_a_process_share_a_lease_and_what_is_said_again_is_not_written(version: Version) {
    let etcd = Etcd::start_with_users(version, &[]).await;
    let registry = lasting(etcd.settings());
    let mut owners = Vec::new();
    for service in 0..5 {
        owners.push(registered(&registry, instance(&format!("service-{service}"), "1")).await);
    }
    let puts = etcd.metric("etcd_mvcc_put_total", "");
    for _ in 0..3 {
        for owner in &owners {
            owner.update(|_| {});
            soon("it is registered", owner.registered()).await.unwrap();
        }
    }
    // Something that is written shows that nothing else is still to be.
    owners[0].update(|instance| instance.version = "2".into());
    until("the change is found", async || get(&registry, "service-0").await.instances[0].version == "2")
        .await;
    assert_eq!(etcd.metric("etcd_mvcc_put_total", "") - puts, 1);
    let stats = registry.stats();
    assert_eq!((stats.leases_granted, stats.keep_alive_streams, etcd.logins()), (1, 1, 1), "{stats:?}");
}

/// Defect E6, its other half: keys that collide.
async fn instances_whose_names_look_alike_do_not_meet(version: Version) {
    let etcd = Etcd::start(version).await;
    let registry = registry(etcd.settings());
    let mut owners = Vec::new();
    for (service, id) in [("a/b", "c"), ("a-b", "c"), ("a", "b/c"), ("ab", "c"), ("a", "bc"), ("a%2Fb", "c")]
    {
        owners.push(registered(&registry, instance(service, id)).await);
    }
    for service in ["a/b", "a-b", "ab", "a%2Fb"] {
        assert_eq!(get(&registry, service).await.instances.len(), 1, "{service}");
    }
    assert_eq!(get(&registry, "a").await.instances.len(), 2);
    let names: Vec<_> = registry.list().await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a", "a%2Fb", "a-b", "a/b", "ab"]);
    // Where the layout cannot tell them apart, the second is refused and says so.
    let micro = with_layout(etcd.settings(), Layout::GoMicro);
    let _first = registered(&micro, instance("a/b", "c")).await;
    let (mut second, registrant) = registration(instance("a-b", "c"));
    micro.register(registrant).unwrap();
    let refused = soon("it is refused", second.changed()).await.unwrap();
    let Standing::Pending { why: Some(why) } = refused else { panic!("{refused:?}") };
    assert!(
        why.message.contains("/micro/registry/a-b/c") && why.message.contains("an id of its own"),
        "{why}"
    );
}

/// Defect E10: what is deleted behind the lease is never written again.
async fn a_key_deleted_or_overwritten_by_hand_is_written_again(version: Version) {
    let etcd = Etcd::start_with_users(version, &[]).await;
    let (root, registry) = (Root::of(&etcd).await, registry(etcd.settings()));
    let _owner = registered(&registry, instance("orders", "1")).await;
    let key = root.all("/tidegate/").await[0].clone();
    root.delete(&key.key).await;
    until("it is there again", async || !root.all("/tidegate/").await.is_empty()).await;
    root.put("/tidegate/services/orders/1", b"{}", 0).await;
    until("it is itself again", async || root.all("/tidegate/").await[0].value == key.value).await;
    assert_eq!(root.all("/tidegate/").await[0].lease, key.lease);
    assert_eq!((registry.stats().keys_repaired, registry.stats().leases_granted), (2, 1));
}

/// One instance that etcd does not take must not hold up the others.
async fn an_instance_that_is_too_large_is_told_and_the_others_are_registered(version: Version) {
    let etcd = Etcd::start(version).await;
    let registry = lasting(etcd.settings());
    for size in [1_600_000, 4_000_000] {
        let (mut large, registrant) = registration(instance("orders", "0").with("large", "x".repeat(size)));
        registry.register(registrant).unwrap();
        let _small = registered(&registry, instance("orders", "1")).await;
        let told = soon("it is told", large.changed()).await.unwrap();
        let Standing::Pending { why: Some(why) } = told else { panic!("{told:?}") };
        assert!(why.message.contains("large"), "{why}");
        large.update(|instance| instance.metadata.clear());
        soon("it is registered when it is small enough", large.registered()).await.unwrap();
    }
}

/// Defect E7: after a mass loss of leases all register anew at once.
async fn a_fleet_that_lost_its_leases_registers_anew_at_its_pace(version: Version) {
    let etcd = Etcd::start(version).await;
    let root = Root::of(&etcd).await;
    let lease = LeaseSettings::default().ttl(TTL).fleet_registrations(5);
    let fleet: Vec<_> = (0..20)
        .map(|_| {
            let client = etcd.settings().fleet(20).build().unwrap();
            EtcdRegistry::new(client, &url(), Layout::Tidegate, lease.clone()).unwrap()
        })
        .collect();
    let mut owners = Vec::new();
    for (id, registry) in fleet.iter().enumerate() {
        owners.push(registered(registry, instance("orders", &id.to_string())).await);
    }
    let leases: BTreeSet<_> = root.all("/tidegate/").await.iter().map(|entry| entry.lease).collect();
    for lease in leases {
        root.revoke(lease).await;
    }
    let (start, mut back_after_a_second) = (Instant::now(), None);
    until("all are back", async || {
        let back = root.all("/tidegate/").await.len();
        if start.elapsed() >= Duration::from_secs(1) {
            back_after_a_second.get_or_insert(back);
        }
        back == 20
    })
    .await;
    // Twenty at five a second take four seconds; that all choose the first of them would be a wonder.
    assert!(back_after_a_second.is_some_and(|back| back < 20), "{back_after_a_second:?}");
    for owner in &owners {
        soon("it is registered", owner.registered()).await.unwrap();
    }
}

/// Defect E13: an instance that is taken out comes back with the next tick.
async fn a_deregistered_instance_stays_out(version: Version) {
    let etcd = Etcd::start(version).await;
    let (root, registry) = (Root::of(&etcd).await, registry(etcd.settings()));
    let _stays = registered(&registry, instance("orders", "1")).await;
    let goes = registered(&registry, instance("orders", "2")).await;
    goes.deregister().await.unwrap();
    let before = registry.stats().keys_written;
    pass(TTL * 2).await;
    assert_eq!((root.all("/tidegate/").await.len(), registry.stats().keys_written), (1, before));
}

on_both! {
    a_changed_address_does_not_expire_behind_its_owners_back,
    a_key_taken_over_from_a_dead_process_outlives_its_lease,
    deregistering_the_last_instance_deletes_its_key_and_gives_the_lease_back,
    closing_deregisters_everything_by_one_revocation,
    closing_tries_again_while_etcd_is_slow,
    a_lost_lease_is_noticed_told_and_healed,
    a_registration_that_follows_its_namesake_at_once_stays,
    every_part_of_an_instance_that_changes_is_published,
    many_services_of_a_process_share_a_lease_and_what_is_said_again_is_not_written,
    instances_whose_names_look_alike_do_not_meet,
    a_key_deleted_or_overwritten_by_hand_is_written_again,
    an_instance_that_is_too_large_is_told_and_the_others_are_registered,
    a_fleet_that_lost_its_leases_registers_anew_at_its_pace,
    a_deregistered_instance_stays_out,
}
