//! The built-in example upstream: a small HTTP/1.1 server on loopback, so that a gateway without a configuration has
//! something to guard and its user something to try.

use std::{
    convert::Infallible,
    fmt::Write as _,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
    time,
};

/// Most connections at once; more wait to be accepted.
pub const MAX_CONNECTIONS: usize = 1024;
/// The longest that `/slow` takes.
pub const MAX_SLOW: Duration = Duration::from_secs(60);
/// Most ticks of `/stream`.
pub const MAX_TICKS: u32 = 600;

/// From the start of a connection, or of its last answer, to a whole request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
const DEFAULT_SLOW: Duration = Duration::from_millis(500);
const DEFAULT_TICKS: u32 = 10;
const TICK: Duration = Duration::from_secs(1);
/// After a failed accept (out of descriptors, say) the next try waits, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// A running example upstream. Dropping it ends it and its connections.
#[derive(Debug)]
pub struct ExampleUpstream {
    addr: SocketAddr,
    accept: AbortHandle,
}

/// Starts the example upstream on a free port of 127.0.0.1.
///
/// # Errors
/// When the port cannot be bound.
///
/// # Panics
/// Outside of a tokio runtime with IO and time.
pub fn start() -> io::Result<ExampleUpstream> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let addr = listener.local_addr()?;
    let accept = tokio::spawn(accept(listener)).abort_handle();
    Ok(ExampleUpstream { addr, accept })
}

impl ExampleUpstream {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for ExampleUpstream {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

/// Accepts for ever. The connections belong to this future and end with it.
async fn accept(listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(async move {
                    let _place = place;
                    // A client that breaks off is no event here.
                    let _ = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEAD_TIMEOUT)
                        .serve_connection(TokioIo::new(stream), service_fn(answer))
                        .await;
                });
            }
            Err(_) => time::sleep(ACCEPT_PAUSE).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let query = request.uri().query().unwrap_or_default();
    let path = request.uri().path();
    let mut response = match path {
        "/" => text(StatusCode::OK, welcome(request.headers())),
        "/slow" => {
            let wait = number(query, "ms").map_or(DEFAULT_SLOW, Duration::from_millis).min(MAX_SLOW);
            time::sleep(wait).await;
            text(StatusCode::OK, format!("answered after {} ms\n", wait.as_millis()))
        }
        "/stream" => {
            let ticks = number(query, "n")
                .map_or(DEFAULT_TICKS, |n| u32::try_from(n).unwrap_or(MAX_TICKS))
                .min(MAX_TICKS);
            let every = number(query, "ms").map_or(TICK, Duration::from_millis).min(MAX_SLOW);
            events(ticks, every)
        }
        "/echo" if request.method() != Method::HEAD => return Ok(echo(request)),
        _ => match path.strip_prefix("/status/").map(|code| code.parse::<StatusCode>()) {
            // A 1xx is no final answer.
            Some(Ok(status)) if !status.is_informational() => text(status, format!("{status}\n")),
            Some(_) => text(
                StatusCode::BAD_REQUEST,
                "not a status; write /status/ and a number from 200 to 999\n".into(),
            ),
            None => text(StatusCode::NOT_FOUND, "nothing here; GET / says what there is\n".into()),
        },
    };
    if request.method() == Method::HEAD {
        *response.body_mut() = empty();
    }
    Ok(response)
}

