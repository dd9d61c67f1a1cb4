//! WebSocket and other upgrades through the gateway.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::{
    setup::to,
    support::{client, gateway::Gateway, raw::Raw, scripted::Scripted, within},
};

/// Sends back every message of its only connection.
async fn echo() -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.unwrap();
            }
        }
    });
    (addr, served)
}

async fn open(gateway: &Gateway) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(gateway.http()).await.unwrap();
    let request = format!("ws://{}/chat", gateway.http()).into_client_request().unwrap();
    within("the handshake", client_async(request, stream)).await.unwrap().0
}

#[tokio::test]
async fn messages_pass_both_ways_until_either_side_closes() {
    let (addr, served) = echo().await;
    let gateway = Gateway::start(&to(addr, "in_flight: { limit: 5 }")).await;
    let mut socket = open(&gateway).await;
    for size in [0, 5, 70_000, 1 << 20] {
        let message = Message::binary(vec![7; size]);
        socket.send(message.clone()).await.unwrap();
        assert_eq!(within("an echo", socket.next()).await.unwrap().unwrap(), message, "{size} bytes");
    }
    // The open tunnel is a call in flight.
    assert_eq!(gateway.state().await["upstreams"][0]["in_flight"]["in_flight"], 1);
    socket.close(None).await.unwrap();
    within("the close", async { while socket.next().await.is_some() {} }).await;
    within("the upstream's end", served).await.unwrap();
    drop(socket);
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_client_that_vanishes_closes_the_upstreams_side() {
    let (addr, served) = echo().await;
    let gateway = Gateway::start(&to(addr, "in_flight: { limit: 5 }")).await;
    let mut socket = open(&gateway).await;
    socket.send(Message::text("hello")).await.unwrap();
    within("an echo", socket.next()).await.unwrap().unwrap();
    drop(socket);
    within("the upstream's end", served).await.unwrap();
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn an_upgrade_that_the_upstream_declines_is_an_ordinary_answer() {
    let scripted = Scripted::start().await;
    let gateway = Gateway::start(&to(scripted.addr(), "")).await;
    let http = gateway.http();
    let call = tokio::spawn(async move {
        client::get_with(http, "/", &[("connection", "upgrade"), ("upgrade", "websocket")]).await
    });
    let mut upstream = scripted.accept().await;
    let head = upstream.head().await.to_lowercase();
    assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
    upstream.send("HTTP/1.1 426 Upgrade Required\r\ncontent-length: 2\r\n\r\nno").await;
    let answer = call.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (426, "no"));
    drop(upstream);
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn bytes_sent_along_with_the_switch_are_not_lost() {
    let scripted = Scripted::start().await;
    let gateway = Gateway::start(&to(scripted.addr(), "")).await;
    let mut raw = Raw::connect(gateway.http()).await;
    raw.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n").await;
    let mut upstream = scripted.accept().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\r\nearly")
        .await;
    assert!(raw.head().await.starts_with("HTTP/1.1 101"));
    assert_eq!(raw.bytes(5).await, b"early");
    raw.send("up").await;
    assert_eq!(upstream.bytes(2).await, b"up");
    upstream.finish().await;
    // A half-closed tunnel still carries the other way.
    assert!(raw.rest().await.is_empty());
    drop((raw, upstream));
    gateway.is_at_rest().await;
}
