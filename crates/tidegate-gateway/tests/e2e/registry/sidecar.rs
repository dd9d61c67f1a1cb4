//! `tidegate register`: traffic follows what it registers, and it says what happens.

use crate::{
    registry::{Callers, Instance, config, has, service, sidecar, stands, url},
    server::{Etcd, Version, on_both},
    support::{
        client, eventually,
        gateway::{Gateway, command},
        process::Process,
    },
};

async fn traffic_follows_what_sidecars_register(version: Version) {
    let etcd = Etcd::start_with_users(version, &[]).await;
    let gateway = Gateway::start(&config(&url(&etcd), "")).await;
    let none = client::get(gateway.http(), "/").await;
    assert_eq!((none.status.as_u16(), none.header("retry-after")), (503, "1"), "{}", none.text());
    assert_eq!(none.json()["reason"], "service-not-found");

    let mut first = Instance::start(&etcd, &["--id", "a", "--zone", "eu-1", "--version", "2.1"]).await;
    has(&gateway, 1).await;
    let callers = Callers::start(&gateway);
    callers.served(20).await;
    let second = Instance::start(&etcd, &["--weight", "3", "--metadata", "team=payments"]).await;
    has(&gateway, 2).await;
    eventually("both being called", async || second.calls() > 20).await;

    let state = gateway.state().await;
    let a = service(&state)["endpoints"].as_array().unwrap().iter().find(|one| one["id"] == "a").unwrap();
    assert_eq!((&a["zone"], &a["version"], &a["weight"]), (&"eu-1".into(), &"2.1".into(), &1.into()));
    assert_eq!(service(&state)["provenance"], "live");
    assert_eq!(state["registry"]["etcd"]["logins"], 1);
    assert!(!state.to_string().contains("hunter2"));

    first.sidecar.signal("TERM");
    assert_eq!(first.sidecar.end().await.code(), Some(0));
    first.sidecar.printed("Z deregistered orders a at").await;
    has(&gateway, 1).await;
    let (before, other) = (first.calls(), second.calls());
    eventually("the other taking all calls", async || second.calls() > other + 20).await;
    assert_eq!(first.calls(), before, "it is told to nobody");
    callers.assert_all_served();
    assert!(
        gateway.metric("tidegate_lookups_total{service=\"orders\",upstream=\"main\",outcome=\"live\"}").await
            > 40.0
    );
    assert_eq!(gateway.metric("tidegate_etcd_logins_total").await, 1.0);
    assert!(!first.sidecar.output().contains("hunter2"));
}

async fn a_lost_lease_is_told_and_healed(version: Version) {
    let mut etcd = Etcd::start_with_users(version, &[]).await;
    let gateway = Gateway::start(&config(&url(&etcd), "grace: 60s")).await;
    let mut instance = Instance::start(&etcd, &["--patience", "2s"]).await;
    has(&gateway, 1).await;
    etcd.kill();
    instance.sidecar.printed("Z lost orders").await;
    etcd.launch();
    etcd.ready().await;
    instance.sidecar.printed("Z back orders").await;
    stands(&gateway, "live").await;
    has(&gateway, 1).await;
    // What cannot be deregistered is an error, and not for ever.
    etcd.kill();
    instance.sidecar.signal("INT");
    assert_eq!(instance.sidecar.end().await.code(), Some(1));
    instance.sidecar.printed("could not deregister orders").await;
}

on_both! {
    traffic_follows_what_sidecars_register,
    a_lost_lease_is_told_and_healed,
}

#[tokio::test]
async fn a_sidecar_that_may_not_log_in_says_so_and_ends_when_it_is_told_to() {
    let etcd = Etcd::start_with_users(Version::V37, &[]).await;
    let url = format!("etcd://gate:wrong-secret@127.0.0.1:{}/", etcd.port);
    let mut process = sidecar(&url, ([127, 0, 0, 1], 9).into(), &["--patience", "500ms"]);
    process.printed("not registered yet: ").await;
    process.signal("TERM");
    assert_eq!(process.end().await.code(), Some(0), "it never was registered");
    assert!(!process.output().contains("wrong-secret"), "{}", process.output());
}

#[tokio::test]
async fn a_wrong_command_line_is_exit_code_2_and_shows_no_password() {
    for (url, more, told) in [
        ("etcd://u:hunter2@h h/", &[][..], "--registry: "),
        ("consul://u:hunter2@h", &[], "write etcd://"),
        ("file:services.yaml", &[], "takes no registrations"),
        ("etcd://u:hunter2@h", &["--ttl", "1500ms"], "write whole seconds"),
        ("etcd://u:hunter2@h", &["--address", "nowhere"], "the port is missing"),
        ("etcd://u:hunter2@h", &["--user", "a", "--password-file", "/no"], "has a user as well"),
        ("etcd://h", &["--user", "a", "--password-file", "/no/such"], "registry.password"),
        ("etcd://h", &["--roots", "ca.crt"], "begin its URL with etcds"),
        ("etcds://h", &["--roots", "/no/such.crt"], "registry.tls.roots: /no/such.crt can not be read"),
    ] {
        let mut command = command();
        command.args(["register", "--service", "a", "--registry", url]).args(more);
        if !more.contains(&"--address") {
            command.args(["--address", "10.0.0.7:9001"]);
        }
        let mut process = Process::start("tidegate register", &mut command);
        process.printed(told).await;
        assert_eq!(process.end().await.code(), Some(2), "{}", process.output());
        assert!(!process.output().contains("hunter2"), "{}", process.output());
    }
}
