//! What an operator sets: limits changed while they count, and counters changed by hand.

use std::fs;

use tidegate::throttle::{KeyHasher, Seed};

use super::{Fleet, WINDOW, config, next_window, patient};
use crate::{
    servers::Redis,
    support::{
        gateway::{Gateway, command},
        load::Load,
        tally::Tally,
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
    next_window().await;
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
    let fleet = Fleet::start(2, &patient(&redis), "rate: 10/1000h, algorithm: fixed-window").await;
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

#[tokio::test]
async fn counters_stand_in_the_store_under_hashes_that_only_the_secret_gives() {
    const SECRET: &str = "rather long and not in the namespace";
    let redis = Redis::start(&[]);
    let tally = Tally::default();
    let upstream = tally.upstream().await;
    let mut gateways = Vec::new();
    for _ in 0..2 {
        let started = Gateway::start_with(|directory| {
            fs::write(directory.join("secret"), SECRET).unwrap();
            let store = format!("{{ url: {}, deadline: 10s, key_secret: {{ file: secret }} }}", redis.url());
            config(&upstream, &store, "rate: 10/1000h, algorithm: fixed-window")
        });
        gateways.push(started.await);
    }
    let load = Load::start(&[gateways[0].http(), gateways[1].http()], "alice", 1);
    load.has_admitted(10).await;
    load.refuses(20).await;
    assert_eq!(load.admitted(), 10, "one counter for both");
    let accounts: Vec<String> = redis.say("KEYS *:all:*").await;
    let named = |secret: &str| {
        let key = KeyHasher::seeded(Seed::of(secret.as_bytes())).part(b"alice").finish();
        let name = format!("{:032x}", key.bits());
        accounts.iter().any(|account| account.ends_with(&name))
    };
    assert!(named(SECRET) && !named("test"), "{accounts:?}");
}
