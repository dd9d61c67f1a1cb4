//! Over real sockets.

use std::{net::SocketAddr, time::Duration};

use parking_lot::Mutex;
use tidegate_core::{By, Instant, Refused};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

use super::*;
use crate::{
    record,
    state::{UpstreamState, example},
};

#[derive(Default)]
struct Source {
    not_ready: Mutex<Option<String>>,
    hostile: Option<&'static str>,
}

impl AdminSource for Source {
    fn ready(&self) -> Result<(), String> {
        self.not_ready.lock().clone().map_or(Ok(()), Err)
    }

    fn state(&self) -> State {
        let mut state = example();
        if let Some(hostile) = self.hostile {
            state.upstreams.push(UpstreamState { name: hostile.into(), ..UpstreamState::default() });
            state.config.last_reload_error = Some(hostile.into());
        }
        state
    }

    fn config(&self) -> String {
        "upstreams: {}\n".into()
    }

    fn limits(&self) -> Vec<LimitState> {
        example().limits
    }

    fn counter(&self, limit: String, key: KeyParts) -> BoxFuture<'_, Result<CounterState, CounterError>> {
        Box::pin(async move {
            if limit != "per-client" {
                return Err(CounterError::NoLimit { name: limit, known: "per-client".into() });
            }
            let (most, reset_in_seconds) = (1000, 1.5);
            Ok(CounterState { limit, key, remaining: 7, most, owed: 0, reset_in_seconds, nodes: None })
        })
    }

    fn change(
        &self,
        limit: String,
        key: KeyParts,
        change: Change,
        by: IpAddr,
    ) -> BoxFuture<'_, Result<CounterChange, CounterError>> {
        assert!(by.is_loopback());
        Box::pin(async move {
            let before = self.counter(limit, key).await?;
            let remaining = match change {
                Change::Add(units) => before.remaining.saturating_add_signed(units),
                Change::Reset => before.most,
            };
            Ok(CounterChange { after: CounterState { remaining, ..before.clone() }, before })
        })
    }
}

