use std::sync::atomic::Ordering::Relaxed;

use tokio::{io::AsyncWriteExt as _, time::timeout};

use super::support::*;
use crate::listener::{Limits, Listener};

#[tokio::test]
async fn one_connection_answers_request_after_request() {
    let server = Server::start(Limits::default());
    let mut client = server.connect().await;
    for _ in 0..3 {
        client.say(get("/")).await;
        assert!(client.hear("hello").await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
    assert_eq!(server.stats.accepted.load(Relaxed), 1);
    drop(client);
    server.until_none_open().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(Limits::default());
    let body = "POST /collect HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let chunked =
        "POST /collect HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    let last = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let heard = server.say(format!("{}{body}{chunked}{last}", get("/"))).await;
    assert_eq!(heard.matches("HTTP/1.1 200 OK").count(), 4, "{heard}");
    assert_eq!(server.seen(), ["GET /", "POST /collect", "POST /collect", "GET /"]);
    let bodies: Vec<_> = heard.split("\r\n\r\n").skip(1).map(|part| part.as_bytes()[0]).collect();
    assert_eq!(bodies, *b"h32h");
}

#[tokio::test]
async fn a_head_beyond_its_bounds_is_431_and_the_connection_closes() {
    let server = Server::start(Limits { header_bytes: 8192, header_count: 20, ..Limits::default() });
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "y".repeat(9000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(21));
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}", "y".repeat(20_000));
    for head in [large, many, endless] {
        let heard = server.say(&head).await;
        assert!(heard.starts_with("HTTP/1.1 431 "), "{heard:?}");
    }
    assert_eq!(server.seen(), [""; 0]);
    server.until_none_open().await;
    assert_eq!(server.stats.protocol_errors.load(Relaxed), 3);
}

#[tokio::test]
async fn a_client_that_asked_to_continue_is_told_to() {
    let server = Server::start(Limits::default());
    let mut client = server.connect().await;
    client
        .say("POST /collect HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        .await;
    assert_eq!(client.hear("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.say("abc").await;
    assert!(client.hear("\r\n\r\n3").await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn connections_beyond_the_bound_are_closed_and_counted_until_one_ends() {
    let server = Server::start(Limits { connections: 2, ..Limits::default() });
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = server.connect().await;
        client.say(get("/")).await;
        client.hear("hello").await;
        held.push(client);
    }
    assert_eq!(server.say(get("/")).await, "");
    assert_eq!((server.stats.refused.load(Relaxed), server.stats.open.load(Relaxed)), (1, 2));
    held.pop();
    server.until("one open", |stats| stats.open.load(Relaxed) == 1).await;
    let mut client = server.connect().await;
    client.say(get("/")).await;
    client.hear("hello").await;
    // More may be allowed while it runs.
    server.limits.store(std::sync::Arc::new(Limits::default()));
    let mut third = server.connect().await;
    third.say(get("/")).await;
    third.hear("hello").await;
}

#[tokio::test]
async fn an_upgraded_connection_is_a_tunnel_that_counts_until_it_ends() {
    let server = Server::start(hasty());
    let mut client = server.connect().await;
    client.say("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await;
    assert!(client.hear("\r\n\r\n").await.starts_with("HTTP/1.1 101 "));
    // Nothing that a tunnel carries is HTTP.
    client.say("\n\nGET / HTTP/1.1\n\n").await;
    assert_eq!(client.hear("HTTP/1.1\n\n").await, "\n\nGET / HTTP/1.1\n\n");
    assert_eq!(server.stats.open.load(Relaxed), 1);
    drop(client);
    server.until_none_open().await;
}

#[tokio::test]
async fn a_refused_upgrade_leaves_the_connection_to_http() {
    let server = Server::start(Limits::default());
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n").await;
        assert!(client.hear("hello").await.starts_with("HTTP/1.1 200 OK"));
    }
    client.say("GET / HTTP/1.1\nHost: a\n\n").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 400 "), "strict again");
}

#[tokio::test]
async fn a_panic_in_the_handler_costs_its_connection_alone() {
    let server = Server::start(Limits::default());
    let mut other = server.connect().await;
    other.say(get("/")).await;
    other.hear("hello").await;
    assert_eq!(server.say(get("/panic")).await, "");
    other.say(get("/")).await;
    other.hear("hello").await;
    drop(other);
    server.until_none_open().await;
}

#[tokio::test]
async fn a_client_may_read_an_answer_that_came_before_it_had_sent_its_body() {
    let server = Server::start(Limits::default());
    let mut client = server.connect().await;
    client.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n").await;
    assert!(client.rest().await.ends_with("hello"));
    // The listener has closed its end; what still comes must not reset the connection, which would throw away what
    // the client has not read yet.
    for _ in 0..50 {
        timeout(EVENTUALLY, client.0.write_all(&[b'x'; 10_000])).await.unwrap().expect("not reset");
    }
    drop(client);
    server.until_none_open().await;
}

#[test]
fn an_address_that_cannot_be_had_says_which_and_why_and_what_to_do() {
    let taken = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let error = Listener::bind(taken.addr()).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot listen on {}: Address already in use", taken.addr())),
        "{error}"
    );
    assert!(error.ends_with("; another process has it: stop that one or choose another port"), "{error}");
    let error = Listener::bind(([192, 0, 2, 1], 0).into()).unwrap_err().to_string();
    assert!(error.contains("not an address of this machine"), "{error}");
}
