//! HTTP/2: what a peer refuses, resets or never understood, and what is then given back.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use h2::Reason;
use http::{Request, Response, header};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    super::{SendErrorKind, Sent, Unsent},
    server::*,
};

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
