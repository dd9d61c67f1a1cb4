//! The pool: its bound, the line of waiters, and connections that nobody needs.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;

use super::{
    super::{SendErrorKind, Unsent},
    server::*,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connections_never_exceed_their_bound() {
    let (address, seen) = http1(async |_| {
        tokio::task::yield_now().await;
        answer("x".repeat(2000))
    })
    .await;
    let endpoint = endpoint(address, r#""connections": {"max": 5, "connect_timeout": "30s"}"#);
    let calls = (0..64).map(|_| {
        let endpoint = Arc::clone(&endpoint);
        tokio::spawn(async move {
            for _ in 0..20 {
                assert_eq!(fetch(&endpoint, get("/")).await.unwrap().len(), 2000);
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    assert!(seen.most_open() <= 5, "{} connections at once", seen.most_open());
    let stats = endpoint.connections();
    assert!(stats.open <= 5 && stats.waiting == 0, "{stats:?}");
    assert_eq!(endpoint.in_flight(), 0);
}

#[tokio::test]
async fn a_waiter_gets_the_next_free_connection_in_turn() {
    let latch = Latch::closed();
    let order = Arc::new(AtomicU32::new(0));
    let (address, seen) = latched(&latch).await;
    let endpoint = endpoint(address, r#""connections": {"max": 1, "connect_timeout": "30s"}"#);
    let mut calls = Vec::new();
    for place in 0..5 {
        let (caller, order) = (Arc::clone(&endpoint), Arc::clone(&order));
        calls.push(tokio::spawn(async move {
            let body = fetch(&caller, get("/")).await.unwrap();
            assert_eq!((body, order.fetch_add(1, Ordering::SeqCst)), (Bytes::from("done"), place));
        }));
        until("the caller waits", || endpoint.connections().waiting == place).await;
    }
    latch.open();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(seen.accepted(), 1);
    assert_eq!(endpoint.connections().waiting, 0);
}

#[tokio::test]
async fn a_waiter_that_goes_away_frees_its_place() {
    let latch = Latch::closed();
    let (address, _) = latched(&latch).await;
    let endpoint = endpoint(address, r#""connections": {"max": 1, "connect_timeout": "30s"}"#);
    let spawn = || {
        let endpoint = Arc::clone(&endpoint);
        tokio::spawn(async move { fetch(&endpoint, get("/")).await })
    };
    let first = spawn();
    until("the first is under way", || endpoint.connections().open == 1 && endpoint.in_flight() == 1).await;
    let impatient = spawn();
    until("one waits", || endpoint.connections().waiting == 1).await;
    let patient = spawn();
    until("two wait", || endpoint.connections().waiting == 2).await;
    impatient.abort();
    until("one waits", || endpoint.connections().waiting == 1).await;
    assert_eq!(endpoint.in_flight(), 2);
    latch.open();
    assert_eq!(first.await.unwrap().unwrap(), "done");
    assert_eq!(patient.await.unwrap().unwrap(), "done");
    assert_eq!((endpoint.in_flight(), endpoint.connections().waiting), (0, 0));
}

#[tokio::test]
async fn waiting_for_a_connection_has_an_end_and_gives_the_request_back() {
    let (address, _held) = mute().await;
    let endpoint = endpoint(address, r#""connections": {"max": 1, "connect_timeout": "50ms"}"#);
    let hung = tokio::spawn({
        let endpoint = Arc::clone(&endpoint);
        async move { fetch(&endpoint, get("/")).await }
    });
    until("the first holds the connection", || endpoint.connections().open == 1).await;
    let error = endpoint.send(get("/second"), &call()).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Unsent(Unsent::PoolTimeout));
    assert_eq!(error.request.unwrap().uri(), "/second");
    hung.abort();
    until("all is given back", || is_at_rest(&endpoint)).await;
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_stop_the_connection_that_others_wait_for() {
    let (listener, address) = listen().await;
    let endpoint = endpoint(address, r#""protocol": "http2", "connections": {"connect_timeout": "30s"}"#);
    let spawn = || {
        let endpoint = Arc::clone(&endpoint);
        tokio::spawn(async move { fetch(&endpoint, get("/")).await })
    };
    let first = spawn();
    until("the first waits", || endpoint.connections().waiting == 1).await;
    let second = spawn();
    until("both wait", || endpoint.connections().waiting == 2).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let (stream, _) = listener.accept().await.unwrap();
    tokio::spawn(serve_http2(stream, 10, async |_| answer("hello")));
    assert_eq!(second.await.unwrap().unwrap(), "hello");
}

#[tokio::test]
async fn idle_connections_are_closed_after_their_time() {
    let (address, seen) = http1(async |_| answer("hello")).await;
    let endpoint = endpoint(address, r#""connections": {"idle": "80ms"}"#);
    let calls: Vec<_> = (0..4).map(|_| fetch(&endpoint, get("/"))).collect();
    futures_util::future::join_all(calls).await;
    assert!(endpoint.connections().idle > 0);
    until("they are closed", || is_at_rest(&endpoint) && seen.now_open() == 0).await;
    assert_eq!(fetch(&endpoint, get("/")).await.unwrap(), "hello");
    until("the sweep goes on for later ones", || is_at_rest(&endpoint)).await;
}

#[tokio::test]
async fn an_idle_connection_gives_its_buffers_up_and_serves_on() {
    let (address, seen) = http1(async |request: Request<_>| {
        let _read_to_the_end = request.into_body().collect().await;
        answer("x".repeat(300_000))
    })
    .await;
    let endpoint = endpoint(address, r#""connections": {"idle": "10m"}"#);
    let pool = &endpoint.link.pool;
    for _ in 0..2 {
        assert_eq!(fetch(&endpoint, post("/", vec![b'x'; 300_000])).await.unwrap().len(), 300_000);
        let tick = pool.tick.load(Ordering::Relaxed);
        assert_eq!(pool.expire(tick + 1, 8), 0);
        assert!(pool.room() > 0, "it may be used again any moment");
        assert_eq!(pool.expire(tick + 2, 8), 0);
        assert_eq!(pool.room(), 0);
    }
    assert_eq!(seen.accepted(), 1);
}
