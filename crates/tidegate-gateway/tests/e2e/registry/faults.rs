//! What becomes of the registry is not what becomes of the calls.

use std::fs;

use serde_json::Value;

use crate::{
    registry::{Callers, Instance, config, has, service, stands, url},
    server::{Etcd, Version, on_both},
    support::{client, gateway::Gateway},
};

async fn calls_go_on_while_etcd_is_gone_and_find_it_when_it_is_back(version: Version) {
    let mut etcd = Etcd::start_with_users(version, &[]).await;
    let gateway = Gateway::start(&config(&url(&etcd), "grace: 60s\nttl: 1s")).await;
    let _first = Instance::start(&etcd, &["--id", "a"]).await;
    has(&gateway, 1).await;
    let callers = Callers::start(&gateway);
    callers.served(10).await;
    etcd.kill();
    stands(&gateway, "stale").await;
    gateway.state_is("the reason", |state| !service(state)["error"].is_null()).await;
    callers.served(100).await;
    let state = gateway.state().await;
    assert!(service(&state)["lookups"]["stale"].as_u64() > Some(50), "{state:#}");
    assert!(service(&state)["ages"]["count"].as_u64() > Some(50), "{state:#}");
    etcd.launch();
    etcd.ready().await;
    stands(&gateway, "live").await;
    let _second = Instance::start(&etcd, &["--id", "b"]).await;
    has(&gateway, 2).await;
    callers.served(10).await;
    assert!(gateway.metric("tidegate_registry_watch_restarts_total").await >= 1.0);
}

async fn leases_that_all_expire_fail_no_call_within_the_grace(version: Version) {
    let etcd = Etcd::start_with_users(version, &[]).await;
    let gateway = Gateway::start(&config(&url(&etcd), "grace: 8s")).await;
    let (mut first, mut second) = tokio::join!(Instance::start(&etcd, &[]), Instance::start(&etcd, &[]));
    has(&gateway, 2).await;
    let callers = Callers::start(&gateway);
    callers.served(10).await;
    // The registrations end, the servers go on.
    for instance in [&mut first, &mut second] {
        instance.sidecar.signal("KILL");
        instance.sidecar.end().await;
    }
    // One alone may go; when the last goes as well, both are doubted, and both turn out to serve.
    let proven = |state: &Value| {
        let endpoints = service(state)["endpoints"].as_array().cloned().unwrap_or_default();
        endpoints.iter().filter(|one| one["proven_seconds"].is_number()).count()
    };
    gateway.state_is("both being proved by calls", |state| proven(state) == 2).await;
    assert_eq!(service(&gateway.state().await)["suspects"], 0);
    callers.served(100).await;
    drop(callers);
    // Etcd stands by it, so they are gone when the grace is over.
    stands(&gateway, "not-found").await;
    let none = client::get(gateway.http(), "/").await;
    assert_eq!((none.status.as_u16(), &none.json()["reason"]), (503, &"service-not-found".into()));
}

async fn an_etcd_that_stands_still_beyond_all_leases_fails_no_call(version: Version) {
    let etcd = Etcd::start_with_users(version, &[]).await;
    let gateway = Gateway::start(&config(&url(&etcd), "grace: 30s\ntimeout: 1s")).await;
    let (first, second) = tokio::join!(Instance::start(&etcd, &[]), Instance::start(&etcd, &[]));
    has(&gateway, 2).await;
    let callers = Callers::start(&gateway);
    etcd.signal("-STOP");
    first.sidecar.printed("Z lost orders").await;
    second.sidecar.printed("Z lost orders").await;
    callers.served(50).await;
    etcd.signal("-CONT");
    first.sidecar.printed("Z back orders").await;
    second.sidecar.printed("Z back orders").await;
    stands(&gateway, "live").await;
    has(&gateway, 2).await;
    callers.served(50).await;
}

on_both! {
    calls_go_on_while_etcd_is_gone_and_find_it_when_it_is_back,
    leases_that_all_expire_fail_no_call_within_the_grace,
    an_etcd_that_stands_still_beyond_all_leases_fails_no_call,
}

#[tokio::test]
async fn a_suspect_that_is_gone_takes_no_more_than_one_call() {
    let etcd = Etcd::start_with_users(Version::V37, &[]).await;
    let gateway = Gateway::start(&config(&url(&etcd), "grace: 60s")).await;
    let start = || Instance::start(&etcd, &[]);
    let (first, second, third) = tokio::join!(start(), start(), start());
    let mut instances = vec![first, second, third];
    has(&gateway, 3).await;
    for instance in &mut instances {
        instance.sidecar.signal("KILL");
        instance.sidecar.end().await;
    }
    let suspects = |state: &Value| service(state)["suspects"].as_u64();
    gateway.state_is("suspects", |state| suspects(state) == Some(3)).await;
    let state = gateway.state().await;
    let address = service(&state)["endpoints"].as_array().unwrap().last().unwrap()["address"].clone();
    instances.retain(|instance| instance.server.addr().to_string() != address);
    assert_eq!(instances.len(), 2);
    let callers = Callers::start(&gateway);
    gateway
        .state_is("the one that is gone being dropped", |state| {
            service(state)["endpoints"]
                .as_array()
                .is_some_and(|all| all.iter().all(|one| one["address"] != address))
        })
        .await;
    callers.served(20).await;
}

