//! HTTP/1.1: bodies both ways, calls given up, and connections taken over.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    super::{SendErrorKind, Sent},
    server::*,
};
use crate::body::RequestBody;

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
        let serving = tokio::spawn(serve_http1(stream, move |request| relayed(Arc::clone(&relay), request)));
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
