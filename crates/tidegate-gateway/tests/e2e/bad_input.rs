//! What nobody should send, and somebody does: each gets a clear answer or a closed connection, and nothing leaks.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;

use crate::{
    setup::to,
    support::{client, gateway::Gateway, raw::Raw, scripted::Scripted, upstream::Upstream, within},
};

const LIMITED: &str = "in_flight: { limit: 5, queue: 0 }";

async fn hello() -> Upstream {
    Upstream::start(|_| async { Response::new(client::whole("hello")) }).await
}

/// The status of the first answer in what a server said; 0 when it said nothing.
fn status(said: &str) -> u16 {
    said.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// How many answers there are in what a server said.
fn answers(said: &str) -> usize {
    said.matches("HTTP/1.1 ").count()
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_never_reaches_the_upstream() {
    let upstream = hello().await;
    let gateway = Gateway::start(&to(upstream.addr(), LIMITED)).await;
    for nonsense in [
        "nonsense\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nbad name: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\x00b\r\n\r\n",
        "GET / HTTP/9.9\r\nhost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: u@a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET http://u:p@a/ HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\n",
        "GET /../../etc/passwd HTTP/1.1\r\nhost: a\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03 a TLS hello\r\n\r\n",
    ] {
        let mut raw = Raw::connect(gateway.http()).await;
        raw.try_send(nonsense).await;
        raw.finish().await;
        let said = String::from_utf8_lossy(&raw.rest().await).into_owned();
        assert!(said.is_empty() || (400..=505).contains(&status(&said)), "{nonsense:?} got {said:?}");
    }
    gateway.is_at_rest().await;
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn shapes_of_request_smuggling_reach_the_upstream_as_one_call_or_none() {
    let gateway_and_upstream = async || {
        let upstream =
            Upstream::start(|request| async move { Response::new(client::body(request.into_body())) }).await;
        (Gateway::start(&to(upstream.addr(), LIMITED)).await, upstream)
    };
    let (gateway, upstream) = gateway_and_upstream().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    for (name, head, body) in [
        ("CL.TE", "content-length: 4\r\ntransfer-encoding: chunked\r\n", format!("0\r\n\r\n{smuggled}")),
        ("TE.CL", "transfer-encoding: chunked\r\ncontent-length: 4\r\n", format!("0\r\n\r\n{smuggled}")),
        ("two lengths", "content-length: 5\r\ncontent-length: 50\r\n", format!("hello{smuggled}")),
        ("a list of lengths", "content-length: 5, 50\r\n", format!("hello{smuggled}")),
        ("TE unknown", "transfer-encoding: xchunked\r\n", format!("0\r\n\r\n{smuggled}")),
        (
            "TE twice",
            "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
            format!("0\r\n\r\n{smuggled}"),
        ),
        ("TE not last", "transfer-encoding: chunked, gzip\r\n", format!("0\r\n\r\n{smuggled}")),
        (
            "TE with a tab before the colon",
            "transfer-encoding\t: chunked\r\n",
            format!("0\r\n\r\n{smuggled}"),
        ),
        (
            "TE with a space before the colon",
            "transfer-encoding : chunked\r\n",
            format!("0\r\n\r\n{smuggled}"),
        ),
        ("TE folded", "x: y\r\n transfer-encoding: chunked\r\n", format!("0\r\n\r\n{smuggled}")),
        ("TE folded value", "transfer-encoding:\r\n chunked\r\n", format!("0\r\n\r\n{smuggled}")),
        ("length with a plus", "content-length: +5\r\n", format!("hello{smuggled}")),
        ("chunk size too large", "transfer-encoding: chunked\r\n", "fffffffffffffffff\r\nx".to_owned()),
        ("chunk size with nonsense", "transfer-encoding: chunked\r\n", "5x\r\nhello\r\n0\r\n\r\n".to_owned()),
        ("chunk with bare LF", "transfer-encoding: chunked\r\n", format!("5\nhello\n0\n\n{smuggled}")),
    ] {
        let before = upstream.calls();
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\n{head}\r\n{body}");
        let mut raw = Raw::connect(gateway.http()).await;
        raw.try_send(request).await;
        raw.finish().await;
        let said = String::from_utf8_lossy(&raw.rest().await).into_owned();
        assert!(answers(&said) <= 1, "{name}: {said:?}");
        assert!(said.is_empty() || (400..=501).contains(&status(&said)), "{name}: {said:?}");
        // A broken body may be found out only when its call is already on its way, but never as a second one.
        assert!(
            upstream.calls() - before <= 1,
            "{name} reached the upstream as {} calls",
            upstream.calls() - before
        );
    }
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn the_host_that_was_routed_is_the_host_that_is_asked_for() {
    let scripted = Scripted::start().await;
    let gateway = Gateway::start(&to(scripted.addr(), LIMITED)).await;
    let mut client = Raw::connect(gateway.http()).await;
    let mut upstream = None;
    for (target, host) in [("http://public.test/a", "admin.test"), ("/a", "public.test")] {
        client.send(format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        let upstream = match &mut upstream {
            Some(upstream) => upstream,
            none => none.insert(scripted.accept().await),
        };
        let head = upstream.head().await;
        assert!(head.starts_with("GET /a HTTP/1.1\r\nhost: public.test\r\n"), "{head}");
        assert!(!head.contains("admin.test"), "{head}");
        upstream.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 204"));
    }
    drop(client);
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn no_tunnel_to_http_leads_past_the_guards() {
    let scripted = Scripted::start().await;
    let gateway = Gateway::start(&to(scripted.addr(), LIMITED)).await;
    for (upgrade, version) in [("h2c", 1), ("websocket, h2c", 1), ("HTTP/2.0", 1), ("websocket", 0)] {
        let mut client = Raw::connect(gateway.http()).await;
        client
            .send(format!(
                "GET / HTTP/1.{version}\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: {upgrade}\r\n\
                 http2-settings: AAMAAABkAAQAAP__\r\n\r\n"
            ))
            .await;
        let mut upstream = scripted.accept().await;
        let head = upstream.head().await;
        assert!(!head.contains("upgrade") && !head.contains("http2-settings"), "{head}");
        // Even an upstream that switches unasked opens nothing.
        upstream.send(format!("HTTP/1.1 101 Switching Protocols\r\nupgrade: {upgrade}\r\n\r\n")).await;
        let said = client.head().await;
        assert_eq!(status(&said), 502, "{said}");
    }
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_line_that_ends_in_a_bare_line_feed_is_no_way_around_a_field() {
    let upstream = hello().await;
    let gateway = Gateway::start(&to(upstream.addr(), LIMITED)).await;
    // RFC 9112 §2.2 lets a server take a bare LF as a line's end. Either way it is one request, with a body of 5.
    let said = Raw::exchange(
        gateway.http(),
        "POST / HTTP/1.1\nhost: a\nconnection: close\ncontent-length: 5\n\nhello",
    )
    .await;
    assert!(answers(&said) == 1 && matches!(status(&said), 200 | 400), "{said:?}");
    assert!(upstream.calls() <= 1);
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn heads_larger_than_their_bounds_are_refused() {
    let upstream = hello().await;
    let config =
        format!("bounds: {{ header_bytes: 16KiB, header_count: 20 }}\n{}", to(upstream.addr(), LIMITED));
    let gateway = Gateway::start(&config).await;
    let large = format!("x-large: {}\r\n", "x".repeat(20 << 10));
    let many: String = (0..30).map(|n| format!("x-{n}: 1\r\n")).collect();
    let target = "x".repeat(20 << 10);
    for request in [
        format!("GET / HTTP/1.1\r\nhost: a\r\n{large}\r\n"),
        format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"),
        format!("GET /{target} HTTP/1.1\r\nhost: a\r\n\r\n"),
    ] {
        let said = Raw::exchange(gateway.http(), request).await;
        assert!(said.is_empty() || matches!(status(&said), 414 | 431 | 400), "{said:?}");
    }
    let mut sender = client::http2(gateway.http()).await;
    let request =
        client::request2("GET", "/").header("x-large", "x".repeat(20 << 10)).body(client::empty()).unwrap();
    match within("an answer", sender.send_request(request)).await {
        Ok(answer) => assert!(answer.status().is_client_error(), "{}", answer.status()),
        Err(error) => assert!(!error.is_timeout()),
    }
    drop(sender);
    gateway.is_at_rest().await;
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn a_client_too_slow_with_its_head_is_closed() {
    let upstream = hello().await;
    let config = format!("bounds: {{ header_timeout: 200ms }}\n{}", to(upstream.addr(), LIMITED));
    let gateway = Gateway::start(&config).await;
    for start in ["", "GET / HTTP/1.1\r\nhost:", "PRI * HTTP/2.0\r\n\r\n"] {
        let mut raw = Raw::connect(gateway.http()).await;
        raw.send(start).await;
        let said = String::from_utf8_lossy(&raw.rest().await).into_owned();
        assert!(!said.contains("200"), "{start:?} got {said:?}");
    }
    gateway.is_at_rest().await;
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn a_client_too_slow_with_its_body_gives_its_permit_back() {
    let scripted = Scripted::start().await;
    let gateway = Gateway::start(&to(scripted.addr(), &format!("{LIMITED}\nidle_timeout: 1s"))).await;
    let mut raw = Raw::connect(gateway.http()).await;
    raw.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nonly so much").await;
    let mut upstream = scripted.accept().await;
    upstream.head().await;
    let said = String::from_utf8_lossy(&raw.rest().await).into_owned();
    assert!(said.is_empty() || matches!(status(&said), 408 | 504), "{said:?}");
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_body_that_trickles_is_cut_over_either_version() {
    let upstream = Upstream::start(|request| async {
        let _read = http_body_util::BodyExt::collect(request.into_body()).await;
        Response::new(client::whole("read"))
    })
    .await;
    let settings = format!("{LIMITED}\nidle_timeout: 500ms");
    let config = format!("bounds: {{ min_body_rate: 10KiB }}\n{}", to(upstream.addr(), &settings));
    let gateway = Gateway::start(&config).await;
    // Never silent for long, and never enough.
    let trickle = || {
        let bytes = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"drop"))), ()))
        });
        client::body(StreamBody::new(bytes))
    };
    let one = client::send(gateway.http(), client::request("POST", "/").body(trickle()).unwrap()).await;
    let two = client::send2(gateway.http(), client::request2("POST", "/").body(trickle()).unwrap()).await;
    assert_eq!((one.status.as_u16(), two.status.as_u16()), (408, 408));
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut_in_the_end() {
    let upstream = Upstream::start(|_| async {
        let endless = futures_util::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&[7; 65536])))
        });
        Response::new(client::body(StreamBody::new(endless)))
    })
    .await;
    let gateway = Gateway::start(&to(upstream.addr(), &format!("{LIMITED}\nidle_timeout: 1s"))).await;
    let mut one = Raw::connect(gateway.http()).await;
    one.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    one.head().await;
    let mut two = client::http2(gateway.http()).await;
    let request = client::request2("GET", "/").body(client::empty()).unwrap();
    let unread = within("a head", two.send_request(request)).await.unwrap();
    // Both hold their permit, and neither reads on.
    gateway
        .state_is("the permits coming back", |state| state["upstreams"][0]["in_flight"]["in_flight"] == 0)
        .await;
    drop((one, two, unread));
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn clients_that_vanish_at_any_moment_leave_nothing_behind() {
    let upstream = Upstream::start(|request| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Response::new(client::body(request.into_body()))
    })
    .await;
    let gateway = Gateway::start(&to(upstream.addr(), LIMITED)).await;
    let request = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n0123456789";
    for cut in (0..=request.len()).step_by(3) {
        let mut raw = Raw::connect(gateway.http()).await;
        raw.send(&request[..cut]).await;
    }
    for cut in [0, 1, 5, 10] {
        let mut sender = client::http2(gateway.http()).await;
        let body = client::whole(vec![b'x'; cut]);
        let call = sender.send_request(client::request2("POST", "/").body(body).unwrap());
        let _ = tokio::time::timeout(Duration::from_millis(cut as u64), call).await;
    }
    gateway.is_at_rest().await;
    assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_upstream_that_breaks_off_is_a_502_or_a_cut_body() {
    let scripted = Scripted::start().await;
    let settings = format!("{LIMITED}\nbreaker: off");
    let gateway = Gateway::start(&to(scripted.addr(), &settings)).await;
    let http = gateway.http();
    for (said, status) in [
        ("", Some(502)),
        ("HTTP/1.1 2", Some(502)),
        ("nonsense\r\n\r\n", Some(502)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello", Some(502)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", None),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel", None),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhel", None),
    ] {
        for version in [1, 2] {
            let call = tokio::spawn(async move {
                if version == 1 {
                    let request = client::request("GET", "/").body(client::empty()).unwrap();
                    let response = client::http1(http).await.send_request(request).await?;
                    client::Answer::read(response).await
                } else {
                    let request = client::request2("GET", "/").body(client::empty()).unwrap();
                    let response = client::http2(http).await.send_request(request).await?;
                    client::Answer::read(response).await
                }
            });
            let mut upstream = scripted.accept().await;
            upstream.head().await;
            upstream.try_send(said).await;
            drop(upstream);
            match (within("an end", call).await.unwrap(), status) {
                (Ok(answer), Some(status)) => assert_eq!(answer.status.as_u16(), status, "{said:?}"),
                (Err(_), None) => {}
                (other, _) => panic!("{said:?} over HTTP/{version} came out as {other:?}"),
            }
        }
    }
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_rapid_reset_of_streams_leaves_nothing_behind() {
    let upstream = Upstream::start(|_| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Response::new(client::whole("hello"))
    })
    .await;
    let gateway = Gateway::start(&to(upstream.addr(), LIMITED)).await;
    let mut raw = Raw::connect(gateway.http()).await;
    raw.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    // HEADERS with END_STREAM: GET, http, /, :authority a. Then RST_STREAM with CANCEL.
    let mut stream: u32 = 1;
    let mut open = true;
    while open && stream < 20_000 {
        let mut frames = Vec::new();
        for _ in 0..50 {
            let id = stream.to_be_bytes();
            let block = [0x82, 0x86, 0x84, 0x41, 0x01, b'a'];
            frames.extend([0, 0, block.len() as u8, 1, 5, id[0], id[1], id[2], id[3]]);
            frames.extend(block);
            frames.extend([0, 0, 4, 3, 0, id[0], id[1], id[2], id[3], 0, 0, 0, 8]);
            stream += 2;
        }
        open = raw.try_send(frames).await;
    }
    drop(raw);
    gateway.is_at_rest().await;
    assert!(upstream.peak() <= 5, "{} calls at once", upstream.peak());
    assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_flood_of_continuation_frames_ends_the_connection() {
    let upstream = hello().await;
    let gateway = Gateway::start(&to(upstream.addr(), LIMITED)).await;
    let mut raw = Raw::connect(gateway.http()).await;
    raw.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    raw.send([0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]).await;
    // A header field without an end to its block: 16 KiB in each frame.
    let mut frame = vec![0, 0x40, 0, 9, 0, 0, 0, 0, 1];
    frame.extend(std::iter::repeat_n([0x40, 0x01, b'x', 0x01, b'y'], 4096).flatten().take(0x4000));
    let mut sent = 0;
    while raw.try_send(&frame).await {
        sent += frame.len();
        assert!(sent < 64 << 20, "the gateway took {sent} bytes of one header block");
    }
    gateway.is_at_rest().await;
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn connections_above_their_bound_are_turned_away_and_the_bound_is_not_eaten_up() {
    let upstream = hello().await;
    let gateway =
        Gateway::start(&format!("bounds: {{ connections: 3 }}\n{}", to(upstream.addr(), LIMITED))).await;
    for _ in 0..3 {
        let mut held = Vec::new();
        for _ in 0..3 {
            let mut raw = Raw::connect(gateway.http()).await;
            raw.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert!(raw.head().await.starts_with("HTTP/1.1 200"));
            held.push(raw);
        }
        let said = Raw::exchange(gateway.http(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(said.is_empty() || status(&said) == 503, "{said:?}");
        drop(held);
        gateway.is_at_rest().await;
    }
}
