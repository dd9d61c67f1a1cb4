//! A gRPC service with the four kinds of calls, over tonic's own client and server, written by hand so that no protoc is
//! needed. Each call does what its first message says, and the server tracks how many are live.
#![allow(dead_code, reason = "each test uses the part it needs")]

use std::{
    convert::Infallible,
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
use http::{Request as HttpRequest, Response as HttpResponse, uri::PathAndQuery};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot, watch},
};
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    client::{Grpc as ClientGrpc, GrpcService},
    codec::CompressionEncoding,
    server::{
        ClientStreamingService, Grpc, NamedService, ServerStreamingService, StreamingService, UnaryService,
    },
    transport::{Channel, Endpoint, Server},
};
use tonic_prost::ProstCodec;

/// What a caller asks for.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Ask {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
    /// Messages in a streamed response.
    #[prost(uint32, tag = "2")]
    pub(crate) count: u32,
    /// Ends with this status code instead of OK; a stream sends its messages first.
    #[prost(int32, tag = "3")]
    pub(crate) code: i32,
    /// Waits for [`Counts::release`] before it ends.
    #[prost(bool, tag = "4")]
    pub(crate) hold: bool,
    /// Panics.
    #[prost(bool, tag = "5")]
    pub(crate) panic: bool,
}

/// What it gets.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Told {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
    #[prost(uint32, tag = "2")]
    pub(crate) number: u32,
}

pub(crate) fn ask(text: &str) -> Ask {
    Ask { text: text.into(), ..Ask::default() }
}

pub(crate) fn hold() -> Ask {
    Ask { hold: true, count: 1, ..Ask::default() }
}

const NAME: &str = "tidegate.test.Echo";

pub(crate) type Tolds = Pin<Box<dyn Stream<Item = Result<Told, Status>> + Send>>;
type Later<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

/// What happened at the server.
pub(crate) struct Counts {
    pub(crate) calls: AtomicUsize,
    live: watch::Sender<usize>,
    peak: AtomicUsize,
    held: Semaphore,
}

impl Counts {
    fn enter(self: &Arc<Self>) -> Live {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.live.send_modify(|live| *live += 1);
        let live = *self.live.borrow();
        self.peak.fetch_max(live, Ordering::SeqCst);
        Live(self.clone())
    }

    async fn end(&self, ask: &Ask) -> Result<(), Status> {
        assert!(!ask.panic, "as asked");
        if ask.hold {
            self.held.acquire().await.expect("the semaphore is never closed").forget();
        }
        if ask.code == 0 { Ok(()) } else { Err(Status::new(Code::from(ask.code), "as asked")) }
    }

    /// Lets so many held calls go on.
    pub(crate) fn release(&self, calls: usize) {
        self.held.add_permits(calls);
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }

    /// Waits until exactly so many calls are live.
    pub(crate) async fn until_live(&self, count: usize) {
        self.live.subscribe().wait_for(|live| *live == count).await.expect("the counts live on");
    }
}

pub(crate) struct Live(Arc<Counts>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.send_modify(|live| *live -= 1);
    }
}

/// A stream that is a live call until its last message.
struct Counted {
    inner: Tolds,
    live: Option<Live>,
}

impl Stream for Counted {
    type Item = Result<Told, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.inner.poll_next_unpin(cx);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            self.live = None;
        }
        next
    }
}

#[derive(Clone)]
pub(crate) struct Echo(pub(crate) Arc<Counts>);

impl Default for Echo {
    fn default() -> Self {
        Self(Arc::new(Counts {
            calls: AtomicUsize::new(0),
            live: watch::channel(0).0,
            peak: AtomicUsize::new(0),
            held: Semaphore::new(0),
        }))
    }
}

impl NamedService for Echo {
    const NAME: &'static str = NAME;
}

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
            let (mut asks, mut number, mut last) = (request.into_inner(), 0, Ask::default());
            while let Some(ask) = asks.message().await? {
                (number, last) = (number + 1, ask);
            }
            counts.end(&last).await?;
            Ok(Response::new(Told { text: last.text, number }))
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
        let end =
            stream::once(async move { counts.end(&ask).await }).filter_map(async |end| end.err().map(Err));
        let inner: Tolds = Box::pin(messages.chain(end));
        Box::pin(async move { Ok(Response::new(Box::pin(Counted { inner, live: Some(live) }) as Tolds)) })
    }
}

impl StreamingService<Ask> for Echo {
    type Response = Told;
    type ResponseStream = Tolds;
    type Future = Later<Response<Tolds>>;

    fn call(&mut self, request: Request<Streaming<Ask>>) -> Self::Future {
        let (counts, live) = (self.0.clone(), self.0.enter());
        let answers = stream::unfold((request.into_inner(), counts), |(mut asks, counts)| async move {
            let told = match asks.message().await {
                Ok(ask) => {
                    let ask = ask?;
                    counts.end(&ask).await.map(|()| Told { text: ask.text, number: 1 })
                }
                Err(status) => Err(status),
            };
            Some((told, (asks, counts)))
        });
        let inner: Tolds = Box::pin(answers);
        Box::pin(async move { Ok(Response::new(Box::pin(Counted { inner, live: Some(live) }) as Tolds)) })
    }
}

