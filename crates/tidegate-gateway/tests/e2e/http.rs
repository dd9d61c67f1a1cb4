//! Calls over HTTP/1.1 and HTTP/2 pass through unharmed, both ways.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    setup::to,
    support::{
        LOOK_AGAIN,
        client::{self, RequestBody},
        gateway::Gateway,
        nginx::Nginx,
        raw::Raw,
        scripted::Scripted,
        upstream::Upstream,
        within,
    },
};

/// Sends every body back.
async fn echo() -> Upstream {
    Upstream::start(|request| async move { Response::new(client::body(request.into_body())) }).await
}

/// Answers with the header fields that it got, one a line.
async fn mirror() -> Upstream {
    Upstream::start(|request| async move {
        let lines = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
        Response::new(client::whole(lines.collect::<String>()))
    })
    .await
}

/// A body fed by hand.
fn fed() -> (mpsc::Sender<Bytes>, RequestBody) {
    let (sender, receiver) = mpsc::channel(1);
    let frames = ReceiverStream::new(receiver).map(|bytes| Ok::<_, std::io::Error>(Frame::data(bytes)));
    (sender, client::body(StreamBody::new(frames)))
}

#[tokio::test]
async fn a_call_reaches_nginx_and_its_answer_the_client() {
    let nginx =
        Nginx::start("location /hello { add_header x-from nginx; return 200 \"hello $host\"; }").await;
    let gateway = Gateway::start(&to(nginx.addr(), "")).await;
    let answer = client::get(gateway.http(), "/hello?a=1").await;
    assert_eq!((answer.status, answer.version), (StatusCode::OK, Version::HTTP_11));
    assert_eq!(answer.text(), "hello gateway.test");
    assert_eq!(answer.header("x-from"), "nginx");
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_answered_in_http2() {
    let nginx = Nginx::start("location / { return 200 hello; }").await;
    let gateway = Gateway::start(&to(nginx.addr(), "")).await;
    let mut sender = client::http2(gateway.http()).await;
    for _ in 0..3 {
        let request = client::request2("GET", "/").body(client::empty()).unwrap();
        let answer = client::Answer::read(sender.send_request(request).await.unwrap()).await.unwrap();
        assert_eq!((answer.status, answer.version), (StatusCode::OK, Version::HTTP_2));
        assert_eq!(answer.text(), "hello");
    }
}

#[tokio::test]
async fn http2_is_spoken_to_an_upstream_that_is_said_to_speak_it() {
    let upstream =
        Upstream::start(
            |request| async move { Response::new(client::whole(format!("{:?}", request.version()))) },
        )
        .await;
    let gateway = Gateway::start(&to(upstream.addr(), "protocol: http2")).await;
    assert_eq!(client::get(gateway.http(), "/").await.text(), "HTTP/2.0");
}

#[tokio::test]
async fn bodies_of_any_size_go_up_and_down_whole() {
    let upstream = echo().await;
    let gateway = Gateway::start(&to(upstream.addr(), "")).await;
    for size in [0, 1, 1024, 65_536, 8 << 20] {
        let bytes: Bytes = (0..size).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
        let request = client::request("POST", "/").body(client::whole(bytes.clone())).unwrap();
        assert_eq!(client::send(gateway.http(), request).await.body, bytes, "{size} bytes over HTTP/1.1");
        let request = client::request2("POST", "/").body(client::whole(bytes.clone())).unwrap();
        assert_eq!(client::send2(gateway.http(), request).await.body, bytes, "{size} bytes over HTTP/2");
    }
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_body_without_a_length_passes_in_chunks() {
    let upstream = echo().await;
    let gateway = Gateway::start(&to(upstream.addr(), "")).await;
    let said = Raw::exchange(
        gateway.http(),
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
         5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    )
    .await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert!(said.to_lowercase().contains("transfer-encoding: chunked"), "{said}");
    assert!(said.ends_with("0\r\n\r\n"), "{said}");
}

#[tokio::test]
async fn both_bodies_stream_while_the_call_goes_on() {
    let upstream = echo().await;
    let gateway = Gateway::start(&to(upstream.addr(), "protocol: http2")).await;
    let (feed, body) = fed();
    let mut sender = client::http2(gateway.http()).await;
    let request = client::request2("POST", "/").body(body).unwrap();
    let mut response = within("the head", sender.send_request(request)).await.unwrap();
    for part in ["one", "two", "three"] {
        feed.send(part.into()).await.unwrap();
        let frame = within("an echo", response.body_mut().frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), part);
    }
    drop(feed);
    // The end of an HTTP/2 stream may come in a frame of its own, without data.
    let rest = within("the end", response.body_mut().collect()).await.unwrap();
    assert!(rest.to_bytes().is_empty());
    drop((response, sender));
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn an_upstream_is_read_no_faster_than_the_client_reads() {
    const FRAME: usize = 64 << 10;
    /// Far more than what sockets and windows on the way hold.
    const ENDLESS: usize = 1 << 30;
    let produced = Arc::new(AtomicUsize::new(0));
    let counted = produced.clone();
    let upstream = Upstream::start(move |_| {
        let produced = counted.clone();
        async move {
            let frames = stream::repeat_with(move || {
                produced.fetch_add(FRAME, Ordering::Relaxed);
                Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&[7; FRAME])))
            });
            Response::new(client::body(StreamBody::new(frames.take(ENDLESS / FRAME))))
        }
    })
    .await;
    let gateway = Gateway::start(&to(upstream.addr(), "")).await;
    let mut sender = client::http1(gateway.http()).await;
    let request = client::request("GET", "/").body(client::empty()).unwrap();
    let mut response = sender.send_request(request).await.unwrap();
    // Nobody reads: the upstream must come to a standstill, long before it has sent all.
    within("a standstill", async {
        let (mut last, mut same) = (0, 0);
        while same < 40 {
            tokio::time::sleep(LOOK_AGAIN).await;
            let now = produced.load(Ordering::Relaxed);
            assert!(now < ENDLESS / 4, "the gateway took {now} bytes that nobody reads");
            (same, last) = if now == last { (same + 1, last) } else { (0, now) };
        }
    })
    .await;
    let stood = produced.load(Ordering::Relaxed);
    let mut read = 0;
    while read <= stood + FRAME {
        read +=
            within("more", response.body_mut().frame()).await.unwrap().unwrap().into_data().unwrap().len();
    }
    assert!(produced.load(Ordering::Relaxed) > stood, "reading lets the upstream go on");
    drop((response, sender));
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn a_client_is_read_no_faster_than_the_upstream_reads() {
    const FRAME: usize = 64 << 10;
    const ENDLESS: usize = 1 << 30;
    let scripted = Scripted::start().await;
    let gateway = Gateway::start(&to(scripted.addr(), "")).await;
    let produced = Arc::new(AtomicUsize::new(0));
    let counted = produced.clone();
    let frames = stream::repeat_with(move || {
        counted.fetch_add(FRAME, Ordering::Relaxed);
        Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&[7; FRAME])))
    });
    let request = client::request("POST", "/")
        .body(client::body(StreamBody::new(frames.take(ENDLESS / FRAME))))
        .unwrap();
    let mut sender = client::http1(gateway.http()).await;
    let call = tokio::spawn(async move { sender.send_request(request).await });
    let mut upstream = scripted.accept().await;
    upstream.head().await;
    within("a standstill", async {
        let (mut last, mut same) = (0, 0);
        while same < 40 {
            tokio::time::sleep(LOOK_AGAIN).await;
            let now = produced.load(Ordering::Relaxed);
            assert!(now < ENDLESS / 4, "the gateway took {now} bytes that nobody reads");
            (same, last) = if now == last { (same + 1, last) } else { (0, now) };
        }
    })
    .await;
    drop(upstream);
    // Broken off in the middle: the client learns it one way or the other.
    let ended = within("an end of the call", call).await.unwrap();
    assert!(ended.is_err() || ended.is_ok_and(|response| response.status() == StatusCode::BAD_GATEWAY));
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn answers_without_a_body_stay_so() {
    let upstream = Upstream::start(|request| async move {
        let (status, body) = match request.uri().path() {
            "/204" => (204, client::empty()),
            "/304" => (304, client::empty()),
            _ => (200, client::whole("hello")),
        };
        Response::builder().status(status).header("etag", "\"v1\"").body(body).unwrap()
    })
    .await;
    let gateway = Gateway::start(&to(upstream.addr(), "")).await;
    for (method, path, status) in [("HEAD", "/", 200), ("GET", "/204", 204), ("GET", "/304", 304)] {
        let request = client::request(method, path).body(client::empty()).unwrap();
        let answer = client::send(gateway.http(), request).await;
        assert_eq!((answer.status.as_u16(), answer.header("etag")), (status, "\"v1\""), "{method} {path}");
        assert!(answer.body.is_empty(), "{method} {path}");
        let request = client::request2(method, path).body(client::empty()).unwrap();
        assert_eq!(client::send2(gateway.http(), request).await.status.as_u16(), status, "{method} {path}");
    }
    let request = client::request("HEAD", "/").body(client::empty()).unwrap();
    assert_eq!(client::send(gateway.http(), request).await.header("content-length"), "5");
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn an_interim_answer_is_not_taken_for_the_final_one() {
    let scripted = Scripted::start().await;
    let gateway = Gateway::start(&to(scripted.addr(), "")).await;
    let call = tokio::spawn(async move {
        let answer = client::get(gateway.http(), "/").await;
        (answer, gateway)
    });
    let mut upstream = scripted.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    upstream.send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n").await;
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfinal").await;
    let (answer, _gateway) = call.await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "final"));
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_and_its_answer() {
    let upstream = echo().await;
    let gateway = Gateway::start(&to(upstream.addr(), "")).await;
    let mut raw = Raw::connect(gateway.http()).await;
    raw.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
    assert!(raw.head().await.starts_with("HTTP/1.1 100"));
    raw.send("hello").await;
    assert!(raw.head().await.starts_with("HTTP/1.1 200"));
    drop(raw);
    gateway.is_at_rest().await;
}

