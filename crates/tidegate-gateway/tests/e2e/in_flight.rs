//! Calls in flight, from outside: who goes first, who borrows from whom, what a route has of its own, what a reload
//! keeps.

use std::sync::Arc;

use futures_util::future::join_all;
use http::{Response, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{sync::Semaphore, task::JoinHandle};

use crate::{
    setup::{guarded, to},
    support::{
        client::{self, Answer},
        eventually,
        gateway::{Gateway, array},
        upstream::Upstream,
    },
};

/// Answers each call only when the semaphore has a permit for it, and notes its path when it comes.
async fn held(go: &Arc<Semaphore>, paths: &Arc<Mutex<Vec<String>>>) -> Upstream {
    let (go, paths) = (go.clone(), paths.clone());
    Upstream::start(move |request| {
        let go = go.clone();
        paths.lock().push(request.uri().path().to_owned());
        async move {
            go.acquire().await.unwrap().forget();
            Response::new(client::whole("hello"))
        }
    })
    .await
}

async fn all_ok(calls: Vec<JoinHandle<Answer>>) {
    for answer in join_all(calls).await {
        assert_eq!(answer.unwrap().status, StatusCode::OK);
    }
}

fn gate(state: &Value) -> &Value {
    &state["upstreams"][0]["in_flight"]
}

#[tokio::test]
async fn the_newest_goes_first_while_more_wait_than_may_run() {
    let (go, paths) = (Arc::new(Semaphore::new(0)), Arc::default());
    let upstream = held(&go, &paths).await;
    let settings = "in_flight: { limit: 1, queue: 9, max_wait: 15s, order: lifo-when-busy }";
    let gateway = Gateway::start(&to(upstream.addr(), settings)).await;
    let http = gateway.http();
    let mut calls = Vec::new();
    for (queued, path) in ["/a", "/b", "/c", "/d"].into_iter().enumerate() {
        calls.push(tokio::spawn(client::get(http, path)));
        let is = |state: &Value| gate(state)["in_flight"] == 1 && gate(state)["queued"] == queued;
        gateway.state_is("the call in its place", is).await;
    }
    go.add_permits(4);
    all_ok(calls).await;
    assert_eq!(*paths.lock(), ["/a", "/d", "/c", "/b"]);
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_partition_borrows_what_is_idle_and_gives_back_what_is_wanted() {
    let (go, paths) = (Arc::new(Semaphore::new(0)), Arc::default());
    let upstream = held(&go, &paths).await;
    let settings = "in_flight: { limit: 4, queue: 9, max_wait: 15s, \
                    partitions: { by: \"header:x-tier\", shares: { gold: 3, silver: 1 } } }";
    let gateway = Gateway::start(&to(upstream.addr(), settings)).await;
    let http = gateway.http();
    let call = |tier: &'static str| {
        tokio::spawn(async move { client::get_with(http, &format!("/{tier}"), &[("x-tier", tier)]).await })
    };
    let part = |state: &Value, name: &str, what: &str| {
        let parts = array(state, "/upstreams/0/partitions");
        parts.iter().find(|part| part["name"] == name).unwrap()[what].as_u64().unwrap()
    };
    // Silver has a share of less than one, and takes all as long as nobody else comes.
    let mut calls: Vec<_> = (0..4).map(|_| call("silver")).collect();
    gateway.state_is("all permits lent", |state| part(state, "silver", "in_flight") == 4).await;
    eventually("all of them at the upstream", async || upstream.live() == 4).await;
    calls.extend((0..3).map(|_| call("gold")));
    gateway.state_is("gold waiting", |state| part(state, "gold", "queued") == 3).await;
    calls.extend((0..2).map(|_| call("silver")));
    gateway.state_is("silver waiting", |state| part(state, "silver", "queued") == 2).await;
    let state = gateway.state().await;
    assert_eq!((&gate(&state)["in_flight"], &gate(&state)["queued"]), (&4.into(), &5.into()));
    let metric = gateway.metric("tidegate_partition_queued{upstream=\"main\",partition=\"gold\"}").await;
    assert_eq!(metric as u64, 3);
    for given_back in 1..=3 {
        go.add_permits(1);
        eventually("the next call at the upstream", async || upstream.calls() == 4 + given_back).await;
    }
    assert_eq!(paths.lock()[4..], ["/gold", "/gold", "/gold"], "what was lent goes back first");
    gateway.state_is("the shares", |state| part(state, "gold", "in_flight") == 3).await;
    // A tier that nobody listed belongs to the others.
    calls.push(call("bronze"));
    gateway.state_is("an other one waiting", |state| part(state, "(other)", "queued") == 1).await;
    go.add_permits(7);
    all_ok(calls).await;
    assert_eq!((upstream.calls(), upstream.peak()), (10, 4));
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_route_has_a_limit_of_its_own_inside_of_its_upstreams() {
    let (go, paths) = (Arc::new(Semaphore::new(0)), Arc::default());
    let upstream = held(&go, &paths).await;
    let config = format!(
        "upstreams:\n  main:\n    endpoints: [\"http://{}\"]\n    in_flight: {{ limit: 2, queue: 0 }}\nroutes:\n  \
         - {{ name: reports, match: {{ path: /reports }}, upstream: main, in_flight: {{ limit: 1, queue: 0 }} }}\n  \
         - {{ name: rest, upstream: main }}\n",
        upstream.addr()
    );
    let gateway = Gateway::start(&config).await;
    let http = gateway.http();
    let mut calls = vec![tokio::spawn(client::get(http, "/reports"))];
    eventually("the report at the upstream", async || upstream.live() == 1).await;
    let refused = client::get(http, "/reports").await;
    assert_eq!((refused.status.as_u16(), &refused.json()["reason"]), (503, &"in-flight".into()));
    assert!(!refused.header("retry-after").is_empty());
    calls.push(tokio::spawn(client::get(http, "/")));
    eventually("another call at the upstream", async || upstream.live() == 2).await;
    assert_eq!(client::get(http, "/").await.status, StatusCode::SERVICE_UNAVAILABLE, "the upstream's own");
    let state = gateway.state().await;
    let reports = &array(&state, "/routes")[0]["in_flight"];
    assert_eq!((&reports["in_flight"], &reports["refused"]["in-flight"]), (&1.into(), &1.into()));
    assert_eq!(gate(&state)["in_flight"], 2);
    let metric = gateway.metric("tidegate_route_in_flight{route=\"reports\",upstream=\"main\"}").await;
    assert_eq!(metric as u64, 1);
    go.add_permits(2);
    all_ok(calls).await;
    assert_eq!(upstream.calls(), 2);
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_reload_changes_limits_in_place_and_forgets_no_call() {
    let (go, paths) = (Arc::new(Semaphore::new(0)), Arc::default());
    let upstream = held(&go, &paths).await;
    let config = |in_flight: &str, route: &str| {
        guarded(upstream.addr(), &format!("in_flight: {{ {in_flight}, max_wait: 15s }}"), "", route)
    };
    let gateway =
        Gateway::start(&config("limit: 1, queue: 3", "in_flight: { limit: 3, max_wait: 15s }")).await;
    let http = gateway.http();
    let calls: Vec<_> = (0..4).map(|_| tokio::spawn(client::get(http, "/"))).collect();
    let is = |in_flight: u64, queued: u64, own: u64| {
        move |state: &Value| {
            let route = &array(state, "/routes")[0]["in_flight"];
            gate(state)["in_flight"] == in_flight
                && gate(state)["queued"] == queued
                && route["in_flight"] == own
        }
    };
    gateway.state_is("one in flight, two waiting, one before the route", is(1, 2, 3)).await;
    for (reloads, (in_flight, expected)) in [
        ("limit: 2, queue: 9, order: lifo-when-busy", (2, 1, 3)),
        ("adaptive: gradient, min: 2, max: 50, watch_held_longer_than: 1m", (2, 1, 3)),
        ("limit: 3, queue: 0, streams: { limit: 5 }", (3, 0, 3)),
        ("limit: off", (3, 0, 3)),
    ]
    .into_iter()
    .enumerate()
    {
        gateway.write(&config(in_flight, "in_flight: { limit: 3, max_wait: 15s }"));
        gateway.state_is("the reload", |s| s["config"]["reloads"].as_u64() > Some(reloads as u64)).await;
        let (in_flight, queued, own) = expected;
        gateway.state_is("nothing forgotten", is(in_flight, queued, own)).await;
    }
    let state = gateway.state().await;
    assert_eq!((&gate(&state)["admitted"], &gate(&state)["limit"]), (&3.into(), &Value::Null));
    go.add_permits(4);
    all_ok(calls).await;
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_limit_of_a_fleet_is_that_of_its_only_member() {
    let go = Arc::new(Semaphore::new(0));
    let upstream = held(&go, &Arc::default()).await;
    let mut gateway =
        Gateway::start(&to(upstream.addr(), "in_flight: { fleet: 3, queue: 99, max_wait: 15s }")).await;
    let http = gateway.http();
    let calls: Vec<_> = (0..12).map(|_| tokio::spawn(client::get(http, "/"))).collect();
    eventually("the fleet's limit at the upstream", async || upstream.live() == 3).await;
    gateway.state_is("the rest waiting", |state| gate(state)["queued"] == 9).await;
    assert_eq!(gate(&gateway.state().await)["law"], "fleet");
    go.add_permits(12);
    all_ok(calls).await;
    assert_eq!((upstream.calls(), upstream.peak()), (12, 3));
    gateway.is_at_rest().await;
    assert!(gateway.drain().await.success());
}

#[tokio::test]
async fn a_permit_that_is_held_for_long_is_seen() {
    let go = Arc::new(Semaphore::new(0));
    let upstream = held(&go, &Arc::default()).await;
    let settings = "in_flight: { limit: 5, watch_held_longer_than: 50ms }";
    let gateway = Gateway::start(&to(upstream.addr(), settings)).await;
    let call = tokio::spawn(client::get(gateway.http(), "/"));
    gateway.state_is("a permit held for long", |state| gate(state)["held_long"] == 1).await;
    let metric = gateway.metric("tidegate_held_long{upstream=\"main\",pool=\"calls\"}").await;
    assert_eq!(metric as u64, 1);
    go.add_permits(1);
    all_ok(vec![call]).await;
    gateway.state_is("no permit held for long", |state| gate(state)["held_long"] == 0).await;
}

#[tokio::test]
async fn connections_and_calls_have_bounds_of_their_own_and_who_waits_for_a_stream_is_seen() {
    let go = Arc::new(Semaphore::new(0));
    let held = go.clone();
    let upstream = Upstream::start_with_streams(2, move |_| {
        let go = held.clone();
        async move {
            go.acquire().await.unwrap().forget();
            Response::new(client::whole("hello"))
        }
    })
    .await;
    let settings =
        "protocol: http2\nconnections: { max: 2, connect_timeout: 15s }\nin_flight: { limit: 6, queue: 0 }";
    let gateway = Gateway::start(&to(upstream.addr(), settings)).await;
    let http = gateway.http();
    let calls: Vec<_> = (0..6).map(|_| tokio::spawn(client::get(http, "/"))).collect();
    // Six calls in flight, of which two connections of two streams each carry four.
    gateway
        .state_is("two waiting for a stream", |state| {
            let connections = &state["upstreams"][0]["endpoints"][0]["connections"];
            connections["streams"] == 4 && connections["waiting"] == 2 && gate(state)["in_flight"] == 6
        })
        .await;
    eventually("four at the upstream", async || upstream.live() == 4).await;
    assert_eq!(upstream.connections(), 2);
    let labels = format!("{{upstream=\"main\",endpoint=\"{}\"}}", upstream.addr());
    for (metric, value) in [("waiting", 2), ("connections", 2), ("connections_max", 2), ("streams", 4)] {
        assert_eq!(
            gateway.metric(&format!("tidegate_endpoint_{metric}{labels}")).await as u64,
            value,
            "{metric}"
        );
    }
    let refused = client::get(http, "/").await;
    assert_eq!(refused.json()["reason"], "in-flight", "the bound on calls is its own");
    go.add_permits(6);
    all_ok(calls).await;
    assert_eq!((upstream.connections(), upstream.peak()), (2, 4));
    gateway.is_at_rest().await;
}
