//! The limiter's layer with tonic's own client and server on loopback: the acceptance cases L1 to L12.
#![cfg(not(any(loom, shuttle)))]

#[path = "support/echo.rs"]
mod echo;
#[path = "limit_grpc/ends.rs"]
mod ends;

use std::{future::Future, time::Duration};

use echo::{Client, KINDS, Running, ask, endpoint, hold, start, start_with};
use futures_util::{FutureExt, future::join_all};
use tidegate::{
    By,
    layer::limit::{Limit, LimitLayer, Refusals, refused_in},
    limiter::{Fixed, Limiter},
};
use tonic::{
    Code, Status,
    transport::{Channel, Server},
};
use tower::Layer;

const SECOND: Duration = Duration::from_secs(1);

type Limited = Client<Limit<Channel>>;

fn limiter(limit: i64) -> Limiter {
    Limiter::builder().limit(limit).max_wait(60 * SECOND).build().expect("valid settings")
}

fn client(server: &Running, limiter: &Limiter) -> Limited {
    Client::new(LimitLayer::new(limiter.clone()).layer(server.channel()))
}

fn refused(status: &Status) -> Option<By> {
    refused_in(status).map(|refused| refused.by)
}

/// Waits until the limiter is at rest: a peer's answer to a reset may be under way.
async fn settled(limiter: &Limiter) {
    while limiter.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
}

/// Polls a call until it stands in line.
async fn queued(limiter: &Limiter, call: &mut (impl Future + Unpin)) {
    while limiter.queued() == 0 {
        assert!(call.now_or_never().is_none());
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn l1_the_peak_is_the_limit_for_all_four_kinds_and_all_calls_complete() {
    for kind in KINDS {
        let (server, limiter) = (start().await, limiter(4));
        let client = client(&server, &limiter);
        let calls = join_all((0..64).map(|_| {
            let mut client = client.clone();
            async move { client.held(kind).await }
        }));
        let released = async {
            server.counts.until_live(4).await;
            while limiter.queued() < 60 {
                tokio::task::yield_now().await;
            }
            assert_eq!((limiter.in_flight(), server.counts.calls()), (4, 4), "{kind:?}");
            server.counts.release(64);
        };
        let (results, ()) = tokio::join!(calls, released);
        assert!(results.iter().all(Result::is_ok), "{kind:?}: {results:?}");
        assert_eq!((server.counts.peak(), server.counts.calls()), (4, 64), "{kind:?}");
        assert_eq!((limiter.in_flight(), limiter.snapshot().admitted), (0, 64), "{kind:?}");
    }
}

#[tokio::test]
async fn l1_through_balanced_channels_and_compression() {
    let (one, two, limiter) = (start().await, start().await, limiter(3));
    let balanced = Channel::balance_list([endpoint(one.addr), endpoint(two.addr)].into_iter());
    let client = Client::compressed(LimitLayer::new(limiter.clone()).layer(balanced));
    let calls = join_all((0..30).map(|n| {
        let mut client = client.clone();
        async move { client.held(KINDS[n % 4]).await }
    }));
    one.counts.release(30);
    two.counts.release(30);
    assert!(calls.await.iter().all(Result::is_ok));
    assert_eq!(one.counts.calls() + two.counts.calls(), 30);
    assert!(one.counts.peak() <= 3 && two.counts.peak() <= 3);
    assert_eq!(limiter.in_flight(), 0);
}

#[tokio::test]
async fn l1_a_server_limits_itself_and_answers_what_it_refuses() {
    let limiter = Limiter::builder().limit(2).queue(0).build().expect("valid settings");
    let layer = LimitLayer::new(limiter.clone()).refusals(Refusals::Answer);
    let server = start_with(Server::builder().layer(layer)).await;
    let client = Client::new(server.channel());
    let held: Vec<_> = (0..2)
        .map(|n| {
            let mut client = client.clone();
            tokio::spawn(async move { client.held(KINDS[n * 2]).await })
        })
        .collect();
    server.counts.until_live(2).await;
    let status = client.clone().unary(ask("one more")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "refused by in-flight, not sent"));
    assert_eq!(status.metadata().get("tidegate-refused").unwrap(), "in-flight");
    server.counts.release(2);
    assert!(join_all(held).await.into_iter().all(|call| call.unwrap().is_ok()));
    settled(&limiter).await;
    client.clone().unary(ask("room again")).await.unwrap();
}

#[tokio::test]
async fn l4_the_queue_and_the_wait_are_bounded_and_nothing_refused_is_sent() {
    for kind in KINDS {
        let server = start().await;
        let limiter =
            Limiter::builder().limit(1).queue(1).max_wait(Duration::from_millis(40)).build().expect("valid");
        let client = client(&server, &limiter);
        let spawn = |mut client: Limited| tokio::spawn(async move { client.held(kind).await });
        let first = spawn(client.clone());
        server.counts.until_live(1).await;
        let mut other = client.clone();
        let mut second = Box::pin(other.held(kind));
        queued(&limiter, &mut second).await;
        let full = client.clone().call(kind, ask("third")).await.unwrap_err();
        assert_eq!(refused(&full), Some(By::QueueFull), "{kind:?}");
        assert!(full.message().contains("not sent"), "{full}");
        assert_eq!(refused(&second.await.unwrap_err()), Some(By::WaitTooLong), "{kind:?}");
        server.counts.release(1);
        first.await.unwrap().unwrap();
        assert_eq!(server.counts.calls(), 1, "{kind:?}");
    }
}

#[tokio::test]
async fn l5_a_cancelled_call_is_never_sent() {
    for kind in KINDS {
        let (server, limiter) = (start().await, limiter(1));
        let client = client(&server, &limiter);
        let mut holder = client.clone();
        let first = tokio::spawn(async move { holder.held(kind).await });
        server.counts.until_live(1).await;
        let mut other = client.clone();
        {
            let mut cancelled = Box::pin(other.call(kind, ask("cancelled")));
            queued(&limiter, &mut cancelled).await;
        }
        assert_eq!(limiter.queued(), 0);
        server.counts.release(1);
        first.await.unwrap().unwrap();
        client.clone().call(kind, ask("next")).await.unwrap();
        assert_eq!((server.counts.calls(), limiter.snapshot().cancelled_in_queue), (2, 1), "{kind:?}");
    }
}

#[tokio::test]
async fn l7_streams_cannot_starve_short_calls() {
    let (server, calls, streams) = (start().await, limiter(2), limiter(3));
    let layer = LimitLayer::new(calls.clone()).streams(streams.clone(), |path| path.ends_with("/List"));
    let client = Client::new(layer.layer(server.channel()));
    let mut watches = Vec::new();
    for _ in 0..3 {
        let mut watch = client.clone().list(hold()).await.unwrap();
        watch.message().await.unwrap();
        watches.push(watch);
    }
    assert_eq!((streams.in_flight(), calls.in_flight()), (3, 0));
    for _ in 0..10 {
        client.clone().unary(ask("short")).await.unwrap();
    }
    let mut fourth = client.clone();
    assert!(fourth.list(hold()).now_or_never().is_none());
    drop(watches);
    settled(&streams).await;
}

#[tokio::test]
async fn l8_a_nested_call_over_the_wire_does_not_wait_for_itself() {
    let (server, limiter) = (start().await, limiter(1));
    let client = client(&server, &limiter);
    let mut outer = client.clone();
    let status = limiter.run(&tidegate::Call::at(tidegate::clock::now()), outer.unary(ask("inner"))).await;
    assert_eq!(refused(&status.unwrap().unwrap_err()), Some(By::Nested));
    assert_eq!((server.counts.calls(), limiter.in_flight()), (0, 0));
}

#[tokio::test]
async fn l9_a_limit_is_resized_under_live_calls_of_every_kind() {
    for kind in KINDS {
        let (server, limiter) = (start().await, limiter(2));
        let client = client(&server, &limiter);
        let calls: Vec<_> = (0..6)
            .map(|_| {
                let mut client = client.clone();
                tokio::spawn(async move { client.held(kind).await })
            })
            .collect();
        server.counts.until_live(2).await;
        limiter.resize(Fixed::new(5).unwrap());
        server.counts.until_live(5).await;
        while limiter.queued() < 1 {
            tokio::task::yield_now().await;
        }
        limiter.resize(Fixed::new(1).unwrap());
        server.counts.release(4);
        server.counts.until_live(1).await;
        server.counts.release(2);
        assert!(join_all(calls).await.into_iter().all(|call| call.unwrap().is_ok()), "{kind:?}");
        let seen = (server.counts.calls(), server.counts.peak(), limiter.in_flight());
        assert_eq!(seen, (6, 5, 0), "{kind:?}");
    }
}

/// Refuses the first stream, as a server does that shuts down or is full, and answers the second.
#[expect(clippy::unwrap_used, reason = "a server of one test")]
async fn refusing_once() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (wire, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(wire).await.unwrap();
        let (_, mut first) = connection.accept().await.unwrap().unwrap();
        first.send_reset(h2::Reason::REFUSED_STREAM);
        let (_, mut second) = connection.accept().await.unwrap().unwrap();
        let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut body = second.send_response(head, false).unwrap();
        body.send_data(vec![0, 0, 0, 0, 0].into(), false).unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        body.send_trailers(trailers).unwrap();
        while connection.accept().await.is_some() {}
    });
    addr
}

