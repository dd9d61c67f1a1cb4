//! The store and gateways fail, alone and together.

use http::StatusCode;
use rustix::process::Signal;
use serde_json::Value;

use super::{Fleet, LONG_WINDOW, WINDOW, patient};
use crate::{
    servers::Redis,
    support::{client, eventually},
};

#[tokio::test]
async fn a_store_that_hangs_refuses_what_it_did_not_grant_and_is_used_again() {
    let redis = Redis::start(&[]);
    let fleet = Fleet::start(2, &redis.url(), "rate: 40/s, algorithm: fixed-window").await;
    let load = fleet.load("hangs");
    load.admits(20).await;
    redis.signal(Signal::STOP);
    // Whatever was granted is spent; from then on each answer is a refusal, and they keep coming.
    load.refuses(400).await;
    assert_eq!(load.other(), 0, "a store that is away is no error of the gateway");
    fleet.gateways[0]
        .state_is("the store being called away", |state| state["store"]["state"] == "away")
        .await;
    redis.signal(Signal::CONT);
    load.admits(60).await;
    drop(load);
    fleet.tally.assert_windows(40, WINDOW);
}

#[tokio::test]
async fn a_store_that_pauses_its_clients_is_waited_for() {
    let redis = Redis::start(&[]);
    let fleet = Fleet::start(2, &redis.url(), "rate: 40/s, algorithm: fixed-window, lease: 200ms").await;
    let load = fleet.load("paused");
    load.admits(20).await;
    let () = redis.say("CLIENT PAUSE 2500 ALL").await;
    for gateway in &fleet.gateways {
        let unanswered = |state: &Value| state["limits"][0]["credit"]["unanswered"].as_u64() > Some(0);
        gateway.state_is("calls refused for want of an answer", unanswered).await;
    }
    load.admits(100).await;
    assert_eq!(load.other(), 0);
    drop(load);
    fleet.tally.assert_windows(40, WINDOW);
}

#[tokio::test]
async fn a_store_that_lost_everything_grants_nothing_twice() {
    for loss in [Loss::Restart, Loss::Flush] {
        let mut redis = Redis::start(&[]);
        let limit = "rate: 60/1000h, algorithm: fixed-window, lease: 500ms";
        let fleet = Fleet::start(2, &patient(&redis), limit).await;
        let load = fleet.load("lost");
        load.admits(30).await;
        match loss {
            Loss::Restart => {
                redis.kill();
                redis.run();
            }
            Loss::Flush => redis.say::<()>("FLUSHALL").await,
        }
        // What was granted before the loss was seen by gateways that are still there. What was on its way is lost.
        eventually("the rest being granted", async || load.admitted() >= 40).await;
        load.refuses(600).await;
        drop(load);
        fleet.tally.assert_windows(60, LONG_WINDOW);
    }
}

#[derive(Clone, Copy)]
enum Loss {
    Restart,
    Flush,
}

#[tokio::test]
async fn a_store_that_takes_no_writes_is_waited_for() {
    let (redis, other) = (Redis::start(&[]), Redis::start(&[]));
    let fleet = Fleet::start(2, &redis.url(), "rate: 40/s, algorithm: fixed-window, lease: 200ms").await;
    let load = fleet.load("readonly");
    load.admits(20).await;
    redis.say::<()>(&format!("REPLICAOF 127.0.0.1 {}", other.port)).await;
    load.refuses(300).await;
    fleet.gateways[0]
        .state_is("the store being called away", |state| state["store"]["state"] == "away")
        .await;
    redis.say::<()>("REPLICAOF NO ONE").await;
    load.admits(60).await;
    drop(load);
    fleet.tally.assert_windows(40, WINDOW);
}

#[tokio::test]
async fn a_gateway_that_dies_takes_its_credit_with_it_and_no_more() {
    let redis = Redis::start(&[]);
    let mut fleet = Fleet::start(3, &redis.url(), "rate: 60/1000h, algorithm: fixed-window").await;
    let load = fleet.load("dies");
    load.admits(15).await;
    let dead = fleet.gateways.remove(0);
    dead.kill();
    load.refuses(300).await;
    drop(load);
    fleet.tally.assert_windows(60, LONG_WINDOW);
}