#[tokio::test]
async fn a_gateway_that_starts_while_etcd_is_down_serves_the_snapshot_and_names_a_damaged_one() {
    let mut etcd = Etcd::start_with_users(Version::V37, &[]).await;
    let kept = tempfile::tempdir().unwrap();
    let registry = format!("snapshot: {}\ntimeout: 1s", kept.path().display());
    let text = config(&url(&etcd), &registry);
    let mut gateway = Gateway::start(&text).await;
    let _instance = Instance::start(&etcd, &[]).await;
    has(&gateway, 1).await;
    let file = || fs::read_dir(kept.path()).unwrap().filter_map(|entry| Some(entry.ok()?.path())).next();
    crate::support::eventually("the snapshot", async || {
        file().is_some_and(|path| path.extension().is_some_and(|extension| extension == "snapshot"))
    })
    .await;
    assert_eq!(gateway.drain().await.code(), Some(0));
    etcd.kill();

    let gateway = Gateway::start(&text).await;
    let answer = client::get(gateway.http(), "/").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let state = gateway.state().await;
    assert_eq!(service(&state)["provenance"], "snapshot", "{state:#}");
    assert!(service(&state)["lookups"]["snapshot"].as_u64() > Some(0), "{state:#}");
    drop(gateway);

    let mut damaged = fs::read(file().unwrap()).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(file().unwrap(), damaged).unwrap();
    let gateway = Gateway::start(&text).await;
    let answer = client::get(gateway.http(), "/").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["reason"], "registry-unavailable", "{}", answer.text());
    assert!(!answer.header("retry-after").is_empty());
    let state = gateway.state().await;
    let told = state["registry"]["problems"][0].as_str().unwrap();
    assert!(told.contains("is ignored") && told.contains(kept.path().to_str().unwrap()), "{told}");
}

#[tokio::test]
async fn a_call_waits_for_a_registry_that_hangs_no_longer_than_it_has_time() {
    let etcd = Etcd::start_with_users(Version::V37, &[]).await;
    etcd.signal("-STOP");
    let text = config(&url(&etcd), "timeout: 60s").replace("timeout: 10s", "timeout: 300ms");
    let gateway = Gateway::start(&text).await;
    let answer = client::get(gateway.http(), "/").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["reason"]),
        (504, &"deadline".into()),
        "{}",
        answer.text()
    );
    etcd.signal("-CONT");
    let _instance = Instance::start(&etcd, &[]).await;
    has(&gateway, 1).await;
    assert_eq!(client::get(gateway.http(), "/").await.status, 200);
}

#[tokio::test]
async fn a_password_that_etcd_refuses_is_told_and_shows_nowhere() {
    let etcd = Etcd::start_with_users(Version::V37, &[]).await;
    let url = format!("etcd://gate:wrong-secret@127.0.0.1:{}/", etcd.port);
    let mut gateway = Gateway::start(&config(&url, "")).await;
    let answer = client::get(gateway.http(), "/").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.json()["reason"], "registry-unavailable");
    let state = gateway.state().await;
    let error = service(&state)["error"].as_str().unwrap_or_default();
    assert!(error.contains("etcd refuses user \"gate\" or its password"), "{state:#}");
    assert!(gateway.metric("tidegate_etcd_login_failures_total").await >= 1.0);
    let page = client::get_at(gateway.admin(), "/state", &[("accept", "text/html")]).await.text();
    let shown = client::get_at(gateway.admin(), "/config", &[]).await.text();
    let output = gateway.process().output();
    for text in [&state.to_string(), &page, &shown, &output] {
        assert!(!text.contains("wrong-secret"), "{text}");
    }
    assert!(page.contains("unavailable") && page.contains("or its password; correct them"), "{page}");
}

#[tokio::test]
async fn another_registry_and_other_settings_of_it_take_no_endpoint_away() {
    let mut etcd = Etcd::start_with_users(Version::V37, &[]).await;
    let gateway = Gateway::start(&config(&url(&etcd), "")).await;
    let instance = Instance::start(&etcd, &[]).await;
    has(&gateway, 1).await;
    let callers = Callers::start(&gateway);
    callers.served(10).await;
    let reloads = |count: u64| move |state: &Value| state["config"]["reloads"] == count;
    gateway.write(&config(&url(&etcd), "grace: 5s"));
    gateway.state_is("other settings", reloads(1)).await;
    stands(&gateway, "live").await;
    callers.served(20).await;
    let connections = instance.server.connections();
    // One that is away knows nothing of the service: what was known stays.
    etcd.kill();
    gateway.write(&config("etcd://127.0.0.1:9/", "timeout: 500ms"));
    gateway.state_is("another registry", reloads(2)).await;
    stands(&gateway, "stale").await;
    callers.served(50).await;
    assert!(instance.server.connections() <= connections + 1, "connections survive");
    // Listed endpoints in its place, and back.
    let listed = format!("endpoints: [\"http://{}\"]", instance.server.addr());
    gateway.write(
        &config(&url(&etcd), "")
            .replace("service: orders", &listed)
            .replace("registry:", "#")
            .lines()
            .filter(|line| {
                !line.starts_with('#') && !line.starts_with("  url") && !line.starts_with("  minimum")
            })
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
    );
    gateway.state_is("listed endpoints", reloads(3)).await;
    assert!(gateway.state().await["registry"].is_null());
    callers.served(20).await;
}
