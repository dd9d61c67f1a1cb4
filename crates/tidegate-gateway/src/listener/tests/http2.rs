use std::sync::atomic::Ordering::Relaxed;

use http::Version;
use tokio::{io::AsyncWriteExt as _, sync::mpsc, time::timeout};

use super::support::*;
use crate::listener::{Limits, ListenerStats};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `GET http://a/` in HPACK's static table.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'a'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `GET http://a/` and a path, in HPACK.
fn get_of(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, path.len() as u8];
    block.extend(path.as_bytes());
    block.extend([0x41, 1, b'a']);
    block
}

async fn raw(server: &Server) -> Client {
    let mut client = server.connect().await;
    client.say(PREFACE).await;
    client.say(frame(SETTINGS, 0, 0, &[])).await;
    client
}

/// Sends until the listener closes or all is sent.
async fn flood(client: Client, frames: impl Iterator<Item = Vec<u8>>) -> usize {
    let (mut read, mut write) = client.0.into_split();
    let reading = tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
    let mut sent = 0;
    for frame in frames {
        match timeout(EVENTUALLY, write.write_all(&frame)).await.expect("never stuck") {
            Ok(()) => sent += frame.len(),
            Err(_) => break,
        }
    }
    drop(write);
    let _ = timeout(EVENTUALLY, reading).await.expect("closed in time");
    sent
}

async fn is_well(server: &Server) {
    server.until_none_open().await;
    let mut client = server.connect().await;
    client.say(get("/")).await;
    client.hear("hello").await;
    drop(client);
    server.until_none_open().await;
}

