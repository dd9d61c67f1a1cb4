use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use tokio::{io::AsyncReadExt as _, time::interval};

use super::support::*;
use crate::listener::Limits;

/// Says bytes one at a time, far apart, until the listener has had enough; says how long that took.
async fn trickle(client: &mut Client, bytes: &[u8], pause: Duration) -> Duration {
    let began = Instant::now();
    let mut ticks = interval(pause);
    let mut byte = [0];
    for next in bytes.iter().cycle() {
        client.say([*next]).await;
        tokio::select! {
            read = client.0.read(&mut byte) => {
                assert!(matches!(read, Ok(0) | Err(_)), "nothing to say to a slow client");
                return began.elapsed();
            }
            _ = ticks.tick() => assert!(began.elapsed() < EVENTUALLY, "never cut"),
        }
    }
    unreachable!("bytes without end")
}

#[tokio::test]
async fn a_request_head_that_takes_too_long_is_cut() {
    let server = Server::start(hasty());
    let mut client = server.connect().await;
    client.say("GET / HTTP/1.1\r\nx: ").await;
    let took = trickle(&mut client, b"y", Duration::from_millis(20)).await;
    assert!(took >= hasty().header_timeout - Duration::from_millis(20), "{took:?}");
    server.until_none_open().await;
    assert_eq!(server.stats.slow_closed.load(Relaxed), 1);
}

#[tokio::test]
async fn a_later_request_head_that_takes_too_long_is_cut_too() {
    let server = Server::start(Limits { keep_alive: EVENTUALLY, ..hasty() });
    let mut client = server.connect().await;
    client.say(get("/")).await;
    client.hear("hello").await;
    // Whether it rests already makes no difference.
    server.until("resting", |stats| stats.resting.load(Relaxed) == 1).await;
    client.say("GET / HTTP/1.1\r\nx: ").await;
    trickle(&mut client, b"y", Duration::from_millis(20)).await;
    server.until_none_open().await;
    assert_eq!(server.stats.slow_closed.load(Relaxed), 1);
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed_after_the_header_timeout() {
    let server = Server::start(Limits { keep_alive: EVENTUALLY, ..hasty() });
    let began = Instant::now();
    assert_eq!(server.connect().await.rest().await, "");
    assert!(began.elapsed() >= hasty().header_timeout);
    assert_eq!(server.stats.idle_closed.load(Relaxed), 1);
}

#[tokio::test]
async fn half_a_preface_is_not_waited_for_longer_than_a_head() {
    let server = Server::start(hasty());
    assert_eq!(server.say("PRI * HTTP/2.0\r\n").await, "");
    assert_eq!(server.stats.slow_closed.load(Relaxed), 1);
}

#[tokio::test]
async fn an_idle_connection_outlives_the_header_timeout_and_ends_with_keep_alive() {
    for quiet in [Duration::from_millis(50), EVENTUALLY] {
        let server = Server::start(Limits { quiet, ..hasty() });
        let mut client = server.connect().await;
        client.say(get("/")).await;
        client.hear("hello").await;
        let answered = Instant::now();
        assert_eq!(client.rest().await, "");
        let took = answered.elapsed();
        assert!(took >= hasty().keep_alive - Duration::from_millis(50), "{took:?}");
        server.until_none_open().await;
        assert_eq!((server.stats.idle_closed.load(Relaxed), server.stats.slow_closed.load(Relaxed)), (1, 0));
    }
}

#[tokio::test]
async fn a_connection_that_gave_its_buffers_back_still_answers() {
    let server = Server::start(Limits { keep_alive: EVENTUALLY, ..hasty() });
    let mut client = server.connect().await;
    for _ in 0..3 {
        client.say(get("/")).await;
        client.hear("hello").await;
        server.until("resting", |stats| stats.resting.load(Relaxed) == 1).await;
    }
    client.say("GET / HTTP/1.1\nHost: a\n\n").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 400 "), "still strict");
    assert_eq!(server.stats.accepted.load(Relaxed), 1);
}

#[tokio::test]
async fn a_request_body_that_comes_too_slowly_is_cut() {
    let server = Server::start(Limits { min_body_rate: 1000, ..hasty() });
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let mut client = server.connect().await;
        client.say(format!("POST /collect HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")).await;
        trickle(&mut client, b"1\r\nx\r\n", Duration::from_millis(20)).await;
    }
    server.until_none_open().await;
    assert_eq!(server.stats.slow_closed.load(Relaxed), 2);
}

#[tokio::test]
async fn a_request_body_that_comes_steadily_may_take_its_time() {
    let server = Server::start(Limits { min_body_rate: 100, ..hasty() });
    let mut client = server.connect().await;
    client.say("POST /collect HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").await;
    let mut ticks = interval(Duration::from_millis(50));
    for _ in 0..20 {
        client.say([b'x'; 50]).await;
        ticks.tick().await;
    }
    assert!(client.hear("\r\n\r\n1000").await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(server.stats.slow_closed.load(Relaxed), 0);
}

#[tokio::test]
async fn a_handler_that_takes_long_is_not_the_clients_fault() {
    let server = Server::start(hasty());
    let mut client = server.connect().await;
    client.say("POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
    client.say([b'x'; 100_000]).await;
    // Longer than every bound on a client.
    let longest = hasty().keep_alive * 2;
    assert!(tokio::time::timeout(longest, client.0.readable()).await.is_err());
    server.answers.go_on.notify_one();
    client.hear("waited").await;
}

#[tokio::test]
async fn a_client_that_stops_reading_is_closed() {
    let server = Server::start(hasty());
    let mut client = server.connect().await;
    client.say(get("/large")).await;
    client.hear("\r\n\r\n").await;
    server.until_none_open().await;
    assert_eq!(server.stats.slow_closed.load(Relaxed), 1);
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_it_all() {
    let server = Server::start(hasty());
    let mut client = server.connect().await;
    client.say(get("/large")).await;
    client.hear("\r\n\r\n").await;
    let (mut ticks, mut read, mut buf) = (interval(Duration::from_millis(100)), 0, vec![0; 8 << 20]);
    while read < 64 << 20 {
        ticks.tick().await;
        let mut piece = 0;
        while piece < buf.len() && read + piece < 64 << 20 {
            let came = client.0.read(&mut buf[piece..]).await.unwrap();
            assert_ne!(came, 0, "cut after {read}");
            piece += came;
        }
        read += piece;
    }
    assert_eq!(server.stats.slow_closed.load(Relaxed), 0);
}

#[tokio::test]
async fn an_idle_http2_connection_is_told_and_closed_after_keep_alive() {
    let server = Server::start(hasty());
    let (mut send, connection) = http2(server.connect().await.0).await;
    assert_eq!(text(send.send_request(request("/")).await.unwrap()).await, "hello");
    let answered = Instant::now();
    // A GOAWAY without an error ends the client's side well.
    tokio::time::timeout(EVENTUALLY, connection).await.unwrap().unwrap().unwrap();
    assert!(answered.elapsed() >= hasty().keep_alive - Duration::from_millis(50));
    server.until_none_open().await;
}
