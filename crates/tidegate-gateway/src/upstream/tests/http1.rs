//! HTTP/1.1: reuse, the bound on connections, the line of waiters, and what a failure says.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    super::{SendErrorKind, Sent, Unsent},
    server::*,
};
use crate::body::RequestBody;

#[tokio::test]
async fn one_connection_serves_call_after_call() {
    let (address, seen) = http1(async |request: Request<_>| {
        let _read_to_the_end = request.into_body().collect().await;
        answer("hello")
    })
    .await;
    let endpoint = endpoint(address, "");
    for _ in 0..20 {
        assert_eq!(fetch(&endpoint, get("/")).await.unwrap(), "hello");
    }
    for size in [1, 10_000, 300_000] {
        assert_eq!(fetch(&endpoint, post("/", vec![b'x'; size])).await.unwrap(), "hello");
    }
    assert_eq!(seen.accepted(), 1);
    assert_eq!((endpoint.connections().open, endpoint.connections().idle), (1, 1));
    drop(endpoint);
    until("the idle connection is closed with its endpoint", || {
        seen.most_open() == 1 && seen.now_open() == 0
    })
    .await;
}

#[tokio::test]
async fn bodies_go_both_ways_unchanged() {
    let (address, seen) = http1(async |request: Request<_>| {
        let headers = request.headers().clone();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut answer = answer(body);
        answer.headers_mut().insert("x-host", headers[header::HOST].clone());
        answer
    })
    .await;
    let endpoint = endpoint(address, "");
    let large: Bytes = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>().into();
    let response = endpoint.send(post("/", large.clone()), &call()).await.unwrap();
    assert_eq!(response.headers()["x-host"], "api.example");
    assert!(read(response).await == large);
    assert_eq!(seen.accepted(), 1);
}

#[tokio::test]
async fn answers_without_a_body_give_the_connection_back_at_once() {
    let (address, seen) = http1(async |request: Request<_>| {
        let mut answer = answer("");
        *answer.status_mut() =
            if request.method() == http::Method::HEAD { StatusCode::OK } else { StatusCode::NO_CONTENT };
        answer
    })
    .await;
    let endpoint = endpoint(address, "");
    for request in [get("/"), Request::head("/").body(RequestBody::empty()).unwrap(), get("/")] {
        let response = endpoint.send(request, &call()).await.unwrap();
        assert_eq!((endpoint.in_flight(), endpoint.connections().idle), (0, 1));
        drop(response);
    }
    assert_eq!(seen.accepted(), 1);
}

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
    let gate = latch.clone();
    let order = Arc::new(AtomicU32::new(0));
    let (address, seen) = http1(move |_| {
        let gate = gate.clone();
        async move {
            gate.opened().await;
            answer("done")
        }
    })
    .await;
    let endpoint = endpoint(address, r#""connections": {"max": 1, "connect_timeout": "30s"}"#);
    let mut calls = Vec::new();
    for place in 0..5 {
        let (caller, order) = (Arc::clone(&endpoint), Arc::clone(&order));
        calls.push(tokio::spawn(async move {
            let body = fetch(&caller, get("/")).await.unwrap();
            assert_eq!((body, order.fetch_add(1, Ordering::SeqCst)), (Bytes::from("done"), place));
        }));
        until("the caller waits", || endpoint.connections().waiting == place.saturating_sub(0)).await;
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
    let gate = latch.clone();
    let (address, _) = http1(move |_| {
        let gate = gate.clone();
        async move {
            gate.opened().await;
            answer("done")
        }
    })
    .await;
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
async fn an_idle_connection_that_the_server_closed_is_replaced_unnoticed() {
    let (listener, address) = listen().await;
    let endpoint = endpoint(address, "");
    let server = tokio::spawn(async move {
        let mut closed = 0;
        for _ in 0..5 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let read = stream.read(&mut head).await.unwrap();
            assert!(read > 0, "every connection that is opened brings a request");
            // It says nothing of closing, and closes.
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            stream.shutdown().await.unwrap();
            while stream.read(&mut head).await.is_ok_and(|read| read > 0) {}
            closed += 1;
        }
        closed
    });
    for _ in 0..5 {
        assert_eq!(fetch(&endpoint, post("/", "once")).await.unwrap(), "ok");
        // The close must have arrived: the runtime's driver has to have seen it.
        until("the closed connection is noticed or still idle", || endpoint.in_flight() == 0).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(server.await.unwrap(), 5);
}

#[tokio::test]
async fn a_body_dropped_half_way_closes_its_connection() {
    let (address, seen) = http1(async |_| {
        let endless = futures_util::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[0; 1000]))));
        Response::new(BodyExt::boxed(StreamBody::new(endless)))
    })
    .await;
    let endpoint = endpoint(address, "");
    let mut response = endpoint.send(get("/"), &call()).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!((endpoint.in_flight(), endpoint.connections().open), (1, 1));
    drop(response);
    assert!(is_at_rest(&endpoint), "{:?}", endpoint.connections());
    until("the server sees the close", || seen.now_open() == 0).await;
}

