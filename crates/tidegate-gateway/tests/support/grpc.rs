//! A gRPC service with the four kinds of calls, over tonic, written by hand so that no protoc is needed.
//!
//! Every call does what its first message says, and counts as live until its response body is gone.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::{Stream, StreamExt as _, stream};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tonic::{
    Code, Request, Response, Status, Streaming,
    client::Grpc as ClientGrpc,
    codegen::http::uri::PathAndQuery,
    server::{ClientStreamingService, Grpc, ServerStreamingService, StreamingService, UnaryService},
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

/// What a caller asks for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ask {
    /// Comes back.
    #[prost(string, tag = "1")]
    pub text: String,
    /// Messages in a streamed response.
    #[prost(uint32, tag = "2")]
    pub count: u32,
    /// Ends with this status code instead of OK; a stream sends its messages first.
    #[prost(int32, tag = "3")]
    pub code: i32,
    /// Waits for [`GrpcServer::release`] before it ends.
    #[prost(bool, tag = "4")]
    pub hold: bool,
}

/// What it gets.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Told {
    /// What was asked; all texts of a stream, joined by commas.
    #[prost(string, tag = "1")]
    pub text: String,
    /// The number of the message in its stream, or of messages in the request.
    #[prost(uint32, tag = "2")]
    pub number: u32,
}

/// The path of the service.
pub const SERVICE: &str = "/tidegate.test.Echo";

type Told1 = Result<Response<Told>, Status>;
type Tolds = Pin<Box<dyn Stream<Item = Result<Told, Status>> + Send>>;
type Later<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

/// What happened at the server.
pub struct Counts {
    calls: AtomicUsize,
    live: AtomicUsize,
    peak: AtomicUsize,
    held: Semaphore,
}

impl Counts {
    fn enter(self: &Arc<Self>) -> Live {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let live = self.live.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(live, Ordering::SeqCst);
        Live(self.clone())
    }

    /// Does what every kind of call does at its end.
    async fn end(&self, ask: &Ask) -> Result<(), Status> {
        if ask.hold {
            self.held.acquire().await.expect("the semaphore is never closed").forget();
        }
        if ask.code == 0 {
            return Ok(());
        }
        let mut status = Status::new(Code::from(ask.code), "as asked");
        status.metadata_mut().insert("x-detail", "in the trailers".parse().expect("ASCII"));
        Err(status)
    }
}

struct Live(Arc<Counts>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A stream that counts as a live call until it is dropped.
struct Counted {
    inner: Tolds,
    _live: Live,
}

impl Stream for Counted {
    type Item = Result<Told, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.poll_next_unpin(cx)
    }
}

#[derive(Clone)]
struct Echo(Arc<Counts>);

impl UnaryService<Ask> for Echo {
    type Response = Told;
    type Future = Later<Response<Told>>;

    fn call(&mut self, request: Request<Ask>) -> Self::Future {
        let (counts, live) = (self.0.clone(), self.0.enter());
        Box::pin(async move {
            let _live = live;
            let ask = request.into_inner();
            counts.end(&ask).await?;
            Ok(Response::new(Told { text: ask.text, number: 1 }))
        })
    }
}

impl ClientStreamingService<Ask> for Echo {
    type Response = Told;
    type Future = Later<Response<Told>>;

    fn call(&mut self, request: Request<Streaming<Ask>>) -> Self::Future {
        let (counts, live) = (self.0.clone(), self.0.enter());
        Box::pin(async move {
            let _live = live;
            let mut asks = request.into_inner();
            let (mut texts, mut last) = (Vec::new(), Ask::default());
            while let Some(ask) = asks.message().await? {
                texts.push(ask.text.clone());
                last = ask;
            }
            counts.end(&last).await?;
            Ok(Response::new(Told { number: texts.len() as u32, text: texts.join(",") }))
        })
    }
}

impl ServerStreamingService<Ask> for Echo {
    type Response = Told;
    type ResponseStream = Tolds;
    type Future = Later<Response<Tolds>>;

    fn call(&mut self, request: Request<Ask>) -> Self::Future {
        let (counts, live) = (self.0.clone(), self.0.enter());
        let ask = request.into_inner();
        let text = ask.text.clone();
        let messages = stream::iter(1..=ask.count).map(move |number| Ok(Told { text: text.clone(), number }));
        let end = stream::once(async move { counts.end(&ask).await })
            .filter_map(|end| async move { end.err().map(Err) });
        let inner: Tolds = Box::pin(messages.chain(end));
        Box::pin(async move { Ok(Response::new(Box::pin(Counted { inner, _live: live }) as Tolds)) })
    }
}

