//! The registry guard over real servers: whatever becomes of etcd, no lookup fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tidegate::{
    Call, clock,
    registry::{LookupError, Provenance, Registry, ServiceName, Settings},
};

use crate::{
    server::{Etcd, Version, on_both, until},
    support::{Root, instance, pass, registered, registry, soon},
};

const SERVICES: usize = 5;
const INSTANCES: usize = 4;

fn services() -> Vec<ServiceName> {
    (0..SERVICES).map(|number| format!("service-{number}").parse().unwrap()).collect()
}

async fn lookup(guard: &Registry, service: &ServiceName) -> Result<(usize, Provenance), LookupError> {
    let call = Call::at(clock::now()).within(Duration::from_secs(1));
    guard.lookup(&call, service).await.map(|found| (found.endpoints.len(), found.provenance))
}

/// All endpoints are known, vouched for, and watched.
async fn is_well(guard: &Registry) -> bool {
    for service in services() {
        let call = Call::at(clock::now()).within(Duration::from_secs(1));
        let Ok(found) = guard.lookup(&call, &service).await else { return false };
        let vouched = found.endpoints.len() - found.suspects().count();
        if (vouched, found.provenance) != (INSTANCES, Provenance::Live) {
            return false;
        }
    }
    true
}

async fn no_lookup_fails_while_etcd_dies_hangs_forgets_and_expires_everything(version: Version) {
    let mut etcd = Etcd::start_with_users(version, &[]).await;
    let registrant = registry(etcd.settings());
    let mut owners = Vec::new();
    for service in services() {
        for id in 0..INSTANCES {
            owners.push(registered(&registrant, instance(service.as_str(), &id.to_string())).await);
        }
    }
    let reader = registry(etcd.settings());
    let settings = Settings { minimum_retry_interval: Duration::from_millis(200), ..Settings::default() };
    let guard = Registry::new(reader.clone(), settings).unwrap();
    until("all is watched", async || is_well(&guard).await).await;

    let (done, lookups) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let caller = {
        let (guard, done, lookups) = (guard.clone(), Arc::clone(&done), Arc::clone(&lookups));
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                for service in services() {
                    let found = lookup(&guard, &service).await;
                    assert!(matches!(found, Ok((INSTANCES, _))), "{service}: {found:?}");
                    lookups.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };

    etcd.restart().await;
    until("it is well after a crash", async || is_well(&guard).await).await;

    etcd.stop().await;
    pass(Duration::from_secs(4)).await;
    etcd.signal("-CONT");
    until("it is well after it hung", async || is_well(&guard).await).await;

    let since_it_hung = etcd.logins();
    let root = Root::of(&etcd).await;
    root.change_password("gate", "hunter2").await;
    let revision = root.put("/elsewhere", b"", 0).await;
    root.compact(revision).await;
    // The hang may have cost the lease. All leases at once: the deletions are told by a watch that is well.
    until("all is there", async || root.all("/tidegate/").await.len() == SERVICES * INSTANCES).await;
    let (lease, lost) = (root.all("/tidegate/").await[0].lease, registrant.stats().leases_lost);
    root.revoke(lease).await;
    until("the loss is noticed", async || registrant.stats().leases_lost > lost).await;
    until("all is there again", async || root.all("/tidegate/").await.len() == SERVICES * INSTANCES).await;
    until("it is well after a mass expiry", async || is_well(&guard).await).await;

    done.store(true, Ordering::Relaxed);
    soon("the caller ends", caller).await.unwrap();
    assert!(lookups.load(Ordering::Relaxed) > 1000, "{lookups:?}");
    assert!(reader.stats().logins <= 3 && registrant.stats().logins <= 3, "{:?}", reader.stats());
    // As etcd itself counts them: one of each client after the restart, one after the change of users, and the test's.
    assert!(since_it_hung <= 2 && etcd.logins() - since_it_hung <= 3, "{since_it_hung}, {}", etcd.logins());
}

async fn a_process_that_starts_while_etcd_is_down_serves_what_was_known(version: Version) {
    let mut etcd = Etcd::start_with_users(version, &[]).await;
    let registrant = registry(etcd.settings());
    let _owner = registered(&registrant, instance("orders", "1")).await;
    let (orders, directory) = ("orders".parse().unwrap(), tempfile::tempdir().unwrap());
    let settings = || Settings { snapshot: Some(directory.path().into()), ..Settings::default() };
    let former = Registry::new(registry(etcd.settings()), settings()).unwrap();
    until("it is looked up", async || lookup(&former, &orders).await.is_ok()).await;
    until("it is written", async || {
        let mut files = std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path());
        // What is not complete yet has another extension.
        files.any(|file| file.extension().is_none_or(|extension| extension != "new"))
    })
    .await;
    drop(former);
    etcd.kill();
    let guard = Registry::new(registry(etcd.settings()), settings()).unwrap();
    let found = lookup(&guard, &orders).await;
    assert!(matches!(found, Ok((1, Provenance::Snapshot { .. }))), "{found:?}");
    let other = lookup(&guard, &"billing".parse().unwrap()).await;
    assert!(!matches!(other, Ok(_) | Err(LookupError::NotFound)), "{other:?}: nobody could be asked");
}

on_both! {
    no_lookup_fails_while_etcd_dies_hangs_forgets_and_expires_everything,
    a_process_that_starts_while_etcd_is_down_serves_what_was_known,
}
