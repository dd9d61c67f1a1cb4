//! What an operator sets: limits changed while they count, counters changed by hand, and stores that are unfit.

use std::fs;

use super::{Fleet, WINDOW, config};
use crate::{
    servers::{Redis, cluster::Cluster},
    support::{
        eventually,
        gateway::{Gateway, command},
        load::Load,
        ports,
        process::Process,
        tally::{Tally, micros},
    },
};

#[tokio::test]
async fn a_limit_lowered_and_raised_holds_from_then_on() {
    let redis = Redis::start(&[]);
    let fleet = Fleet::start(2, &redis.url(), "rate: 60/s, algorithm: fixed-window").await;
    let load = fleet.load("changed");
    load.admits(100).await;
    let lower = "rate: 20/s, algorithm: fixed-window";
    fleet.reload(lower);
    for gateway in &fleet.gateways {
        gateway.state_is("the reload", |state| state["limits"][0]["rate"] == "20/s").await;
    }
    fleet.tally.assert_windows(60, WINDOW);
    // What was granted before may be spent to the end of its window; then the new limit holds.
    let window = || micros() / WINDOW.as_micros() as u64;
    let reloaded_in = window();
    eventually("the next window", async || window() > reloaded_in).await;
    fleet.tally.clear();
    load.admits(50).await;
    fleet.tally.assert_windows(20, WINDOW);
    fleet.reload("rate: 60/s, algorithm: fixed-window");
    load.admits(150).await;
    drop(load);
    fleet.tally.assert_windows(60, WINDOW);
}

#[tokio::test]
async fn an_operator_gives_a_key_more_on_all_gateways_at_once() {
    let redis = Redis::start(&[]);
    let fleet = Fleet::start(2, &redis.url(), "rate: 10/1000h, algorithm: fixed-window").await;
    let load = fleet.load("alice");
    load.has_admitted(10).await;
    load.refuses(20).await;
    assert_eq!(load.admitted(), 10);
    let limits = |line: &str| {
        let admin = fleet.gateways[0].admin().to_string();
        let output =
            command().arg("limits").args(line.split(' ')).args(["--admin", &admin]).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let said = limits("get all alice --json");
    assert!(said.contains("\"remaining\": 0") && said.contains("\"most\": 10"), "{said}");
    limits("add all alice --units 5");
    load.has_admitted(15).await;
    load.refuses(50).await;
    assert_eq!(load.admitted(), 15);
    limits("reset all alice");
    load.has_admitted(25).await;
    load.refuses(50).await;
    assert_eq!(load.admitted(), 25);
}

/// Starts a gateway that must not start, and returns its exit code and what it said.
async fn refused(store: &str) -> (Option<i32>, String) {
    let upstream = Tally::default().upstream().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.yaml");
    let (http, admin) = (ports::free(), ports::free());
    let text = format!(
        "listen: {{ http: \"{http}\", admin: \"{admin}\" }}\n{}",
        config(&upstream, store, "rate: 1/s")
    );
    fs::write(&file, text).unwrap();
    let mut process = Process::start("tidegate", command().args(["serve", "--config"]).arg(&file));
    let status = process.end().await;
    (status.code(), process.output())
}

#[tokio::test]
async fn a_store_that_is_unfit_is_told_at_the_start() {
    let redis = |arguments: &[&str]| Redis::start(arguments);
    let guarded = redis(&["--requirepass", "hunter2"]);
    let evicting = redis(&["--maxmemory-policy", "allkeys-lru"]);
    let cluster = Cluster::start(3, false).await;
    let master = redis(&[]);
    let replica = redis(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
    let few = redis(&["--databases", "4"]);
    for (store, why) in [
        (guarded.url(), "wants a password"),
        (format!("redis://:hunter3@127.0.0.1:{}", guarded.port), "refuses the login"),
        (evicting.url(), "maxmemory-policy is allkeys-lru"),
        (cluster.nodes[0].url(), "write redis-cluster://"),
        (format!("redis-cluster://127.0.0.1:{}", master.port), "not in cluster mode"),
        (replica.url(), "is a replica of"),
        (format!("{}/9", few.url()), "has no database 9"),
    ] {
        let (code, said) = refused(&store).await;
        assert_eq!(code, Some(2), "{store}: {said}");
        assert!(said.contains(why), "{store}: {said}");
        assert!(!said.contains("hunter"), "{said}");
    }
}

#[tokio::test]
async fn a_store_that_is_merely_away_lets_the_gateway_start_and_is_found_later() {
    let port = ports::free().port();
    let url = format!("redis://127.0.0.1:{port}");
    let upstream = Tally::default().upstream().await;
    let mut gateway = Gateway::start(&config(&upstream, &url, "rate: 100/s, algorithm: fixed-window")).await;
    gateway.state_is("the store being called away", |state| state["store"]["state"] == "away").await;
    gateway.process().printed("the store").await;
    let load = Load::start(&[gateway.http()], "early", 1);
    load.refuses(10).await;
    let _redis = Redis::start_on(port, &[]);
    load.admits(10).await;
    gateway.state_is("the store being back", |state| state["store"]["state"] == "up").await;
}

#[tokio::test]
async fn a_reload_to_an_unfit_store_is_refused_and_the_running_one_stays() {
    let (redis, evicting) = (Redis::start(&[]), Redis::start(&["--maxmemory-policy", "allkeys-lru"]));
    let fleet = Fleet::start(1, &redis.url(), "rate: 100/s, algorithm: fixed-window").await;
    let load = fleet.load("stays");
    load.admits(10).await;
    fleet.gateways[0].write(&config(
        &fleet.upstream,
        &evicting.url(),
        "rate: 100/s, algorithm: fixed-window",
    ));
    fleet.gateways[0]
        .state_is("the refusal", |state| {
            state["config"]["last_reload_error"].as_str().is_some_and(|why| why.contains("allkeys-lru"))
        })
        .await;
    load.admits(10).await;
}

#[tokio::test]
async fn a_password_is_read_from_a_file() {
    let redis = Redis::start(&["--requirepass", "hunter2"]);
    let upstream = Tally::default().upstream().await;
    let gateway = Gateway::start_with(|directory| {
        fs::write(directory.join("password"), "hunter2\n").unwrap();
        let store = format!("{{ url: \"{}\", user: default, password: {{ file: password }} }}", redis.url());
        config(&upstream, &store, "rate: 100/s, algorithm: fixed-window")
    })
    .await;
    let load = Load::start(&[gateway.http()], "in", 1);
    load.admits(10).await;
    gateway.state_is("the store being up", |state| state["store"]["state"] == "up").await;
}
