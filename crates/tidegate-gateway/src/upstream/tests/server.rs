//! Servers and small things that the tests share.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tidegate_core::{Call, Instant};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::super::{Endpoint, SendError, Upstream, UpstreamBody};
use crate::{
    body::RequestBody,
    config,
    upload::{Allowance, Upload},
};

/// Long enough for anything that happens at all.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// What a server has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) accepted: AtomicU32,
    open: AtomicU32,
    most_open: AtomicU32,
}

impl Seen {
    pub(super) fn accepted(&self) -> u32 {
        self.accepted.load(Ordering::SeqCst)
    }

    pub(super) fn now_open(&self) -> u32 {
        self.open.load(Ordering::SeqCst)
    }

    pub(super) fn most_open(&self) -> u32 {
        self.most_open.load(Ordering::SeqCst)
    }

    pub(super) fn open(self: &Arc<Self>) -> Open {
        self.accepted.fetch_add(1, Ordering::SeqCst);
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_open.fetch_max(open, Ordering::SeqCst);
        Open(Arc::clone(self))
    }
}

/// A connection as the server counts it.
pub(super) struct Open(Arc<Seen>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) type Answer = Response<BoxBody<Bytes, Infallible>>;

pub(super) fn answer(body: impl Into<Bytes>) -> Answer {
    Response::new(Full::new(body.into()).boxed())
}

/// Binds a listener on a free port.
pub(super) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Accepts connections to be served by `serve`, and counts them.
async fn counted<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> (SocketAddr, Arc<Seen>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let seen = Arc::new(Seen::default());
    let (listener, address) = listen().await;
    let counts = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let open = counts.open();
            let serving = serve(stream);
            tokio::spawn(async move {
                serving.await;
                drop(open);
            });
        }
    });
    (address, seen)
}

/// Serves HTTP/1.1 with `handle`.
pub(super) async fn http1<F>(
    handle: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) -> (SocketAddr, Arc<Seen>)
where
    F: Future<Output = Answer> + Send + 'static,
{
    counted(move |stream| serve_http1(stream, handle.clone())).await
}

pub(super) async fn serve_http1<F>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    handle: impl Fn(Request<Incoming>) -> F + Send + Sync,
) where
    F: Future<Output = Answer>,
{
    let service = service_fn(|request| {
        let answering = handle(request);
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let _ended = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

/// Serves HTTP/2 with `handle` and at most `streams` at once on a connection.
pub(super) async fn http2<F>(
    streams: u32,
    handle: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) -> (SocketAddr, Arc<Seen>)
where
    F: Future<Output = Answer> + Send + 'static,
{
    counted(move |stream| serve_http2(stream, streams, handle.clone())).await
}

pub(super) async fn serve_http2<F>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    streams: u32,
    handle: impl Fn(Request<Incoming>) -> F + Send + Sync,
) where
    F: Future<Output = Answer> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answering = handle(request);
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let _ended = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Serves HTTP/1.1 with answers that wait for `latch`.
pub(super) async fn latched(latch: &Latch) -> (SocketAddr, Arc<Seen>) {
    let latch = latch.clone();
    http1(move |_| {
        let latch = latch.clone();
        async move {
            latch.opened().await;
            answer("done")
        }
    })
    .await
}

/// Serves HTTP/1.1 and HTTP/2 on one port, and answers which of them it was.
pub(super) async fn of_both_versions() -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut first = [0; 3];
                stream.peek(&mut first).await.unwrap();
                let version = async |request: Request<_>| answer(format!("{:?}", request.version()));
                if &first == b"PRI" {
                    serve_http2(stream, 10, version).await
                } else {
                    serve_http1(stream, version).await
                }
            });
        }
    });
    address
}

/// Asks for HTTP/2 of an upstream.
pub(super) const HTTP2: &str = r#""protocol": "http2""#;

/// A configuration of an upstream with `endpoint`, as YAML-like JSON with more keys.
pub(super) fn config(endpoint: &str, more: &str) -> config::Upstream {
    let comma = if more.is_empty() { "" } else { "," };
    serde_json::from_str(&format!(r#"{{"endpoints": ["{endpoint}"]{comma} {more}}}"#)).unwrap()
}

pub(super) fn upstream(address: SocketAddr, more: &str) -> Upstream {
    Upstream::new("orders", &config(&format!("http://{address}"), more)).unwrap()
}

pub(super) fn endpoint(address: SocketAddr, more: &str) -> Arc<Endpoint> {
    Arc::clone(&upstream(address, more).endpoints()[0])
}

/// A call without a deadline.
pub(super) fn call() -> Call {
    Call::at(Instant::EPOCH)
}

pub(super) fn get(path: &str) -> Request<RequestBody> {
    Request::get(path).header("host", "api.example").body(RequestBody::empty()).unwrap()
}

pub(super) fn post(path: &str, body: impl Into<Bytes>) -> Request<RequestBody> {
    Request::post(path).header("host", "api.example").body(RequestBody::from(body.into())).unwrap()
}

/// A request as a client sent it, to be passed on.
pub(super) fn passed_on(request: Request<Incoming>) -> Request<RequestBody> {
    let any = Allowance { bytes: None, idle: None, min_rate: 0 };
    request.map(|body| RequestBody::Incoming(Box::new(Upload::new(body, any).0)))
}

/// Passes what a client sent on to `endpoint`, and its answer back.
pub(super) async fn relayed(endpoint: Arc<Endpoint>, request: Request<Incoming>) -> Answer {
    let response = endpoint.send(passed_on(request), &call()).await.unwrap();
    response.map(|body| body.map_err(|error| panic!("{error}")).boxed())
}

/// Reads a response to its end.
pub(super) async fn read(response: Response<UpstreamBody>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

pub(super) async fn fetch(endpoint: &Endpoint, request: Request<RequestBody>) -> Result<Bytes, SendError> {
    Ok(read(endpoint.send(request, &call()).await?).await)
}

/// Polls until `seen` holds; the runtime has nothing else to tell it.
pub(super) async fn until(what: &str, seen: impl Fn() -> bool) {
    let waited = async {
        while !seen() {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, waited).await.is_ok(), "never happened: {what}");
}

/// Something that stands closed until it is opened for all.
#[derive(Clone)]
pub(super) struct Latch(watch::Sender<bool>);

impl Latch {
    pub(super) fn closed() -> Self {
        Self(watch::channel(false).0)
    }

    pub(super) fn open(&self) {
        self.0.send_replace(true);
    }

    pub(super) async fn opened(&self) {
        self.0.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

/// Nothing is under way and nothing is open.
pub(super) fn is_at_rest(endpoint: &Endpoint) -> bool {
    let stats = endpoint.connections();
    endpoint.in_flight() == 0 && stats.open == 0 && stats.waiting == 0 && stats.streams == 0
}

/// Takes a connection and never says a word.
pub(super) async fn mute() -> (SocketAddr, tokio::task::JoinHandle<Vec<TcpStream>>) {
    let (listener, address) = listen().await;
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
        held
    });
    (address, held)
}