#[tokio::test]
async fn l10_a_refused_stream_is_seen_as_such_and_its_retry_finds_a_free_slot() {
    let limiter = limiter(1);
    let channel = endpoint(refusing_once().await).connect_lazy();
    let mut client = Client::new(LimitLayer::new(limiter.clone()).layer(channel));
    let status = client.unary(ask("first")).await.unwrap_err();
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&status);
    let reason = loop {
        let error = source.expect("the transport's own error is in the chain");
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            break h2.reason();
        }
        source = error.source();
    };
    assert_eq!((reason, refused(&status)), (Some(h2::Reason::REFUSED_STREAM), None));
    assert_eq!(limiter.in_flight(), 0);
    client.unary(ask("again")).await.unwrap();
    assert_eq!(limiter.snapshot().admitted, 2);
}

#[tokio::test]
async fn l12_the_counts_are_exact() {
    let server = start().await;
    let limiter =
        Limiter::builder().limit(3).queue(2).max_wait(60 * SECOND).measure_hold().build().expect("valid");
    let client = client(&server, &limiter);
    let calls: Vec<_> = (0..8)
        .map(|n| {
            let mut client = client.clone();
            tokio::spawn(async move { client.held(KINDS[n % 4]).await })
        })
        .collect();
    while limiter.snapshot().refused_in_all() < 3 {
        tokio::task::yield_now().await;
    }
    server.counts.until_live(3).await;
    let read = limiter.snapshot();
    assert_eq!((read.in_flight, read.queued, read.limit, read.queue, read.admitted), (3, 2, Some(3), 2, 3));
    server.counts.release(5);
    let ok = join_all(calls).await.into_iter().filter(|call| call.as_ref().unwrap().is_ok()).count();
    let read = limiter.snapshot();
    assert_eq!((ok, read.admitted, read.wait.count(), read.hold.unwrap().count()), (5, 5, 2, 5));
    assert_eq!(read.refused.iter().find(|(by, _)| *by == By::QueueFull).unwrap().1, 3);
}
