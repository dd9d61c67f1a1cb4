//! HTTP/2: streams counted, connections shared, and both versions on one endpoint.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::{super::Endpoint, server::*};

async fn all(endpoint: &Arc<Endpoint>, count: usize) {
    let calls = (0..count).map(|_| {
        let endpoint = Arc::clone(endpoint);
        tokio::spawn(async move { fetch(&endpoint, get("/")).await.unwrap() })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap(), "hello");
    }
}

#[tokio::test]
async fn a_burst_on_an_empty_pool_opens_one_connection() {
    let (address, seen) = http2(100, async |_| answer("hello")).await;
    let endpoint = endpoint(address, HTTP2);
    all(&endpoint, 80).await;
    all(&endpoint, 80).await;
    assert_eq!(seen.accepted(), 1);
    assert_eq!((endpoint.in_flight(), endpoint.connections().streams), (0, 0));
    drop(endpoint);
    until("the connection is closed with its endpoint", || seen.now_open() == 0).await;
}

#[tokio::test]
async fn another_connection_is_opened_when_the_peers_streams_are_full() {
    let latch = Latch::closed();
    let gate = latch.clone();
    let (at_once, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (now, peak) = (Arc::clone(&at_once), Arc::clone(&most));
    let (address, seen) = http2(10, move |_| {
        let (gate, now, peak) = (gate.clone(), Arc::clone(&now), Arc::clone(&peak));
        async move {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            gate.opened().await;
            now.fetch_sub(1, Ordering::SeqCst);
            answer("hello")
        }
    })
    .await;
    let endpoint =
        endpoint(address, r#""protocol": "http2", "connections": {"max": 3, "connect_timeout": "30s"}"#);
    let caller = Arc::clone(&endpoint);
    let calls = tokio::spawn(async move { all(&caller, 45).await });
    until("three connections are full and the rest waits", || {
        let stats = endpoint.connections();
        (stats.open, stats.streams, stats.waiting) == (3, 30, 15) && at_once.load(Ordering::SeqCst) == 30
    })
    .await;
    assert_eq!((endpoint.in_flight(), seen.accepted()), (45, 3));
    latch.open();
    calls.await.unwrap();
    assert_eq!((most.load(Ordering::SeqCst), seen.accepted()), (30, 3));
    let stats = endpoint.connections();
    assert_eq!((stats.streams, stats.waiting, stats.idle), (0, 0, 3));
}

#[tokio::test]
async fn grpc_goes_by_http2_and_the_rest_by_http1_on_one_plain_endpoint() {
    let address = of_both_versions().await;
    let endpoint = endpoint(address, "");
    let grpc = |kind: &'static str| {
        let mut request = post("/pkg.Service/Method", "x");
        request.headers_mut().insert(header::CONTENT_TYPE, kind.parse().unwrap());
        request
    };
    assert_eq!(fetch(&endpoint, get("/")).await.unwrap(), "HTTP/1.1");
    assert_eq!(fetch(&endpoint, grpc("application/grpc")).await.unwrap(), "HTTP/2.0");
    assert_eq!(fetch(&endpoint, grpc("application/grpc+proto")).await.unwrap(), "HTTP/2.0");
    assert_eq!(fetch(&endpoint, grpc("application/json")).await.unwrap(), "HTTP/1.1");
    assert_eq!(endpoint.connections().open, 2);
}

#[tokio::test]
async fn one_slot_serves_both_protocols_in_turn() {
    let address = of_both_versions().await;
    let endpoint = endpoint(address, r#""connections": {"max": 1}"#);
    for _ in 0..3 {
        assert_eq!(fetch(&endpoint, get("/")).await.unwrap(), "HTTP/1.1");
        let mut request = get("/");
        request.headers_mut().insert(header::CONTENT_TYPE, "application/grpc".parse().unwrap());
        assert_eq!(fetch(&endpoint, request).await.unwrap(), "HTTP/2.0");
    }
    assert!(endpoint.connections().open <= 1);
}

#[tokio::test]
async fn bodies_trailers_and_the_authority_pass_through() {
    let (address, _seen) = http2(10, async |request: Request<hyper::body::Incoming>| {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        trailers.insert("x-authority", parts.uri.authority().unwrap().as_str().parse().unwrap());
        trailers.insert(
            "x-length",
            parts.headers.get("content-length").cloned().unwrap_or("none".parse().unwrap()),
        );
        let frames = [Ok(Frame::data(body.to_bytes())), Ok(Frame::trailers(trailers))];
        Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed())
    })
    .await;
    let endpoint = endpoint(address, HTTP2);
    let large: Bytes = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>().into();
    for body in [Bytes::from_static(b"small"), large] {
        let length = body.len().to_string();
        let response = endpoint.send(post("/a", body.clone()), &call()).await.unwrap();
        assert_eq!(response.version(), Version::HTTP_2);
        let collected = response.into_body().collect().await.unwrap();
        let trailers = collected.trailers().unwrap().clone();
        assert!(collected.to_bytes() == body);
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-authority"], "api.example");
        assert_eq!(trailers["x-length"], length.as_str());
    }
    assert_eq!((endpoint.in_flight(), endpoint.connections().streams), (0, 0));
}

#[tokio::test]
async fn a_body_dropped_half_way_resets_its_stream_and_keeps_the_connection() {
    let (address, seen) = http2(1, async |request: Request<hyper::body::Incoming>| {
        if request.uri().path() == "/endless" {
            let endless =
                futures_util::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[0; 1000]))));
            return Response::new(StreamBody::new(endless).boxed());
        }
        answer("hello")
    })
    .await;
    let endpoint = endpoint(address, r#""protocol": "http2", "connections": {"max": 1}"#);
    for _ in 0..3 {
        let mut response = endpoint.send(get("/endless"), &call()).await.unwrap();
        response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!((endpoint.in_flight(), endpoint.connections().streams), (1, 1));
        drop(response);
        assert_eq!((endpoint.in_flight(), endpoint.connections().streams), (0, 0));
        assert_eq!(fetch(&endpoint, get("/")).await.unwrap(), "hello");
    }
    assert_eq!(seen.accepted(), 1);
}