#[tokio::test]
async fn trailers_of_a_chunked_answer_arrive() {
    let scripted = Scripted::start().await;
    let gateway = Gateway::start(&to(scripted.addr(), "")).await;
    let http = gateway.http();
    let call = tokio::spawn(async move {
        let request = client::request2("GET", "/").header("te", "trailers").body(client::empty()).unwrap();
        client::send2(http, request).await
    });
    let mut upstream = scripted.accept().await;
    upstream.head().await;
    upstream
        .send(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
             3\r\nabc\r\n0\r\nx-sum: 42\r\n\r\n",
        )
        .await;
    let answer = call.await.unwrap();
    assert_eq!((answer.text().as_str(), &answer.trailers["x-sum"]), ("abc", &"42".parse().unwrap()));
}

#[tokio::test]
async fn fields_that_end_at_a_hop_go_no_further() {
    let upstream = mirror().await;
    let gateway = Gateway::start(&to(upstream.addr(), "")).await;
    let got = client::get_with(
        gateway.http(),
        "/",
        &[
            ("connection", "keep-alive, x-private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic abc"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip"),
            ("x-public", "1"),
        ],
    )
    .await
    .text();
    assert!(got.contains("x-public: 1\n"), "{got}");
    for gone in ["x-private", "keep-alive", "proxy-authorization", "proxy-connection", "te:"] {
        assert!(!got.contains(gone), "{gone} in\n{got}");
    }
}

#[tokio::test]
async fn an_upstream_is_told_who_calls_whatever_the_client_says() {
    let upstream = mirror().await;
    let gateway = Gateway::start(&to(upstream.addr(), "")).await;
    let lies = [
        ("x-forwarded-for", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
    ];
    let got = client::get_with(gateway.http(), "/", &lies).await.text();
    for told in [
        "host: gateway.test\n",
        "x-forwarded-for: 127.0.0.1\n",
        "x-forwarded-proto: http\n",
        "x-forwarded-host: gateway.test\n",
        "forwarded: for=127.0.0.1",
        "via: 1.1 ",
        "x-request-id: ",
    ] {
        assert!(got.contains(told), "no {told:?} in\n{got}");
    }
    assert!(!got.contains("6.6.6.6") && !got.contains("https"), "{got}");
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_its_chain_extended() {
    let upstream = mirror().await;
    let config = format!("trusted_proxies: [127.0.0.0/8]\n{}", to(upstream.addr(), ""));
    let gateway = Gateway::start(&config).await;
    let got = client::get_with(gateway.http(), "/", &[("x-forwarded-for", "203.0.113.7")]).await.text();
    assert!(got.contains("x-forwarded-for: 203.0.113.7, 127.0.0.1\n"), "{got}");
}

#[tokio::test]
async fn calls_share_connections_to_the_upstream() {
    let upstream = echo().await;
    let gateway = Gateway::start(&to(upstream.addr(), "")).await;
    let mut sender = client::http1(gateway.http()).await;
    for _ in 0..20 {
        let request = client::request("POST", "/").body(client::whole("x")).unwrap();
        let answer = client::Answer::read(sender.send_request(request).await.unwrap()).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        sender.ready().await.unwrap();
    }
    assert_eq!((upstream.calls(), upstream.connections()), (20, 1));
}

#[tokio::test]
async fn what_no_route_takes_is_a_404_that_says_so() {
    let upstream = echo().await;
    let config = format!(
        "upstreams:\n  main:\n    endpoints: [\"http://{}\"]\nroutes:\n  \
         - {{ upstream: main, match: {{ host: only.test, path: /in, methods: [GET] }} }}\n",
        upstream.addr()
    );
    let gateway = Gateway::start(&config).await;
    let answer = client::get(gateway.http(), "/in").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.json()["reason"], "no-route");
    for (method, host, path, status) in [
        ("GET", "only.test", "/in", 200),
        ("GET", "only.test", "/in/side", 200),
        ("GET", "only.test", "/inside", 404),
        ("POST", "only.test", "/in", 404),
        ("GET", "only.test", "/in/../out", 404),
    ] {
        let request = http::Request::builder().method(method).uri(path).header("host", host);
        let answer = client::send(gateway.http(), request.body(client::empty()).unwrap()).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {host} {path}");
    }
    assert_eq!(upstream.calls(), 2);
}