struct Running {
    address: SocketAddr,
    source: Arc<Source>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

async fn start(source: Source) -> Running {
    let admin = Admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = admin.address();
    let source = Arc::new(source);
    let telemetry = Arc::new(Telemetry::new(1));
    let orders = telemetry.route("orders", "orders");
    orders.finished(&record::example().finished);
    let refused = Refused::after(By::Quota, Duration::from_millis(250));
    orders.refused(refused, Some(&"per-client".into()), Instant::from_nanos(1_700_000_000_000_000_000));
    let (stop, stopped) = oneshot::channel();
    let stopped = async { drop(stopped.await) };
    let served = tokio::spawn(admin.serve(Arc::clone(&source) as Arc<dyn AdminSource>, telemetry, stopped));
    Running { address, source, stop, served }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Running {
    async fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    async fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        let host = self.address;
        self.send(&format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n"))
            .await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }
}

#[tokio::test]
async fn every_page_answers_with_its_content_type() {
    let admin = start(Source::default()).await;
    for (path, content_type, begins) in [
        ("/", TEXT, "/live"),
        ("/live", TEXT, "live\n"),
        ("/ready", TEXT, "ready\n"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", "# HELP tidegate_build_info"),
        ("/state", JSON, "{\n  \"version\""),
        ("/state?format=html", HTML, "<!doctype html>"),
        ("/state.js", SCRIPT, "\"use strict\""),
        ("/config", YAML, "upstreams: {}\n"),
    ] {
        let answer = admin.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.head.contains(&format!("content-type: {content_type}")), "{path}: {}", answer.head);
        assert!(answer.head.contains("cache-control: no-store"), "{path}");
        assert!(answer.head.contains("x-content-type-options: nosniff"), "{path}");
        assert!(answer.body.starts_with(begins), "{path}: {}", answer.body);
    }
    assert_eq!(admin.get("/state?format=xml").await.status, 400);
}

#[tokio::test]
async fn readiness_says_why_not_and_liveness_does_not_care() {
    let admin = start(Source::default()).await;
    *admin.source.not_ready.lock() = Some("draining".into());
    let ready = admin.get("/ready").await;
    assert_eq!((ready.status, ready.body.as_str()), (503, "not ready: draining\n"));
    assert_eq!(admin.get("/live").await.status, 200);
    let state: serde_json::Value = serde_json::from_str(&admin.get("/state").await.body).unwrap();
    assert_eq!(state["not_ready"], "draining");
    assert!(admin.get("/metrics").await.body.contains("\ntidegate_ready 0.0\n"));
}

#[tokio::test]
async fn a_scraper_that_asks_for_open_metrics_gets_it() {
    let admin = start(Source::default()).await;
    let answer = admin.ask("GET", "/metrics", "accept: application/openmetrics-text;version=1.0.0\r\n").await;
    assert!(
        answer.head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{}",
        answer.head
    );
    assert!(answer.body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn other_methods_and_other_paths_are_refused_sanely() {
    let admin = start(Source::default()).await;
    let head = admin.ask("HEAD", "/state", "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.head.contains("content-length: "), "{}", head.head);
    for method in ["POST", "PUT", "DELETE"] {
        let answer = admin.ask(method, "/state", "content-length: 0\r\n").await;
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.head.contains("allow: get,head"), "{}", answer.head);
    }
    let missing = admin.get("/nothing").await;
    assert_eq!(missing.status, 404);
    assert!(missing.body.contains("/metrics"), "{}", missing.body);
}

#[tokio::test]
async fn the_state_has_this_shape() {
    let admin = start(Source::default()).await;
    insta::assert_snapshot!(admin.get("/state").await.body);
}

#[tokio::test]
async fn a_browser_gets_a_page_and_no_name_becomes_markup() {
    let hostile = Some("<script>alert(1)</script>\" onload='x'");
    let admin = start(Source { hostile, ..Source::default() }).await;
    let browser = "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";
    let page = admin.ask("GET", "/state", browser).await;
    assert!(page.head.contains("content-type: text/html; charset=utf-8"), "{}", page.head);
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    assert!(!page.body.contains("<script>") && page.body.contains("&lt;script&gt;alert(1)"));
    assert!(!page.body.contains("onload='"));
    let elsewhere = ["=\"http", "=\"//", "url("].iter().any(|asset| page.body.contains(asset));
    assert!(!elsewhere, "no assets from elsewhere");
    let index = admin.ask("GET", "/", browser).await;
    assert!(index.body.contains("<a href=\"/metrics\">"));
}

#[tokio::test]
async fn a_name_that_was_rebound_to_loopback_reads_nothing() {
    let admin = start(Source::default()).await;
    for request in [
        "GET /state HTTP/1.1\r\nhost: evil.example:9900\r\nconnection: close\r\n\r\n",
        "GET http://evil.example/state HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n",
        "GET /nothing HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n",
    ] {
        let answer = admin.send(request).await;
        assert_eq!(answer.status, 421, "{request}");
        assert!(!answer.body.contains("upstreams"));
    }
    for host in ["localhost", "[::1]:9900", "127.0.0.1"] {
        let request = format!("GET /live HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        assert_eq!(admin.send(&request).await.status, 200, "{host}");
    }
    assert_eq!(admin.send("GET /live HTTP/1.0\r\n\r\n").await.status, 200);
}

/// On a clock that jumps when nothing else is to be done.
#[tokio::test(start_paused = true)]
async fn a_client_that_sends_no_head_is_closed() {
    let admin = start(Source::default()).await;
    let before = tokio::time::Instant::now();
    let mut stream = TcpStream::connect(admin.address).await.unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\nhost: local").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    assert!(before.elapsed() >= Duration::from_secs(9));
}

#[tokio::test]
async fn a_head_of_any_length_is_refused_in_bounded_memory() {
    let admin = start(Source::default()).await;
    let long = "x".repeat(1 << 20);
    let mut stream = TcpStream::connect(admin.address).await.unwrap();
    // The server closes in mid-write: that is the point.
    let _closed = stream
        .write_all(format!("GET /live HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\n\r\n").as_bytes())
        .await;
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn connections_are_bounded_and_a_free_place_is_used_again() {
    let admin = start(Source::default()).await;
    let mut held = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(admin.address).await.unwrap();
        stream.write_all(b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        held.push(stream);
    }
    let mut waiting = TcpStream::connect(admin.address).await.unwrap();
    waiting.write_all(b"GET /live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    let early = tokio::time::timeout(Duration::from_millis(100), waiting.read_exact(&mut first)).await;
    assert!(early.is_err(), "the 65th waits");
    held.pop();
    waiting.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
}

#[tokio::test]
async fn stopping_closes_idle_connections_and_the_listener() {
    let admin = start(Source::default()).await;
    let mut idle = TcpStream::connect(admin.address).await.unwrap();
    idle.write_all(b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    admin.stop.send(()).unwrap();
    admin.served.await.unwrap();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"live\n"));
    assert!(TcpStream::connect(admin.address).await.is_err());
}

const JSON_BODY: &str = "content-type: application/json\r\n";

impl Running {
    async fn post(&self, path: &str, headers: &str, body: &str) -> Answer {
        let (host, length) = (self.address, body.len());
        let head = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}");
        self.send(&format!("{head}content-length: {length}\r\n\r\n{body}")).await
    }
}

#[tokio::test]
async fn counters_are_read_by_their_key() {
    let admin = start(Source::default()).await;
    let all: serde_json::Value = serde_json::from_str(&admin.get("/limits").await.body).unwrap();
    assert_eq!(all[1]["name"], "per-client");
    let answer = admin.get("/limits/per-client/counter?key=a%20b%26c&key&key=").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let state: CounterState = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(state.key, [Some("a b&c".into()), None, Some(String::new())]);
    assert_eq!((state.remaining, state.most), (7, 1000));
    for (path, status, why) in [
        ("/limits/other/counter", 404, "there is no limit `other`; there are: per-client"),
        ("/limits/per-client/counter?keys=a", 400, "key=VALUE"),
        ("/limits/per-client/counter?key=%ff", 400, "percent-encoded"),
    ] {
        let answer = admin.get(path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.body.contains(why), "{path}: {}", answer.body);
    }
}

#[tokio::test]
async fn counters_are_changed_from_this_machine() {
    let admin = start(Source::default()).await;
    let body = r#"{"key": ["a", null], "units": -3}"#;
    let answer = admin.post("/limits/per-client/add", JSON_BODY, body).await;
    let change: CounterChange = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((change.before.remaining, change.after.remaining), (7, 4));
    let answer = admin.post("/limits/per-client/reset", JSON_BODY, r#"{"key": ["a", null]}"#).await;
    let change: CounterChange = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(change.after.remaining, 1000);
    for (path, body, status, why) in [
        ("/limits/other/reset", "{}", 404, "no limit `other`"),
        ("/limits/per-client/add", "{}", 400, "missing field `units`"),
        ("/limits/per-client/add", "", 400, "write {"),
        ("/limits/per-client/reset", r#"{"units": 1}"#, 400, "unknown field"),
        ("/limits/per-client/add", r#"{"units": 1e99}"#, 400, "the body is not"),
    ] {
        let answer = admin.post(path, JSON_BODY, body).await;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
        assert!(answer.body.contains(why), "{path} {body}: {}", answer.body);
    }
    let large = admin.post("/limits/per-client/reset", JSON_BODY, &" ".repeat(100 << 10)).await;
    assert_eq!(large.status, 413);
}

#[tokio::test]
async fn no_page_in_a_browser_changes_a_counter() {
    let admin = start(Source::default()).await;
    let body = r#"{"key": []}"#;
    let host = admin.address;
    for (headers, status) in [
        // A form, or a script without leave.
        ("content-type: text/plain\r\n".to_owned(), 415),
        ("content-type: application/x-www-form-urlencoded\r\n".to_owned(), 415),
        (String::new(), 415),
        // A script that has leave, or a name that was rebound and so is of its own origin.
        (format!("{JSON_BODY}origin: http://evil.example\r\n"), 403),
        (format!("{JSON_BODY}origin: http://{host}\r\n"), 403),
        (format!("{JSON_BODY}origin: null\r\n"), 403),
        // A proxy on this machine passes it on for somebody elsewhere.
        (format!("{JSON_BODY}x-forwarded-for: 203.0.113.9\r\n"), 403),
        (format!("{JSON_BODY}via: 1.1 nginx\r\n"), 403),
        (format!("{JSON_BODY}sec-fetch-site: same-origin\r\n"), 403),
    ] {
        let answer = admin.post("/limits/per-client/reset", &headers, body).await;
        assert_eq!(answer.status, status, "{headers}: {}", answer.body);
    }
    let preflight = admin
        .ask(
            "OPTIONS",
            "/limits/per-client/reset",
            "origin: http://evil.example\r\naccess-control-request-method: POST\r\n",
        )
        .await;
    assert!(
        preflight.status >= 400 && !preflight.head.contains("access-control-allow"),
        "{}",
        preflight.head
    );
}
