//! HTTP/1.1: connections that serve call after call, and what their end costs.

use std::{io::Write, time::Duration};

use http::Request;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    super::{SendErrorKind, Sent},
    server::*,
};

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
