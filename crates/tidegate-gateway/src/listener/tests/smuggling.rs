use std::sync::atomic::Ordering::Relaxed;

use super::support::*;
use crate::listener::Limits;

/// Requests that two readers could understand differently, each followed by what a smuggler would hide behind it.
const SHAPES: &[(&str, &str)] = &[
    (
        "CL.TE",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    ),
    ("TE.CL", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n"),
    ("CL.CL", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    ("CL list", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello"),
    ("CL sign", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello"),
    ("CL hex", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello"),
    ("CL overflow", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\nh"),
    ("CL empty", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n"),
    (
        "TE.TE",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    ),
    ("chunked not last", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    ("unknown coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("TE quoted", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    ("TE vertical tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("TE in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("blank before colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello"),
    ("blank before TE colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("blank before first name", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    ("obs-fold", "GET / HTTP/1.1\r\nHost: a\r\nx: y\r\n z\r\n\r\n"),
    ("obs-fold of TE", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("bare LF in the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n"),
    ("bare LF in a header", "GET / HTTP/1.1\r\nHost: a\nx: y\r\n\r\n"),
    ("bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n"),
    ("bare LF before", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("bare CR", "GET / HTTP/1.1\r\nHost: a\rx: y\r\n\r\n"),
    ("NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nx: y\0z\r\n\r\n"),
    ("NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nx\0: y\r\n\r\n"),
    ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding chunked\r\n\r\n"),
    ("empty name", "GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n"),
    ("no version", "GET /\r\nHost: a\r\n\r\n"),
    ("unknown version", "GET / HTTP/9.9\r\nHost: a\r\n\r\n"),
    ("two blanks in the request line", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("blank in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("not HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n"),
    ("no host", "GET / HTTP/1.1\r\n\r\n"),
    ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
];

#[tokio::test]
async fn a_request_that_could_be_read_in_two_ways_is_400_and_ends_the_connection() {
    let server = Server::start(Limits::default());
    for (name, shape) in SHAPES {
        // Whole, and cut in two in the middle, as networks do.
        for cut in [0, shape.len() / 2] {
            let mut client = server.connect().await;
            client.say(&shape[..cut]).await;
            client.say(&shape[cut..]).await;
            // A second request that a lax reader would answer, but for those that are refused as HTTP of their own.
            let closing = if name.contains("host") { "Connection: close\r\n" } else { "" };
            client.say(format!("GET /smuggled HTTP/1.1\r\nHost: a\r\n{closing}\r\n")).await;
            let heard = client.rest().await;
            assert!(
                heard.starts_with("HTTP/1.1 400 ") || heard.starts_with("HTTP/1.0 400 "),
                "{name}: {heard:?}"
            );
            let after = if name.contains("host") { 1 } else { 0 };
            assert_eq!(heard.matches("HTTP/1.1 200").count(), after, "{name}: {heard:?}");
        }
    }
    let seen = server.seen();
    assert!(seen.iter().all(|call| call == "GET /smuggled"), "only whole requests were handed on: {seen:?}");
    assert_eq!(seen.len(), 4, "after requests without a host the connection is still in order");
    server.until_none_open().await;
    assert_eq!(server.stats.protocol_errors.load(Relaxed) as usize, (SHAPES.len() - 2) * 2);
}

#[tokio::test]
async fn a_chunked_body_that_could_be_read_in_two_ways_ends_in_an_error_and_ends_the_connection() {
    let server = Server::start(Limits::default());
    for (name, body) in [
        ("bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
        ("bare LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("bare LF after a chunk", "5\r\nhello\n0\r\n\r\n"),
        ("chunk longer than its size", "5\r\nhelloX\r\n0\r\n\r\n"),
        ("negative", "-5\r\nhello\r\n0\r\n\r\n"),
        ("prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("overflow", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("almost overflow", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("empty size", "\r\nhello\r\n0\r\n\r\n"),
        ("bare LF in the trailers", "5\r\nhello\r\n0\r\nx: y\n\r\n"),
        ("bare LF at the end", "5\r\nhello\r\n0\r\n\n"),
    ] {
        let head = "POST /collect HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let heard = server.say(format!("{head}{body}{}", get("/smuggled"))).await;
        assert!(heard.starts_with("HTTP/1.1 400 "), "{name}: {heard:?}");
        assert_eq!(heard.matches("HTTP/1.1 ").count(), 1, "{name}: {heard:?}");
    }
    assert!(server.seen().iter().all(|call| call == "POST /collect"), "{:?}", server.seen());
    server.until_none_open().await;
}

#[tokio::test]
async fn what_comes_after_a_request_for_another_protocol_is_not_answered_as_http() {
    let server = Server::start(Limits::default());
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let heard = server.say(format!("{upgrade}{}", get("/smuggled"))).await;
    assert_eq!(heard.matches("HTTP/1.1 200").count(), 1, "{heard}");
    assert!(heard.contains("connection: close"), "{heard}");
    assert_eq!(server.seen(), ["GET /"]);
}

#[tokio::test]
async fn a_pipelined_ambiguous_request_is_refused_after_the_one_before_it_is_answered() {
    let server = Server::start(Limits::default());
    let heard = server.say(format!("{}GET /smuggled HTTP/1.1\nHost: a\n\n", get("/"))).await;
    assert!(heard.starts_with("HTTP/1.1 200 ") && heard.contains("helloHTTP/1.1 400 "), "{heard}");
    assert_eq!(server.seen(), ["GET /"]);
}