#[tokio::test]
async fn both_directions_of_a_stream_go_on_at_once() {
    let (address, _seen) = http2(10, async |request: Request<hyper::body::Incoming>| {
        Response::new(request.into_body().map_err(|_| unreachable!("the upload is whole")).boxed())
    })
    .await;
    let endpoint = endpoint(address, HTTP2);
    // A client's own HTTP/2 connection in front, so that the request body is one that streams.
    let (front, front_address) = listen().await;
    let relay = Arc::clone(&endpoint);
    tokio::spawn(async move {
        let (stream, _) = front.accept().await.unwrap();
        serve_http2(stream, 10, move |request| relayed(Arc::clone(&relay), request)).await;
    });
    let stream = tokio::net::TcpStream::connect(front_address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://x/").body(()).unwrap();
    let (response, mut upload) = client.send_request(request, false).unwrap();
    upload.send_data("ping".into(), false).unwrap();
    let mut echo = response.await.unwrap().into_body();
    assert_eq!(echo.data().await.unwrap().unwrap(), "ping");
    assert_eq!((endpoint.in_flight(), endpoint.connections().streams), (1, 1));
    upload.send_data("pong".into(), true).unwrap();
    assert_eq!(echo.data().await.unwrap().unwrap(), "pong");
    assert!(echo.data().await.is_none());
    until("all is given back", || endpoint.in_flight() == 0 && endpoint.connections().streams == 0).await;
}

#[tokio::test]
async fn a_stream_that_its_peer_stops_reading_holds_back_the_sender() {
    let sent = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&sent);
    let (address, _seen) = http2(10, move |_| {
        let counter = Arc::clone(&counter);
        async move {
            let endless = futures_util::stream::repeat_with(move || {
                counter.fetch_add(16, Ordering::SeqCst);
                Ok(Frame::data(Bytes::from_static(&[0; 16 << 10])))
            });
            Response::new(StreamBody::new(endless).boxed())
        }
    })
    .await;
    let endpoint = endpoint(address, HTTP2);
    let response = endpoint.send(get("/"), &call()).await.unwrap();
    let mut before = u32::MAX;
    while before != sent.load(Ordering::SeqCst) {
        before = sent.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(before < 4 << 10, "{before} KiB were sent to a reader that reads nothing");
    drop(response);
}

#[tokio::test]
async fn idle_connections_say_goodbye_after_their_time() {
    let (address, seen) = http2(10, async |_| answer("hello")).await;
    let endpoint = endpoint(address, r#""protocol": "http2", "connections": {"idle": "80ms"}"#);
    assert_eq!(fetch(&endpoint, get("/")).await.unwrap(), "hello");
    until("it is closed", || is_at_rest(&endpoint) && seen.now_open() == 0).await;
    assert_eq!(fetch(&endpoint, get("/")).await.unwrap(), "hello");
    assert_eq!(seen.accepted(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_call_is_lost_and_nothing_is_left_after_many_at_once() {
    let (address, seen) = http2(7, async |request: Request<hyper::body::Incoming>| {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        answer(body)
    })
    .await;
    let endpoint =
        endpoint(address, r#""protocol": "http2", "connections": {"max": 3, "connect_timeout": "30s"}"#);
    let calls = (0..100_u32).map(|number| {
        let endpoint = Arc::clone(&endpoint);
        tokio::spawn(async move {
            for turn in 0..20_u32 {
                let body = Bytes::from(format!("{number}/{turn}"));
                if (number + turn) % 5 == 0 {
                    // Given up at an arbitrary point.
                    let call = call();
                    let call = endpoint.send(post("/", body), &call);
                    let _given_up =
                        tokio::time::timeout(Duration::from_micros(u64::from(turn) * 20), call).await;
                } else {
                    assert_eq!(fetch(&endpoint, post("/", body.clone())).await.unwrap(), body);
                }
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    assert!(seen.most_open() <= 3, "{} connections at once", seen.most_open());
    let stats = endpoint.connections();
    assert_eq!((endpoint.in_flight(), stats.streams, stats.waiting), (0, 0, 0), "{stats:?}");
    drop(endpoint);
    until("the connections are closed", || seen.now_open() == 0).await;
}
