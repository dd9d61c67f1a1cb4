//! Event streams and WebSockets: let in by a session, and ended with it.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _, protocol::frame::coding::CloseCode},
};

use super::*;
use crate::{support::within, tokens::shows_no_secret};

/// An upstream that sends an event at once and then one a second, for ever.
async fn ticking() -> Behind {
    let upstream = Upstream::start(|request| async move {
        if request.uri().path() != "/events" {
            return Response::new(client::whole("served"));
        }
        let ticks = stream::unfold(Duration::ZERO, |pause| async move {
            tokio::time::sleep(pause).await;
            let event = Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"data: tick\n\n")));
            Some((event, Duration::from_secs(1)))
        });
        let mut response = Response::new(client::body(StreamBody::new(ticks)));
        response.headers_mut().insert("content-type", "text/event-stream; charset=utf-8".parse().unwrap());
        response
    })
    .await;
    Behind { upstream, seen: Arc::default() }
}

/// Opens a stream of events, of which the first one came.
async fn events(browser: &Browser, gateway: &Gateway, fields: &[(&str, &str)]) -> Incoming {
    let mut request = client::request("GET", "/events").header("cookie", browser.cookie());
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let mut sender = client::http1(gateway.http()).await;
    let response = sender.send_request(request.body(client::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    let first = within("an event", body.frame()).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "data: tick\n\n");
    body
}

/// Reads to the end, which is an orderly one.
async fn ends(body: Incoming) {
    within("the end of the stream", body.collect()).await.expect("it ends, and is not broken");
}

async fn logged_in(gateway: &Gateway) -> Browser {
    let mut browser = Browser::default();
    assert_eq!(browser.logs_in(gateway, "/").await.status, StatusCode::OK);
    browser
}

#[tokio::test]
async fn a_stream_of_events_ends_with_its_session_on_whichever_gateway_that_is_ended() {
    let (idp, behind, redis) = (Idp::start().await, ticking().await, Redis::start(&[]));
    let store = patient(&redis);
    let mut first = gateway(&behind, idp.issuer(), "", &store).await;
    let second = gateway(&behind, idp.issuer(), "", &store).await;
    let (ann, mut other) = (logged_in(&first).await, logged_in(&first).await);
    let accept = [("accept", "text/event-stream")];
    let streams = [events(&ann, &first, &accept).await, events(&ann, &second, &[]).await];
    let mut others = events(&other, &first, &accept).await;
    assert_eq!(ann.clone().goes(&second, "/oauth2/logout").await.status, StatusCode::SEE_OTHER);
    for body in streams {
        ends(body).await;
    }
    // Nobody else's stream is touched.
    within("an event", others.frame()).await.unwrap().unwrap();
    assert_eq!(other.fetches(&second, "/").await.status, StatusCode::OK);
    let without = Browser::default().sends(&first, "GET", "/events", &accept).await;
    assert_eq!(without.status, StatusCode::UNAUTHORIZED, "a stream needs a session as anything else does");
    shows_no_secret(&mut first, &secrets(&idp, &[&ann, &other])).await;
}

#[tokio::test]
async fn a_stream_keeps_its_session_in_use_and_ends_when_that_is_too_old() {
    let (idp, behind) = (Idp::start().await, ticking().await);
    let gateway = gateway(&behind, idp.issuer(), "idle: 8s\nabsolute: 14s", "memory://").await;
    let mut ann = logged_in(&gateway).await;
    let mut body = events(&ann, &gateway, &[]).await;
    // For longer than a session lasts that nobody uses.
    for _ in 0..10 {
        within("an event", body.frame()).await.unwrap().unwrap();
    }
    assert_eq!(ann.fetches(&gateway, "/").await.status, StatusCode::OK);
    ends(body).await;
    assert_eq!(ann.fetches(&gateway, "/").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_stream_ends_when_a_refresh_brings_somebody_elses_tokens() {
    let (idp, behind) = (Idp::start().await, ticking().await);
    let gateway = gateway(&behind, idp.issuer(), "", "memory://").await;
    idp.life(3);
    let ann = logged_in(&gateway).await;
    let body = events(&ann, &gateway, &[]).await;
    idp.claims(json!({ "sub": "mallory" }));
    // Nobody else calls: the stream itself has the session refreshed.
    ends(body).await;
    assert_eq!(idp.counts().granted, 2);
    assert_eq!(ann.clone().fetches(&gateway, "/").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_stream_goes_on_while_the_provider_is_away() {
    let (idp, behind) = (Idp::start().await, ticking().await);
    let gateway = gateway(&behind, idp.issuer(), "max_wait: 200ms", "memory://").await;
    idp.life(3);
    let mut ann = logged_in(&gateway).await;
    let mut body = events(&ann, &gateway, &[]).await;
    idp.always(crate::support::idp::Does::Fails(503, None));
    crate::support::eventually("the token being over", async || {
        ann.fetches(&gateway, "/").await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    for _ in 0..3 {
        within("an event", body.frame()).await.unwrap().unwrap();
    }
}

/// Sends back every message of every connection.
async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

async fn open(gateway: &Gateway, cookie: &str) -> Result<WebSocketStream<TcpStream>, Error> {
    let stream = TcpStream::connect(gateway.http()).await.unwrap();
    let mut request = format!("ws://{}/chat", gateway.http()).into_client_request().unwrap();
    request.headers_mut().insert("cookie", cookie.parse().unwrap());
    within("the handshake", client_async(request, stream)).await.map(|(socket, _)| socket)
}

#[tokio::test]
async fn a_websocket_is_closed_with_a_word_when_its_session_ends() {
    let (idp, behind, addr) = (Idp::start().await, Behind::start().await, echo().await);
    let gateway = of(|| {
        let chat = format!(
            "  chat:\n    endpoints: [\"http://{addr}\"]\nroutes:\n  - {{ upstream: chat, match: {{ path: /chat }}, session: idp }}\n"
        );
        config(&behind, idp.issuer(), "", "memory://").replace("routes:\n", &chat)
    })
    .await;
    let refused = open(&gateway, "tidegate=nothing").await.unwrap_err();
    assert!(
        matches!(&refused, Error::Http(answer) if answer.status() == StatusCode::UNAUTHORIZED),
        "{refused}"
    );
    let (mut ann, bob) = (logged_in(&gateway).await, logged_in(&gateway).await);
    let mut socket = open(&gateway, &ann.cookie()).await.unwrap();
    let mut others = open(&gateway, &bob.cookie()).await.unwrap();
    for socket in [&mut socket, &mut others] {
        socket.send(Message::text("x".repeat(70_000))).await.unwrap();
        assert_eq!(within("an echo", socket.next()).await.unwrap().unwrap().len(), 70_000);
    }
    assert_eq!(ann.goes(&gateway, "/oauth2/logout").await.status, StatusCode::SEE_OTHER);
    let last = within("the end", socket.next()).await.unwrap().unwrap();
    let Message::Close(Some(why)) = last else { panic!("{last:?}") };
    assert_eq!((why.code, why.reason.as_str()), (CloseCode::Policy, "the session is over: log in again"));
    others.send(Message::text("still here")).await.unwrap();
    assert_eq!(within("an echo", others.next()).await.unwrap().unwrap(), Message::text("still here"));
    drop((socket, others));
    gateway.is_at_rest().await;
}