/// What `GET /` says: what arrived, and what to try.
fn welcome(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost:8080");
    let mut text = String::from(
        "The example upstream of Tidegate. This call came through the gateway with these headers:\n\n",
    );
    for (name, value) in headers {
        let _ = writeln!(text, "  {name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    let _ = write!(
        text,
        "\n\
         Try the guards:\n\n  \
         curl -i http://{host}/                   the answer carries RateLimit fields\n  \
         curl -i http://{host}/slow?ms=2000       holds a place among the calls in flight for two seconds\n  \
         curl -i http://{host}/status/503         a few of these in a row open the breaker\n  \
         curl -d hello http://{host}/echo         sends the body back as it comes\n  \
         curl -N http://{host}/stream             ten server-sent events, one a second\n"
    );
    text
}

/// The body goes back while it comes in: nothing is held here.
fn echo(request: Request<Incoming>) -> Response<Body> {
    let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
    let mut response = Response::new(request.into_body().boxed_unsync());
    if let Some(content_type) = content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    response
}

fn events(ticks: u32, every: Duration) -> Response<Body> {
    let events = stream::unfold(0, move |tick| async move {
        if tick == ticks {
            return None;
        }
        if tick > 0 {
            time::sleep(every).await;
        }
        let event = format!("id: {tick}\ndata: tick {tick} of {ticks}\n\n");
        Some((Ok(Frame::data(Bytes::from(event))), tick + 1))
    });
    let mut response = Response::new(StreamBody::new(events).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::from(text).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn empty() -> Body {
    Full::default().map_err(|never| match never {}).boxed_unsync()
}

/// The number that a query gives to a name.
fn number(query: &str, name: &str) -> Option<u64> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    async fn call(upstream: &ExampleUpstream, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let stream = TcpStream::connect(upstream.addr()).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    }

    async fn ask(upstream: &ExampleUpstream, method: &str, path: &str) -> (StatusCode, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "gateway.test:8080")
            .header("x-request-id", "abc123")
            .body(Full::default())
            .unwrap();
        let response = call(upstream, request).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_welcome_shows_the_headers_it_received_and_what_to_try() {
        let upstream = start().unwrap();
        let (status, text) = ask(&upstream, "GET", "/").await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("  x-request-id: abc123\n"), "{text}");
        assert!(text.contains("curl -i http://gateway.test:8080/slow?ms=2000"), "{text}");
    }

    #[tokio::test]
    async fn a_status_is_answered_as_asked_and_nonsense_is_refused() {
        let upstream = start().unwrap();
        assert_eq!(ask(&upstream, "GET", "/status/503").await.0, StatusCode::SERVICE_UNAVAILABLE);
        for path in ["/status/", "/status/100", "/status/abc", "/status/99999"] {
            assert_eq!(ask(&upstream, "GET", path).await.0, StatusCode::BAD_REQUEST, "{path}");
        }
        assert_eq!(ask(&upstream, "GET", "/nowhere").await.0, StatusCode::NOT_FOUND);
        assert_eq!(ask(&upstream, "HEAD", "/").await, (StatusCode::OK, String::new()));
    }

    #[tokio::test]
    async fn an_echo_sends_the_body_back() {
        let upstream = start().unwrap();
        let request = Request::post("/echo")
            .header("host", "t")
            .header("content-type", "application/json")
            .body(Full::from("{\"a\":1}"))
            .unwrap();
        let response = call(&upstream, request).await;
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "{\"a\":1}");
    }

    #[tokio::test]
    async fn a_stream_has_as_many_events_as_asked() {
        let upstream = start().unwrap();
        let (_, text) = ask(&upstream, "GET", "/stream?n=3&ms=0").await;
        assert_eq!(text.matches("data: tick").count(), 3, "{text}");
    }

    #[tokio::test]
    async fn a_slow_answer_says_how_long_it_took() {
        let upstream = start().unwrap();
        assert_eq!(ask(&upstream, "GET", "/slow?ms=1").await.1, "answered after 1 ms\n");
    }

    #[tokio::test]
    async fn dropping_it_closes_its_connections() {
        use tokio::io::AsyncReadExt as _;
        let upstream = start().unwrap();
        let addr = upstream.addr();
        // An answer first, so that the connection is known to be accepted.
        let mut stream = TcpStream::connect(addr).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET /status/204 HTTP/1.1\r\nhost: t\r\n\r\n")
            .await
            .unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 204");
        drop(upstream);
        let mut rest = Vec::new();
        // A reset ends it as well as an end of stream.
        let _ = stream.read_to_end(&mut rest).await;
        assert!(TcpStream::connect(addr).await.is_err());
    }
}
