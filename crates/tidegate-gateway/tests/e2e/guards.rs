//! The guards, from outside: what is refused, how it is said, and that it comes back.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::join_all;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;

use crate::{
    setup::{guarded, to},
    support::{
        client, eventually, gateway::Gateway, nginx::Nginx, ports, raw::Raw, scripted::Scripted,
        upstream::Upstream, within,
    },
};

async fn hello() -> Upstream {
    Upstream::start(|_| async { Response::new(client::whole("hello")) }).await
}

async fn hello_at(addr: SocketAddr) -> Upstream {
    Upstream::start_at(addr, |_| async { Response::new(client::whole("hello")) }).await
}

/// Answers each call only when the semaphore has a permit for it.
async fn held(go: &Arc<Semaphore>) -> Upstream {
    let go = go.clone();
    Upstream::start(move |_| {
        let go = go.clone();
        async move {
            go.acquire().await.unwrap().forget();
            Response::new(client::whole("hello"))
        }
    })
    .await
}

#[tokio::test]
async fn a_used_up_limit_is_a_429_that_says_when_to_return() {
    let upstream = hello().await;
    let limits = "two: { rate: 2/1000h, algorithm: fixed-window, key: [\"header:x-key\"] }";
    let gateway = Gateway::start(&guarded(upstream.addr(), "", limits, "limits: [two]")).await;
    let a = [("x-key", "a")];
    for left in [1, 0] {
        let answer = client::get_with(gateway.http(), "/", &a).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.header("ratelimit").starts_with(&format!("\"two\";r={left};t=")), "{answer:?}");
        assert_eq!(answer.header("ratelimit-policy"), "\"two\";q=2;w=3600000");
    }
    let answer = client::get_with(gateway.http(), "/", &a).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert!(answer.header("ratelimit").starts_with("\"two\";r=0;t="), "{answer:?}");
    let after: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=3_600_000).contains(&after), "{after}");
    let problem = answer.json();
    assert_eq!((&problem["status"], &problem["reason"]), (&429.into(), &"quota".into()));
    assert_eq!(problem["violated-policies"], serde_json::json!(["two"]));
    // Another key has its own.
    assert_eq!(client::get_with(gateway.http(), "/", &[("x-key", "b")]).await.status, StatusCode::OK);
    assert_eq!(upstream.calls(), 3, "what is refused is not sent");
}

#[tokio::test]
async fn of_several_limits_all_are_charged_or_none() {
    let upstream = hello().await;
    let limits = "all: { rate: 3/1000h, algorithm: fixed-window }\n\
                  each: { rate: 1/1000h, algorithm: fixed-window, key: [\"header:x-key\"] }";
    let gateway = Gateway::start(&guarded(upstream.addr(), "", limits, "limits: [all, each]")).await;
    let mut statuses = Vec::new();
    for key in ["a", "a", "a", "b", "c", "d"] {
        statuses.push(client::get_with(gateway.http(), "/", &[("x-key", key)]).await.status.as_u16());
    }
    // The two refused calls of `a` cost `all` nothing.
    assert_eq!(statuses, [200, 429, 429, 200, 200, 429]);
}

#[tokio::test]
async fn a_shadow_limit_counts_but_never_refuses() {
    let upstream = hello().await;
    let limits = "ghost: { rate: 1/1000h, algorithm: fixed-window, shadow: true }";
    let gateway = Gateway::start(&guarded(upstream.addr(), "", limits, "limits: [ghost]")).await;
    for _ in 0..3 {
        assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
    }
    let state = gateway.state().await;
    assert_eq!(
        (&state["limits"][0]["admitted"], &state["limits"][0]["shadow_refused"]),
        (&1.into(), &2.into())
    );
}