#[tokio::test]
async fn prior_knowledge_speaks_http2_however_the_preface_is_cut() {
    let server = Server::start(Limits::default());
    let (mut send, _connection) = http2(server.connect().await.0).await;
    let response = send.send_request(request("/")).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(text(response).await, "hello");

    let mut client = server.connect().await;
    for byte in PREFACE {
        client.say([*byte]).await;
        tokio::task::yield_now().await;
    }
    client.say(frame(SETTINGS, 0, 0, &[])).await;
    client.say(frame(HEADERS, END_STREAM | END_HEADERS, 1, GET)).await;
    let mut heard = Vec::new();
    while !heard.ends_with(b"hello") {
        timeout(EVENTUALLY, tokio::io::AsyncReadExt::read_buf(&mut client.0, &mut heard))
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn a_method_that_begins_like_the_preface_is_http1() {
    let server = Server::start(Limits::default());
    let heard = server.say("PRI / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(heard.starts_with("HTTP/1.1 200 OK"), "{heard}");
    let heard = server.say("PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(heard.starts_with("HTTP/1.1 200 OK"), "{heard}");
}

#[tokio::test]
async fn a_rapid_reset_leaves_nothing_behind() {
    let (told, mut waiting) = mpsc::unbounded_channel();
    let answers = Answers { waiting: Some(told), ..Answers::default() };
    let server = Server::start_with(Limits::default(), answers, None, EVENTUALLY);
    let client = raw(&server).await;
    let resets = (0..50_000).map(|n| {
        let stream = 2 * n + 1;
        let mut pair = frame(HEADERS, END_STREAM | END_HEADERS, stream, &get_of("/wait"));
        pair.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
        pair
    });
    flood(client, resets).await;
    is_well(&server).await;
    let (mut begun, mut dropped) = (0, 0);
    while let Ok(told) = waiting.try_recv() {
        if told == "waiting" { begun += 1 } else { dropped += 1 }
    }
    assert_eq!(begun, dropped, "every call that began was dropped");
    assert_eq!(server.stats.protocol_errors.load(Relaxed), 1, "too many resets end the connection");
}

#[tokio::test]
async fn a_flood_of_continuations_ends_the_connection() {
    let server = Server::start(Limits::default());
    let client = raw(&server).await;
    let begin = std::iter::once(frame(HEADERS, END_STREAM, 1, GET));
    // A header field `x: y` without an index, again and again.
    let block = [0x00, 1, b'x', 1, b'y'].repeat(3000);
    let flood_of = begin.chain((0..10_000).map(move |_| frame(CONTINUATION, 0, 1, &block)));
    let sent = flood(client, flood_of).await;
    assert!(sent < 20 << 20, "cut after {sent} of 150 MB");
    is_well(&server).await;
    assert_eq!(server.seen(), ["GET /"], "only the one that asked whether it is well");
}

#[tokio::test]
async fn a_flood_of_empty_continuations_ends_the_connection() {
    let server = Server::start(Limits::default());
    let client = raw(&server).await;
    let begin = std::iter::once(frame(HEADERS, END_STREAM, 1, GET));
    let sent = flood(client, begin.chain((0..3_000_000).map(|_| frame(CONTINUATION, 0, 1, &[])))).await;
    assert!(sent < 20 << 20, "cut after {sent} of 27 MB");
    is_well(&server).await;
}

#[tokio::test]
async fn a_header_list_beyond_its_bound_is_refused() {
    let server = Server::start(Limits { header_bytes: 8192, ..Limits::default() });
    let (mut send, _connection) = http2(server.connect().await.0).await;
    let mut large = request("/");
    large.headers_mut().insert("x", "y".repeat(9000).parse().unwrap());
    let refused = send.send_request(large).await;
    assert!(refused.is_err() || refused.is_ok_and(|response| response.status() == 431));
    assert_eq!(server.seen(), [""; 0]);
}

#[tokio::test]
async fn no_more_streams_are_served_at_once_than_allowed() {
    let (told, mut waiting) = mpsc::unbounded_channel();
    let answers = Answers { waiting: Some(told), ..Answers::default() };
    let server = Server::start_with(Limits { streams: 2, ..Limits::default() }, answers, None, EVENTUALLY);
    let mut client = raw(&server).await;
    // A client that ignores what it was told.
    for n in 0..5 {
        client.say(frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &get_of("/wait"))).await;
    }
    assert_eq!((told_of(&mut waiting).await, told_of(&mut waiting).await), ("waiting", "waiting"));
    client.say(frame(PING, 0, 0, &[7; 8])).await;
    let heard = client.hear_bytes(&[7; 8]).await;
    assert_eq!(heard.windows(4).filter(|bytes| *bytes == [0, 0, 4, RST_STREAM]).count(), 3, "{heard:?}");
    drop(client);
    is_well(&server).await;
    assert_eq!(server.seen().iter().filter(|call| *call == "GET /wait").count(), 2);
}

#[tokio::test]
async fn a_host_that_differs_from_the_authority_is_400() {
    let server = Server::start(Limits::default());
    let (mut send, _connection) = http2(server.connect().await.0).await;
    let mut two = request("/");
    two.headers_mut().insert("host", "b".parse().unwrap());
    assert_eq!(send.send_request(two).await.unwrap().status(), 400);
    assert_eq!(server.seen(), [""; 0]);
}

#[tokio::test]
async fn a_client_that_breaks_http2_is_told_and_closed() {
    let server = Server::start(Limits::default());
    let mut client = raw(&server).await;
    client.say(frame(HEADERS, END_STREAM | END_HEADERS, 2, GET)).await;
    client.rest().await;
    is_well(&server).await;
    assert_eq!(server.stats.protocol_errors.load(Relaxed), 1);
}

#[tokio::test]
async fn a_client_that_leaves_drops_its_calls() {
    let (told, mut waiting) = mpsc::unbounded_channel();
    let answers = Answers { waiting: Some(told), ..Answers::default() };
    let server = Server::start_with(Limits::default(), answers, None, EVENTUALLY);
    let mut client = raw(&server).await;
    for n in 0..3 {
        client.say(frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &get_of("/wait"))).await;
        assert_eq!(told_of(&mut waiting).await, "waiting");
    }
    drop(client);
    for _ in 0..3 {
        assert_eq!(told_of(&mut waiting).await, "dropped");
    }
    server.until_none_open().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_connection_is_closed() {
    let server = Server::start(Limits { keep_alive: EVENTUALLY, ..hasty() });
    let mut client = raw(&server).await;
    // Windows without bound, so that only the socket holds it back.
    client.say(frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff])).await;
    client.say(frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000u32.to_be_bytes())).await;
    client.say(frame(HEADERS, END_STREAM | END_HEADERS, 1, &get_of("/large"))).await;
    server.until("closed", |stats: &ListenerStats| stats.slow_closed.load(Relaxed) == 1).await;
    server.until_none_open().await;
    drop(client);
}
