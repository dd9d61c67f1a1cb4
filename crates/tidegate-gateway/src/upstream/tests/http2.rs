//! HTTP/2: streams counted, connections shared, refusals given back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Request, Response, Version, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    super::{Endpoint, SendErrorKind, Sent, Unsent},
    server::*,
};

const HTTP2: &str = r#""protocol": "http2""#;

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
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut first = [0; 3];
                stream.peek(&mut first).await.unwrap();
                let version = async |request: Request<_>| answer(format!("{:?}", request.version()));
                if &first == b"PRI" {
                    serve_http2(stream, 10, version).await
                } else {
                    serve_http1(stream, version).await
                }
            });
        }
    });
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
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut first = [0; 3];
                stream.peek(&mut first).await.unwrap();
                if &first == b"PRI" {
                    serve_http2(stream, 10, async |_| answer("2")).await
                } else {
                    serve_http1(stream, async |_| answer("1")).await
                }
            });
        }
    });
    let endpoint = endpoint(address, r#""connections": {"max": 1}"#);
    for _ in 0..3 {
        assert_eq!(fetch(&endpoint, get("/")).await.unwrap(), "1");
        let mut request = get("/");
        request.headers_mut().insert(header::CONTENT_TYPE, "application/grpc".parse().unwrap());
        assert_eq!(fetch(&endpoint, request).await.unwrap(), "2");
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
        serve_http2(stream, 10, move |request| {
            let relay = Arc::clone(&relay);
            async move {
                let response = relay.send(passed_on(request), &call()).await.unwrap();
                response.map(|body| body.map_err(|error| panic!("{error}")).boxed())
            }
        })
        .await;
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

/// A server on `h2` itself, which does with each request what `act` says, given its number.
async fn raw(
    act: impl Fn(u32, h2::server::SendResponse<Bytes>) + Send + Sync + Clone + 'static,
    after: impl Fn(&mut h2::server::Connection<tokio::net::TcpStream, Bytes>, u32) + Send + Sync + Clone + 'static,
) -> std::net::SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let number = Arc::new(AtomicU32::new(0));
        while let Ok((stream, _)) = listener.accept().await {
            let (act, after, number) = (act.clone(), after.clone(), Arc::clone(&number));
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_request, respond))) = connection.accept().await {
                    let number = number.fetch_add(1, Ordering::SeqCst);
                    act(number, respond);
                    after(&mut connection, number);
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_refused_stream_gives_the_request_back_whole() {
    let address = raw(|_, mut respond| respond.send_reset(Reason::REFUSED_STREAM), |_, _| {}).await;
    let endpoint = endpoint(address, HTTP2);
    for body in ["", "all of it"] {
        let mut request = post("/orders?id=1", body);
        request.headers_mut().insert("x-kept", "yes".parse().unwrap());
        request.extensions_mut().insert(7_u8);
        let error = endpoint.send(request, &call()).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Unsent(Unsent::Refused), "{error}");
        let back = error.request.expect("a refused request comes back");
        assert_eq!(back.uri().path_and_query().unwrap(), "/orders?id=1");
        assert_eq!(
            (&back.headers()["x-kept"], back.extensions().get()),
            (&"yes".parse().unwrap(), Some(&7_u8))
        );
        assert_eq!(back.into_body().collect().await.unwrap().to_bytes(), body);
    }
    assert_eq!((endpoint.in_flight(), endpoint.connections().streams), (0, 0));
}

#[tokio::test]
async fn an_http2_message_says_one_length() {
    let (said, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let (address, _seen) = http2(10, move |request: Request<hyper::body::Incoming>| {
        let said = said.clone();
        async move {
            let lengths: Vec<_> = request.headers().get_all(header::CONTENT_LENGTH).iter().cloned().collect();
            said.send(lengths).unwrap();
            answer("")
        }
    })
    .await;
    let target = endpoint(address, HTTP2);
    for (mut request, expected) in [(get("/"), &[][..]), (post("/", "abc"), &["3"][..])] {
        for length in ["3", "4"] {
            request.headers_mut().append(header::CONTENT_LENGTH, length.parse().unwrap());
        }
        fetch(&target, request).await.unwrap();
        assert_eq!(hears.recv().await.unwrap(), expected);
    }
    let address = raw(
        |_, mut respond| {
            let response = Response::builder().header("content-length", "2").header("content-length", "3");
            let mut body = respond.send_response(response.body(()).unwrap(), false).unwrap();
            body.send_data("ok".into(), true).unwrap();
        },
        |_, _| {},
    )
    .await;
    let target = endpoint(address, HTTP2);
    let error = fetch(&target, get("/")).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Sent(Sent::Protocol), "{error}");
    assert_eq!((target.in_flight(), target.connections().streams), (0, 0));
}