impl StreamingService<Ask> for Echo {
    type Response = Told;
    type ResponseStream = Tolds;
    type Future = Later<Response<Tolds>>;

    fn call(&mut self, request: Request<Streaming<Ask>>) -> Self::Future {
        let (counts, live) = (self.0.clone(), self.0.enter());
        let asks = request.into_inner();
        let answers = stream::unfold((asks, counts, 0), |(mut asks, counts, number)| async move {
            let ask = match asks.message().await {
                Ok(ask) => ask?,
                Err(status) => return Some((Err(status), (asks, counts, number))),
            };
            let told = counts.end(&ask).await.map(|()| Told { text: ask.text, number: number + 1 });
            Some((told, (asks, counts, number + 1)))
        });
        let inner: Tolds = Box::pin(answers);
        Box::pin(async move { Ok(Response::new(Box::pin(Counted { inner, _live: live }) as Tolds)) })
    }
}

/// A running server. Dropping it closes its port and its connections.
pub struct GrpcServer {
    addr: SocketAddr,
    counts: Arc<Counts>,
    accept: tokio::task::AbortHandle,
}

impl GrpcServer {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into()).await
    }

    /// Starts one on this port.
    pub async fn start_at(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.expect("the port is free");
        let addr = listener.local_addr().expect("it is bound");
        let counts = Arc::new(Counts {
            calls: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            held: Semaphore::new(0),
        });
        let echo = Echo(counts.clone());
        let accept = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let echo = echo.clone();
                let service = service_fn(move |request| serve(echo.clone(), request));
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                connections.spawn(server.serve_connection(TokioIo::new(stream), service));
                while connections.try_join_next().is_some() {}
            }
        })
        .abort_handle();
        Self { addr, counts, accept }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Calls that reached it.
    pub fn calls(&self) -> usize {
        self.counts.calls.load(Ordering::SeqCst)
    }

    /// Calls that are not over yet.
    pub fn live(&self) -> usize {
        self.counts.live.load(Ordering::SeqCst)
    }

    /// Most calls at once.
    pub fn peak(&self) -> usize {
        self.counts.peak.load(Ordering::SeqCst)
    }

    /// Lets so many held calls go on.
    pub fn release(&self, calls: usize) {
        self.counts.held.add_permits(calls);
    }
}

impl Drop for GrpcServer {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn serve(
    echo: Echo,
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<tonic::body::Body>, std::convert::Infallible> {
    let mut grpc = Grpc::new(ProstCodec::<Told, Ask>::default());
    Ok(match request.uri().path().strip_prefix(SERVICE) {
        Some("/Unary") => grpc.unary(echo, request).await,
        Some("/Collect") => grpc.client_streaming(echo, request).await,
        Some("/List") => grpc.server_streaming(echo, request).await,
        Some("/Chat") => grpc.streaming(echo, request).await,
        _ => Status::unimplemented("no such method").into_http(),
    })
}

/// A client of the service.
#[derive(Clone)]
pub struct GrpcClient {
    grpc: ClientGrpc<Channel>,
}

impl GrpcClient {
    /// A client that connects to `addr` at its first call.
    pub fn new(addr: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{addr}")).expect("an address is a URL");
        Self { grpc: ClientGrpc::new(endpoint.connect_lazy()) }
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))
    }

    /// One message each way.
    pub async fn unary(&mut self, ask: impl tonic::IntoRequest<Ask>) -> Told1 {
        self.ready().await?;
        self.grpc.unary(ask.into_request(), path("/Unary"), ProstCodec::default()).await
    }

    /// Many messages up, one down.
    pub async fn collect(&mut self, asks: impl Stream<Item = Ask> + Send + 'static) -> Told1 {
        self.ready().await?;
        self.grpc.client_streaming(Request::new(asks), path("/Collect"), ProstCodec::default()).await
    }

    /// One message up, many down.
    pub async fn list(&mut self, ask: Ask) -> Result<Response<Streaming<Told>>, Status> {
        self.ready().await?;
        self.grpc.server_streaming(Request::new(ask), path("/List"), ProstCodec::default()).await
    }

    /// Many messages each way.
    pub async fn chat(
        &mut self,
        asks: impl Stream<Item = Ask> + Send + 'static,
    ) -> Result<Response<Streaming<Told>>, Status> {
        self.ready().await?;
        self.grpc.streaming(Request::new(asks), path("/Chat"), ProstCodec::default()).await
    }
}

fn path(method: &str) -> PathAndQuery {
    format!("{SERVICE}{method}").parse().expect("a path")
}

/// A message that comes back.
pub fn ask(text: &str) -> Ask {
    Ask { text: text.into(), ..Ask::default() }
}