impl tower::Service<HttpRequest<Body>> for Echo {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<Told, Ask>::default())
                .accept_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Gzip);
            Ok(match request.uri().path().rsplit('/').next() {
                Some("Unary") => grpc.unary(echo, request).await,
                Some("Collect") => grpc.client_streaming(echo, request).await,
                Some("List") => grpc.server_streaming(echo, request).await,
                Some("Chat") => grpc.streaming(echo, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// A running tonic server.
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) counts: Arc<Counts>,
    task: tokio::task::JoinHandle<()>,
    shutdown: Option<oneshot::Sender<()>>,
}

impl Running {
    /// Says GOAWAY and lets live calls finish.
    pub(crate) fn go_away(&mut self) {
        let _ = self.shutdown.take().map(|shutdown| shutdown.send(()));
    }

    pub(crate) fn channel(&self) -> Channel {
        endpoint(self.addr).connect_lazy()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A wire to a server, which breaks when it is dropped.
pub(crate) struct Wire {
    pub(crate) addr: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Wire {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has free ports");
        let addr = listener.local_addr().expect("it is bound");
        let task = tokio::spawn(async move {
            let mut wires = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                wires.spawn(async move {
                    let Ok(mut far) = TcpStream::connect(server).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { addr, task }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn endpoint(addr: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{addr}")).expect("an address makes a URL")
}

pub(crate) async fn start() -> Running {
    start_with(Server::builder()).await
}

/// Starts the service on a free port, with what `server` puts before it.
pub(crate) async fn start_with<L, R>(mut server: Server<L>) -> Running
where
    L: tower::Layer<tonic::service::Routes> + Clone + Send + 'static,
    L::Service: tower::Service<HttpRequest<Body>, Response = HttpResponse<R>> + Clone + Send + 'static,
    <L::Service as tower::Service<HttpRequest<Body>>>::Future: Send,
    <L::Service as tower::Service<HttpRequest<Body>>>::Error:
        Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    R: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has free ports");
    let addr = listener.local_addr().expect("it is bound");
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let echo = Echo::default();
    let counts = echo.0.clone();
    let (shutdown, stop) = oneshot::channel::<()>();
    let server = server.add_service(echo).serve_with_incoming_shutdown(incoming, async move {
        let _ = stop.await;
    });
    let task = tokio::spawn(async move { server.await.expect("the server runs to its end") });
    Running { addr, counts, task, shutdown: Some(shutdown) }
}

/// A client of the service, over any transport.
#[derive(Clone)]
pub(crate) struct Client<T>(ClientGrpc<T>);

type Error = Box<dyn std::error::Error + Send + Sync>;

impl<T> Client<T>
where
    T: GrpcService<Body>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<Error>,
    T::Error: Into<Error>,
{
    pub(crate) fn new(transport: T) -> Self {
        Self(ClientGrpc::new(transport))
    }

    pub(crate) fn compressed(transport: T) -> Self {
        let grpc = ClientGrpc::new(transport);
        Self(grpc.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip))
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.0.ready().await.map_err(|error| Status::from_error(error.into()))
    }

    pub(crate) async fn unary(&mut self, ask: impl tonic::IntoRequest<Ask>) -> Result<Told, Status> {
        self.ready().await?;
        let told = self.0.unary(ask.into_request(), path("Unary"), ProstCodec::default()).await;
        told.map(Response::into_inner)
    }

    pub(crate) async fn collect(
        &mut self,
        asks: impl Stream<Item = Ask> + Send + 'static,
    ) -> Result<Told, Status> {
        self.ready().await?;
        let told = self.0.client_streaming(Request::new(asks), path("Collect"), ProstCodec::default()).await;
        told.map(Response::into_inner)
    }

    pub(crate) async fn list(&mut self, ask: Ask) -> Result<Streaming<Told>, Status> {
        self.ready().await?;
        let told = self.0.server_streaming(Request::new(ask), path("List"), ProstCodec::default()).await;
        told.map(Response::into_inner)
    }

    pub(crate) async fn chat(
        &mut self,
        asks: impl Stream<Item = Ask> + Send + 'static,
    ) -> Result<Streaming<Told>, Status> {
        self.ready().await?;
        let told = self.0.streaming(Request::new(asks), path("Chat"), ProstCodec::default()).await;
        told.map(Response::into_inner)
    }

    /// One call of `kind`, held at the server, read to its end.
    pub(crate) async fn held(&mut self, kind: Kind) -> Result<(), Status> {
        self.call(kind, hold()).await
    }

    /// One call of `kind` with one message, read to its end.
    pub(crate) async fn call(&mut self, kind: Kind, ask: Ask) -> Result<(), Status> {
        let mut tolds = match kind {
            Kind::Unary => return self.unary(ask).await.map(drop),
            Kind::ClientStream => return self.collect(stream::iter([ask])).await.map(drop),
            Kind::ServerStream => self.list(ask).await?,
            Kind::Bidi => self.chat(stream::iter([ask])).await?,
        };
        while tolds.message().await?.is_some() {}
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Unary,
    ClientStream,
    ServerStream,
    Bidi,
}

pub(crate) const KINDS: [Kind; 4] = [Kind::Unary, Kind::ClientStream, Kind::ServerStream, Kind::Bidi];

fn path(method: &str) -> PathAndQuery {
    format!("/{NAME}/{method}").parse().expect("a path")
}