#[tokio::test]
async fn calls_in_flight_stay_at_their_limit_and_the_rest_is_shed() {
    let go = Arc::new(Semaphore::new(0));
    let upstream = held(&go).await;
    let gateway =
        Gateway::start(&to(upstream.addr(), "in_flight: { limit: 2, queue: 1, max_wait: 10s }")).await;
    let http = gateway.http();
    let calls: Vec<_> = (0..3).map(|_| tokio::spawn(client::get(http, "/"))).collect();
    gateway
        .state_is("two in flight and one waiting", |state| {
            let gate = &state["upstreams"][0]["in_flight"];
            gate["in_flight"] == 2 && gate["queued"] == 1
        })
        .await;
    let shed = client::get(http, "/").await;
    assert_eq!(shed.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(shed.json()["reason"], "queue-full");
    go.add_permits(3);
    for answer in join_all(calls).await {
        assert_eq!(answer.unwrap().status, StatusCode::OK);
    }
    assert_eq!((upstream.calls(), upstream.peak()), (3, 2));
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_call_waits_no_longer_than_it_may() {
    let go = Arc::new(Semaphore::new(0));
    let upstream = held(&go).await;
    let gateway =
        Gateway::start(&to(upstream.addr(), "in_flight: { limit: 1, queue: 10, max_wait: 50ms }")).await;
    let first = tokio::spawn(client::get(gateway.http(), "/"));
    eventually("the first call at the upstream", async || upstream.live() == 1).await;
    let refused = client::get(gateway.http(), "/").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.json()["reason"], "wait-too-long");
    go.add_permits(1);
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_permit_is_held_to_the_end_of_the_body_and_given_back_when_the_client_leaves() {
    let upstream =
        Upstream::start(|request| async move { Response::new(client::body(request.into_body())) }).await;
    let gateway =
        Gateway::start(&to(upstream.addr(), "in_flight: { limit: 1, queue: 0 }\nprotocol: http2")).await;
    let mut sender = client::http2(gateway.http()).await;
    let (feed, body) = tokio::sync::mpsc::channel::<bytes::Bytes>(1);
    let frames = tokio_stream::StreamExt::map(tokio_stream::wrappers::ReceiverStream::new(body), |bytes| {
        Ok::<_, std::io::Error>(http_body::Frame::data(bytes))
    });
    let body = client::body(http_body_util::StreamBody::new(frames));
    let mut response =
        within("a head", sender.send_request(client::request2("POST", "/").body(body).unwrap()))
            .await
            .unwrap();
    feed.send("x".into()).await.unwrap();
    within("a part", response.body_mut().frame()).await.unwrap().unwrap();
    let refused = client::get(gateway.http(), "/").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "the open body holds the permit");
    drop((response, feed, sender));
    gateway.is_at_rest().await;
    assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_caller_that_leaves_the_queue_leaves_no_trace() {
    let go = Arc::new(Semaphore::new(0));
    let upstream = held(&go).await;
    let gateway =
        Gateway::start(&to(upstream.addr(), "in_flight: { limit: 1, queue: 10, max_wait: 10s }")).await;
    let http = gateway.http();
    let first = tokio::spawn(client::get(http, "/"));
    eventually("the first call at the upstream", async || upstream.live() == 1).await;
    let second = tokio::spawn(client::get(http, "/"));
    gateway.state_is("one waiting", |state| state["upstreams"][0]["in_flight"]["queued"] == 1).await;
    second.abort();
    gateway.state_is("none waiting", |state| state["upstreams"][0]["in_flight"]["queued"] == 0).await;
    go.add_permits(1);
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    gateway.is_at_rest().await;
    assert_eq!(upstream.calls(), 1, "a call whose client left before it was sent is not sent");
}

#[tokio::test]
async fn a_dead_upstream_opens_its_breaker_and_a_probe_closes_it() {
    let addr = ports::free();
    let upstream = hello_at(addr).await;
    let settings = "breaker: { failures: 3, within: 10s, open_for: 2s, probes: 1 }";
    let gateway = Gateway::start(&to(addr, settings)).await;
    assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
    drop(upstream);
    let mut reasons = Vec::new();
    within("the breaker opening", async {
        while reasons.last().is_none_or(|reason| reason != "breaker") {
            let answer = client::get(gateway.http(), "/").await;
            assert!(matches!(answer.status.as_u16(), 502 | 503), "{answer:?}");
            reasons.push(answer.json()["reason"].as_str().unwrap().to_owned());
        }
    })
    .await;
    assert_eq!(reasons.len(), 4, "three failures open it: {reasons:?}");
    assert_ne!(breaker(&gateway).await, "closed");
    let _back = hello_at(addr).await;
    eventually("the breaker closing", async || {
        client::get(gateway.http(), "/").await.status == StatusCode::OK
    })
    .await;
    assert_eq!(breaker(&gateway).await, "closed");
}

async fn breaker(gateway: &Gateway) -> String {
    gateway.state().await["upstreams"][0]["endpoints"][0]["breaker"]["state"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn errors_that_are_the_clients_do_not_open_a_breaker() {
    let upstream =
        Upstream::start(|_| async { Response::builder().status(404).body(client::empty()).unwrap() }).await;
    let gateway = Gateway::start(&to(upstream.addr(), "breaker: { failures: 2 }")).await;
    for _ in 0..10 {
        assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(breaker(&gateway).await, "closed");
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_a_503_and_one_that_is_silent_a_504() {
    let gateway = Gateway::start(&to(ports::free(), "")).await;
    let answer = client::get(gateway.http(), "/").await;
    assert_eq!(
        (answer.status, &answer.json()["reason"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"unreachable".into())
    );

    let silent = Scripted::start().await;
    for settings in ["head_timeout: 1s", "timeout: 1s"] {
        let gateway = Gateway::start(&to(silent.addr(), settings)).await;
        let call = tokio::spawn(client::get(gateway.http(), "/"));
        let mut upstream = silent.accept().await;
        upstream.head().await;
        let answer = call.await.unwrap();
        assert_eq!(
            (answer.status, &answer.json()["reason"]),
            (StatusCode::GATEWAY_TIMEOUT, &"timeout".into())
        );
        assert!(upstream.rest().await.is_empty(), "the connection of a call given up is closed");
        gateway.is_at_rest().await;
    }
}

#[tokio::test]
async fn a_body_that_falls_silent_is_cut() {
    let scripted = Scripted::start().await;
    for settings in ["idle_timeout: 1s", "timeout: 1s"] {
        let gateway = Gateway::start(&to(scripted.addr(), settings)).await;
        let mut sender = client::http1(gateway.http()).await;
        let call = tokio::spawn(async move {
            sender.send_request(client::request("GET", "/").body(client::empty()).unwrap()).await
        });
        let mut upstream = scripted.accept().await;
        upstream.head().await;
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        let response = call.await.unwrap().unwrap();
        assert!(client::Answer::read(response).await.is_err(), "a body that is cut does not look whole");
        gateway.is_at_rest().await;
    }
}

#[tokio::test]
async fn connections_to_an_endpoint_stay_at_their_bound() {
    let go = Arc::new(Semaphore::new(0));
    let upstream = held(&go).await;
    let gateway = Gateway::start(&to(upstream.addr(), "connections: { max: 2 }")).await;
    let http = gateway.http();
    let calls: Vec<_> = (0..10).map(|_| tokio::spawn(client::get(http, "/"))).collect();
    eventually("two calls at the upstream", async || upstream.live() == 2).await;
    go.add_permits(10);
    for answer in join_all(calls).await {
        let status = answer.unwrap().status;
        assert!(matches!(status, StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE), "{status}");
    }
    assert_eq!(upstream.peak(), 2);
    let endpoint = gateway.state().await["upstreams"][0]["endpoints"][0]["connections"].clone();
    assert!(endpoint["open"].as_u64().unwrap() <= 2, "{endpoint}");
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_call_that_was_not_sent_goes_to_another_endpoint() {
    let upstream = hello().await;
    let config = format!(
        "upstreams:\n  main:\n    endpoints: [\"http://{}\", \"http://{}\"]\nroutes: [{{ upstream: main }}]\n",
        ports::free(),
        upstream.addr()
    );
    let gateway = Gateway::start(&config).await;
    for _ in 0..20 {
        assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
    }
    assert_eq!(upstream.calls(), 20);
}

#[tokio::test]
async fn a_body_larger_than_its_bound_is_a_413() {
    let upstream = Upstream::start(|request| async move {
        let _ = request.into_body().collect().await;
        Response::new(client::empty())
    })
    .await;
    let gateway =
        Gateway::start(&format!("bounds: {{ body_bytes: 1KiB }}\n{}", to(upstream.addr(), ""))).await;
    for (size, status) in [(1024, 200), (1025, 413)] {
        let request = client::request("POST", "/").body(client::whole(vec![0; size])).unwrap();
        assert_eq!(client::send(gateway.http(), request).await.status.as_u16(), status, "{size}");
    }
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_call_deadline_reaches_the_queue() {
    let go = Arc::new(Semaphore::new(0));
    let upstream = held(&go).await;
    let settings = "in_flight: { limit: 1, queue: 10, max_wait: 10s }\ntimeout: 300ms";
    let gateway = Gateway::start(&to(upstream.addr(), settings)).await;
    let (a, b) = tokio::join!(
        tokio::time::timeout(Duration::from_secs(10), client::get(gateway.http(), "/")),
        tokio::time::timeout(Duration::from_secs(10), client::get(gateway.http(), "/")),
    );
    // One waits for the upstream, one for a permit; neither outlives the call's time.
    for answer in [a, b] {
        let status = answer.unwrap().status;
        assert!(matches!(status.as_u16(), 503 | 504), "{status}");
    }
    go.add_permits(2);
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_call_that_is_given_up_on_its_way_stays_charged_and_one_that_was_never_sent_does_not() {
    let go = Arc::new(Semaphore::new(0));
    let upstream = held(&go).await;
    let limits = "all: { rate: 5/1000h, algorithm: fixed-window }";
    let settings = "in_flight: { limit: 1, queue: 10, max_wait: 10s }";
    let gateway = Gateway::start(&guarded(upstream.addr(), settings, limits, "limits: [all]")).await;
    let http = gateway.http();
    // Two are left by their clients at the upstream, over each version.
    for (calls, version) in [(1, 1), (2, 2)] {
        let call = tokio::spawn(async move {
            if version == 1 {
                let request = client::request("GET", "/").body(client::empty()).unwrap();
                drop(client::http1(http).await.send_request(request).await);
            } else {
                let request = client::request2("GET", "/").body(client::empty()).unwrap();
                drop(client::http2(http).await.send_request(request).await);
            }
        });
        eventually("the call at the upstream", async || upstream.calls() == calls).await;
        call.abort();
        gateway.is_at_rest().await;
    }
    // One is broken off inside its upload.
    let mut broken = Raw::connect(http).await;
    broken.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").await;
    eventually("the upload at the upstream", async || upstream.calls() == 3).await;
    drop(broken);
    gateway.is_at_rest().await;
    // One holds the permit, another is left while it waits for it: that one is not charged.
    let first = tokio::spawn(client::get(http, "/"));
    eventually("the first call at the upstream", async || upstream.calls() == 4).await;
    let waiting = tokio::spawn(client::get(http, "/"));
    gateway.state_is("one waiting", |state| state["upstreams"][0]["in_flight"]["queued"] == 1).await;
    waiting.abort();
    gateway.state_is("none waiting", |state| state["upstreams"][0]["in_flight"]["queued"] == 0).await;
    go.add_permits(5);
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    assert_eq!(client::get(http, "/").await.status, StatusCode::OK);
    assert_eq!(client::get(http, "/").await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(upstream.calls(), 5);
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_client_cannot_open_the_breaker_by_speaking_what_the_upstream_does_not() {
    let nginx = Nginx::start("location / { return 200 hello; }").await;
    let gateway = Gateway::start(&to(nginx.addr(), "breaker: { failures: 2 }")).await;
    for _ in 0..5 {
        let request = client::request("POST", "/").header("content-type", "application/grpc");
        let answer = client::send(gateway.http(), request.body(client::whole("x")).unwrap()).await;
        assert_eq!(answer.header("grpc-status"), "14", "{answer:?}");
    }
    assert_eq!(client::get(gateway.http(), "/").await.text(), "hello");
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn clients_that_keep_their_own_uploads_waiting_do_not_open_the_breaker() {
    let upstream = Upstream::start(|request| async move {
        let _read = request.into_body().collect().await;
        Response::new(client::whole("hello"))
    })
    .await;
    let settings = "breaker: { failures: 2 }\nin_flight: { limit: 9 }\nhead_timeout: 1s";
    let gateway = Gateway::start(&to(upstream.addr(), settings)).await;
    // The latency is known, and it is short.
    for _ in 0..20 {
        assert_eq!(client::get(gateway.http(), "/").await.text(), "hello");
    }
    let mut slow = Vec::new();
    for _ in 0..5 {
        let mut raw = Raw::connect(gateway.http()).await;
        raw.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").await;
        slow.push(raw);
    }
    eventually("the uploads at the upstream", async || upstream.calls() == 25).await;
    for mut raw in slow {
        assert!(raw.head().await.starts_with("HTTP/1.1 504 "));
    }
    gateway.is_at_rest().await;
    assert_eq!(client::get(gateway.http(), "/").await.text(), "hello");
}