#[tokio::test]
async fn a_call_given_up_before_the_head_closes_its_connection() {
    let (address, _held) = mute().await;
    let endpoint = endpoint(address, "");
    let call = tokio::spawn({
        let endpoint = Arc::clone(&endpoint);
        async move { fetch(&endpoint, get("/")).await }
    });
    until("the call is under way", || endpoint.connections().open == 1).await;
    call.abort();
    until("all is given back", || is_at_rest(&endpoint)).await;
}

#[tokio::test]
async fn a_head_that_comes_before_the_upload_ends_lets_both_go_on() {
    let (address, seen) = http1(async |request: Request<_>| {
        // The head leaves at once; each piece is echoed as it comes.
        Response::new(request.into_body().map_err(|_| unreachable!("the upload is whole")).boxed())
    })
    .await;
    let endpoint = endpoint(address, "");
    for _ in 0..2 {
        let (front, front_address) = listen().await;
        let upload = tokio::spawn(async move {
            let mut stream = tokio::net::TcpStream::connect(front_address).await.unwrap();
            stream
                .write_all(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nping\r\n")
                .await
                .unwrap();
            let mut got = Vec::new();
            let mut piece = [0; 1024];
            while !got.windows(4).any(|window| window == b"ping") {
                let read = stream.read(&mut piece).await.unwrap();
                assert!(read > 0);
                got.extend_from_slice(&piece[..read]);
            }
            // Only after the echo of the first piece is the rest sent.
            stream.write_all(b"4\r\npong\r\n0\r\n\r\n").await.unwrap();
            while !got.ends_with(b"0\r\n\r\n") {
                let read = stream.read(&mut piece).await.unwrap();
                assert!(read > 0);
                got.extend_from_slice(&piece[..read]);
            }
            String::from_utf8(got).unwrap()
        });
        let (stream, _) = front.accept().await.unwrap();
        let relay = Arc::clone(&endpoint);
        let serving = tokio::spawn(serve_http1(stream, move |request| {
            let relay = Arc::clone(&relay);
            async move {
                let response = relay.send(passed_on(request), &call()).await.unwrap();
                response.map(|body| body.map_err(|error| panic!("{error}")).boxed())
            }
        }));
        let got = upload.await.unwrap();
        assert!(got.contains("pong"), "{got}");
        serving.await.unwrap();
        until("the connection is idle again", || endpoint.connections().idle == 1).await;
    }
    assert_eq!(seen.accepted(), 1);
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_the_clients_doing() {
    let (address, _seen) = http1(async |request: Request<_>| {
        let _broken_off = request.into_body().collect().await;
        answer("never read")
    })
    .await;
    let endpoint = endpoint(address, "");
    let (front, front_address) = listen().await;
    tokio::spawn(async move {
        let mut stream = tokio::net::TcpStream::connect(front_address).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
    });
    let (stream, _) = front.accept().await.unwrap();
    let relay = Arc::clone(&endpoint);
    let (failed, failure) = tokio::sync::mpsc::unbounded_channel();
    serve_http1(stream, move |request: Request<hyper::body::Incoming>| {
        let (relay, failed) = (Arc::clone(&relay), failed.clone());
        async move {
            let error = relay.send(passed_on(request), &call()).await.unwrap_err();
            failed.send(error.kind).unwrap();
            answer("")
        }
    })
    .await;
    let mut failure = failure;
    assert_eq!(failure.recv().await, Some(SendErrorKind::Sent(Sent::RequestBody)));
    until("all is given back", || is_at_rest(&endpoint)).await;
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
async fn a_websocket_handshake_takes_the_connection_over() {
    let (address, _seen) = http1(async |mut request: Request<_>| {
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
            let mut stream = hyper_util::rt::TokioIo::new(upgraded);
            let mut ping = [0; 4];
            stream.read_exact(&mut ping).await.unwrap();
            stream.write_all(&ping).await.unwrap();
        });
        let mut answer = answer("");
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        answer.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
        answer.headers_mut().insert(header::UPGRADE, "websocket".parse().unwrap());
        answer
    })
    .await;
    let endpoint = endpoint(address, "");
    let mut request = get("/");
    request.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
    request.headers_mut().insert(header::UPGRADE, "websocket".parse().unwrap());
    let response = endpoint.send(request, &call()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let upgraded = hyper::upgrade::on(response).await.unwrap();
    assert_eq!(endpoint.connections().open, 1, "an upgraded connection counts");
    let mut stream = hyper_util::rt::TokioIo::new(upgraded);
    stream.write_all(b"ping").await.unwrap();
    let mut pong = Vec::new();
    stream.read_to_end(&mut pong).await.unwrap();
    assert_eq!(pong, b"ping");
    drop(stream);
    until("all is given back", || is_at_rest(&endpoint)).await;
}

#[tokio::test]
async fn nginx_keeps_one_connection_for_many_calls_and_its_goodbye_is_not_an_error() {
    let place = tempfile::tempdir().unwrap();
    let address = crate::ports::free();
    let mut conf = std::fs::File::create(place.path().join("nginx.conf")).unwrap();
    write!(
        conf,
        "daemon off; master_process off; pid nginx.pid; error_log stderr; events {{}}
         http {{ access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
           server {{ listen {address}; keepalive_requests 50; location / {{ return 200 $connection; }} }} }}"
    )
    .unwrap();
    let mut nginx = tokio::process::Command::new("nginx")
        .arg("-p")
        .arg(place.path())
        .args(["-c", "nginx.conf", "-e", "stderr"])
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("nginx is installed for the tests");
    let endpoint = endpoint(address, "");
    let ready = async {
        while fetch(&endpoint, get("/")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, ready).await.expect("nginx starts");
    let mut connections = std::collections::BTreeSet::new();
    for _ in 0..200 {
        connections.insert(fetch(&endpoint, get("/")).await.unwrap());
    }
    assert!((4..=6).contains(&connections.len()), "{connections:?} for 200 calls at 50 a connection");
    nginx.kill().await.unwrap();
}

#[tokio::test]
async fn a_safe_call_goes_on_another_connection_when_a_reused_one_ends_without_a_word() {
    let (listener, address) = listen().await;
    let endpoint = endpoint(address, "");
    let server = tokio::spawn(async move {
        let mut heads = Vec::new();
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            // The next request is read, and the connection closed on it.
            let read = stream.read(&mut head).await.unwrap();
            heads.push(String::from_utf8_lossy(&head[..read]).into_owned());
        }
        heads
    });
    assert_eq!(fetch(&endpoint, get("/1")).await.unwrap(), "ok");
    assert_eq!(fetch(&endpoint, get("/2")).await.unwrap(), "ok");
    let error = fetch(&endpoint, post("/3", "body")).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Sent(Sent::Closed), "{error}");
    assert!(error.request.is_none(), "what is not safe is never sent twice");
    assert_eq!(fetch(&endpoint, get("/4")).await.unwrap(), "ok");
    drop(endpoint);
    let heads = server.await.unwrap();
    assert!(
        heads[0].starts_with("GET /2 ") && heads[1].starts_with("POST /3 ") && heads[2].is_empty(),
        "{heads:?}"
    );
}

#[tokio::test]
async fn a_safe_call_is_repeated_once_and_not_once_for_each_idle_connection() {
    let (listener, address) = listen().await;
    let endpoint = endpoint(address, "");
    let (heard, mut hearing) = tokio::sync::mpsc::unbounded_channel();
    let latch = Latch::closed();
    let go = latch.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (heard, go) = (heard.clone(), go.clone());
            tokio::spawn(async move {
                let mut head = [0; 4096];
                assert!(stream.read(&mut head).await.unwrap() > 0);
                go.opened().await;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                // Every later call is taken, and its connection closed on it.
                if stream.read(&mut head).await.unwrap() > 0 {
                    heard.send(()).unwrap();
                }
            });
        }
    });
    let calls = futures_util::future::join_all((0..8).map(|_| fetch(&endpoint, get("/"))));
    let (calls, ()) = tokio::join!(calls, async {
        until("eight connections", || endpoint.connections().open == 8).await;
        latch.open();
    });
    calls.into_iter().for_each(|call| assert_eq!(call.unwrap(), "ok"));
    assert_eq!(endpoint.connections().idle, 8);
    let error = fetch(&endpoint, get("/")).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Sent(Sent::Closed), "{error}");
    drop(endpoint);
    hearing.recv().await.unwrap();
    hearing.recv().await.unwrap();
    assert!(hearing.try_recv().is_err(), "the call was sent more than twice");
}