#[tokio::test]
async fn a_call_without_attempts_left_is_not_copied() {
    let address = raw(|_, mut respond| respond.send_reset(Reason::REFUSED_STREAM), |_, _| {}).await;
    let endpoint = endpoint(address, HTTP2);
    let mut last = call();
    last.attempts_left = 0;
    let error = endpoint.send(get("/"), &last).await.unwrap_err();
    assert!(error.is_unsent() && error.request.is_none(), "{error:?}");
}

#[tokio::test]
async fn any_other_reset_says_that_the_call_was_sent() {
    let address = raw(|_, mut respond| respond.send_reset(Reason::INTERNAL_ERROR), |_, _| {}).await;
    let endpoint = endpoint(address, HTTP2);
    let error = endpoint.send(get("/"), &call()).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Sent(Sent::Reset), "{error}");
    assert!(error.request.is_none());
}

#[tokio::test]
async fn a_goaway_gives_back_what_it_did_not_process_and_the_next_call_takes_a_new_connection() {
    // A peer by hand: it answers stream 1, says GOAWAY with 1 as the last processed when stream 3 comes, and closes.
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
        const ANSWER: [u8; 10] = [0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88];
        const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
            stream.write_all(SETTINGS).await.unwrap();
            loop {
                let mut head = [0; 9];
                if stream.read_exact(&mut head).await.is_err() {
                    break;
                }
                let length = usize::from(head[1]) << 8 | usize::from(head[2]);
                stream.read_exact(&mut vec![0; length]).await.unwrap();
                let id = u32::from_be_bytes(head[5..9].try_into().unwrap());
                match (head[3], id) {
                    (1, 1) => stream.write_all(&ANSWER).await.unwrap(),
                    (1, 3) => stream.write_all(GOAWAY).await.unwrap(),
                    _ => {}
                }
            }
        }
    });
    let endpoint = endpoint(address, HTTP2);
    assert_eq!(fetch(&endpoint, get("/1")).await.unwrap(), "");
    let error = fetch(&endpoint, get("/2")).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Unsent(Unsent::Refused), "{error}");
    assert_eq!(error.request.unwrap().uri().path(), "/2");
    assert_eq!(fetch(&endpoint, get("/3")).await.unwrap(), "");
    drop(endpoint);
    server.await.unwrap();
}

#[tokio::test]
async fn a_graceful_goaway_between_calls_is_not_noticed_by_callers() {
    let address = raw(
        |_, mut respond| {
            respond.send_response(Response::new(()), true).unwrap();
        },
        |connection, _| connection.graceful_shutdown(),
    )
    .await;
    let endpoint = endpoint(address, HTTP2);
    for _ in 0..10 {
        assert_eq!(fetch(&endpoint, get("/")).await.unwrap(), "");
        until("the goodbye has come", || endpoint.connections().open == 0).await;
    }
}

#[tokio::test]
async fn an_endpoint_that_speaks_no_http2_is_found_out_before_a_call_is_sent() {
    let (address, _seen) = http1(async |_| answer("hello")).await;
    let endpoint = endpoint(address, HTTP2);
    let call = call();
    let calls = futures_util::future::join_all((0..5).map(|_| endpoint.send(get("/"), &call))).await;
    for error in calls.into_iter().map(Result::unwrap_err) {
        assert_eq!(error.kind, SendErrorKind::Unsent(Unsent::Protocol), "{error}");
        assert!(error.request.is_some());
    }
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

#[tokio::test]
async fn a_server_that_resets_the_preface_of_a_grpc_call_does_not_speak_http2() {
    let (listener, address) = listen().await;
    let endpoint = endpoint(address, "");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        stream.readable().await.unwrap();
        // Closed with bytes unread: a reset.
    });
    let mut request = post("/", "x");
    request.headers_mut().insert(header::CONTENT_TYPE, "application/grpc".parse().unwrap());
    let error = fetch(&endpoint, request).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Unsent(Unsent::Protocol), "{error}");
    until("all is given back", || is_at_rest(&endpoint)).await;
}