#[tokio::test]
async fn a_gateway_that_was_stopped_over_the_edge_of_a_window_spends_nothing_of_the_old_one() {
    let redis = Redis::start(&[]);
    let mut fleet = Fleet::start(2, &redis.url(), "rate: 40/s, algorithm: fixed-window").await;
    let load = fleet.load("stopped");
    load.admits(20).await;
    for _ in 0..2 {
        fleet.gateways[0].process().signal("STOP");
        // The other one sees three edges.
        load.admits(130).await;
        fleet.gateways[0].process().signal("CONT");
        load.admits(40).await;
    }
    drop(load);
    fleet.tally.assert_windows(40, WINDOW);
}

#[tokio::test]
async fn a_gateway_that_ends_in_order_hands_its_credit_back() {
    let redis = Redis::start(&[]);
    let mut fleet = Fleet::start(2, &patient(&redis), "rate: 40/1000h, algorithm: fixed-window").await;
    let first = fleet.gateways[0].http();
    let call = async |gateway| client::get_with(gateway, "/", &[("x-key", "back")]).await.status;
    // A store that is new grants nothing for as long as credit may live that it does not know of.
    eventually("the first call admitted", async || call(first).await == StatusCode::OK).await;
    fleet.gateways.remove(0).drain().await;
    let second = fleet.gateways[0].http();
    let mut admitted = 1;
    eventually("the second using the rest", async || {
        admitted += usize::from(call(second).await == StatusCode::OK);
        admitted == 40
    })
    .await;
    assert_eq!(call(second).await, StatusCode::TOO_MANY_REQUESTS);
    fleet.tally.assert_windows(40, LONG_WINDOW);
}

#[tokio::test]
async fn without_a_store_each_policy_does_what_it_says() {
    for (policy, admits) in [("deny", false), ("open", true)] {
        let mut redis = Redis::start(&[]);
        let limit =
            format!("rate: 1000/s, algorithm: fixed-window, lease: 100ms, on_store_failure: {policy}");
        let fleet = Fleet::start(1, &redis.url(), &limit).await;
        let load = fleet.load(policy);
        load.admits(10).await;
        redis.kill();
        fleet.gateways[0]
            .state_is("the store being called away", |state| state["store"]["state"] == "away")
            .await;
        if admits {
            load.admits(100).await;
            let limit = super::limit(&fleet.gateways[0]).await;
            assert!(limit["over_admission_possible"].is_null(), "nothing bounds it: {limit:?}");
        } else {
            load.refuses(100).await;
        }
    }
}

#[tokio::test]
async fn without_a_store_each_gateway_spends_its_slice_and_the_limit_holds() {
    let mut redis = Redis::start(&[]);
    let limit = "rate: 12000/1000h, algorithm: fixed-window, lease: 2s, on_store_failure: share, aside: 20";
    let fleet = Fleet::start(3, &patient(&redis), limit).await;
    let load = fleet.load("shared");
    load.admits(1000).await;
    for gateway in &fleet.gateways {
        let aside = |state: &Value| state["limits"][0]["credit"]["aside"].as_u64() > Some(0);
        gateway.state_is("a slice set aside", aside).await;
    }
    let from_aside = async || {
        let mut all = 0;
        for gateway in &fleet.gateways {
            let limit = super::limit(gateway).await;
            assert_eq!(limit["over_admission_possible"], 0, "{limit:?}");
            all += limit["credit"]["from_aside"].as_u64().unwrap();
        }
        all
    };
    let before = from_aside().await;
    redis.kill();
    // What is in hand first, then the slice. One that was just being renewed is lost: not each gateway need have its own.
    eventually("slices being spent", async || from_aside().await > before).await;
    load.refuses(300).await;
    // An empty store is told what was granted, the slices too.
    redis.run();
    load.admits(500).await;
    load.refuses(1000).await;
    drop(load);
    fleet.tally.assert_windows(12_000, LONG_WINDOW);
}
