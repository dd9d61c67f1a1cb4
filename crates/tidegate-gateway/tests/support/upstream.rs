//! An upstream inside the test, HTTP/1.1 and HTTP/2, that answers as the test says and counts what reaches it.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpListener, task::JoinSet};

use super::client::RequestBody as Body;

/// A running upstream. Dropping it closes its port and its connections.
pub struct Upstream {
    addr: SocketAddr,
    counts: Arc<Counts>,
    accept: tokio::task::AbortHandle,
}

#[derive(Default)]
struct Counts {
    calls: AtomicUsize,
    live: AtomicUsize,
    peak: AtomicUsize,
    connections: AtomicUsize,
}

impl Upstream {
    /// Starts one on a free port that answers every request with `answer`.
    pub async fn start<A, F>(answer: A) -> Self
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::start_at(([127, 0, 0, 1], 0).into(), answer).await
    }

    /// Starts one on this port.
    pub async fn start_at<A, F>(addr: SocketAddr, answer: A) -> Self
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::serve(addr, None, answer).await
    }

    /// Starts one on a free port that admits so many HTTP/2 streams to a connection.
    pub async fn start_with_streams<A, F>(most: u32, answer: A) -> Self
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::serve(([127, 0, 0, 1], 0).into(), Some(most), answer).await
    }

    async fn serve<A, F>(addr: SocketAddr, streams: Option<u32>, answer: A) -> Self
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let counted = counts.clone();
        let accept = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                counted.connections.fetch_add(1, Ordering::Relaxed);
                let (answer, counts) = (answer.clone(), counted.clone());
                let service = service_fn(move |request| {
                    let (answer, live) = (answer.clone(), Live::enter(&counts));
                    async move {
                        let response = answer(request).await;
                        drop(live);
                        Ok::<_, Infallible>(response)
                    }
                });
                connections.spawn(async move {
                    let mut server = auto::Builder::new(TokioExecutor::new());
                    if streams.is_some() {
                        server.http2().max_concurrent_streams(streams);
                    }
                    let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                });
            }
        })
        .abort_handle();
        Self { addr, counts, accept }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Requests that reached it.
    pub fn calls(&self) -> usize {
        self.counts.calls.load(Ordering::Relaxed)
    }

    /// Requests that it is answering now, to the head of the answer.
    pub fn live(&self) -> usize {
        self.counts.live.load(Ordering::Relaxed)
    }

    /// Most requests that it answered at once.
    pub fn peak(&self) -> usize {
        self.counts.peak.load(Ordering::Relaxed)
    }

    /// Connections that were made to it.
    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

struct Live(Arc<Counts>);

impl Live {
    fn enter(counts: &Arc<Counts>) -> Self {
        counts.calls.fetch_add(1, Ordering::Relaxed);
        let live = counts.live.fetch_add(1, Ordering::Relaxed) + 1;
        counts.peak.fetch_max(live, Ordering::Relaxed);
        Self(counts.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}
