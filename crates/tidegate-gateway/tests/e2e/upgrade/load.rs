//! Clients of every kind, one call after the other: on a connection that is kept, on a connection each, and over HTTP/2.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::{net::TcpStream, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::support::{
    client::{RequestBody, empty, request, request2},
    eventually,
};

/// The kinds, by their place in the counts.
const KEPT: usize = 0;
const FRESH: usize = 1;
const STREAMS: usize = 2;
/// Clients of each kind: enough that one is always in the middle of a call.
const OF_EACH: usize = 4;
/// Calls that each kind makes before the next thing happens.
const A_WHILE: usize = 50;

/// Running clients.
pub(super) struct Load {
    counts: Arc<Counting>,
    stop: CancellationToken,
    clients: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Counting {
    answered: [AtomicUsize; 3],
    lost: AtomicUsize,
    why: Mutex<String>,
}

/// What became of the calls.
#[derive(Debug)]
pub(super) struct Counts {
    /// By kind: kept connections, a connection each, HTTP/2.
    pub(super) answered: [usize; 3],
    pub(super) lost: usize,
    /// Of the last one that was lost.
    pub(super) why: String,
}

impl Load {
    pub(super) fn start(gateway: SocketAddr) -> Self {
        let (counts, stop) = (Arc::new(Counting::default()), CancellationToken::new());
        let mut clients = JoinSet::new();
        for _ in 0..OF_EACH {
            clients.spawn(kept(gateway, counts.clone(), stop.clone()));
            clients.spawn(fresh(gateway, counts.clone(), stop.clone()));
            clients.spawn(streams(gateway, counts.clone(), stop.clone()));
        }
        Self { counts, stop, clients }
    }

    /// Waits until clients of each kind have made more calls.
    pub(super) async fn goes_on(&self) {
        for answered in &self.counts.answered {
            let goal = answered.load(Relaxed) + A_WHILE;
            eventually("more calls", async || answered.load(Relaxed) >= goal).await;
        }
    }

    /// Ends the clients between two calls, and tells what became of all.
    pub(super) async fn end(mut self) -> Counts {
        self.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        Counts {
            answered: self.counts.answered.each_ref().map(|count| count.load(Relaxed)),
            lost: self.counts.lost.load(Relaxed),
            why: self.counts.why.lock().clone(),
        }
    }
}

impl Counting {
    fn lose(&self, kind: usize, why: &dyn std::fmt::Debug) {
        self.lost.fetch_add(1, Relaxed);
        *self.why.lock() = format!("kind {kind}: {why:?}");
    }

    /// Reads an answer; whether its connection goes on.
    async fn take(&self, kind: usize, response: Result<Response<Incoming>, hyper::Error>) -> bool {
        let response = match response {
            Ok(response) if response.status() == StatusCode::OK => response,
            Ok(response) => {
                self.lose(kind, &response.status());
                return false;
            }
            Err(error) => {
                self.lose(kind, &error);
                return false;
            }
        };
        let goes_on = response.headers().get("connection").is_none_or(|value| value != "close");
        match response.into_body().collect().await {
            Ok(body) => {
                assert_eq!(body.to_bytes(), "hello");
                self.answered[kind].fetch_add(1, Relaxed);
            }
            Err(error) => self.lose(kind, &error),
        }
        goes_on
    }

    async fn connect(&self, kind: usize, gateway: SocketAddr) -> Option<TokioIo<TcpStream>> {
        match TcpStream::connect(gateway).await {
            Ok(stream) => {
                stream.set_nodelay(true).unwrap();
                Some(TokioIo::new(stream))
            }
            Err(error) => {
                self.lose(kind, &error);
                None
            }
        }
    }
}

async fn open(
    counts: &Counting,
    kind: usize,
    gateway: SocketAddr,
) -> Option<http1::SendRequest<RequestBody>> {
    let (sender, connection) = http1::handshake(counts.connect(kind, gateway).await?).await.unwrap();
    tokio::spawn(connection);
    Some(sender)
}

async fn usable(held: Option<http1::SendRequest<RequestBody>>) -> Option<http1::SendRequest<RequestBody>> {
    let mut sender = held?;
    sender.ready().await.is_ok().then_some(sender)
}

async fn kept(gateway: SocketAddr, counts: Arc<Counting>, stop: CancellationToken) {
    let mut held: Option<http1::SendRequest<RequestBody>> = None;
    while !stop.is_cancelled() {
        // As pools do: one that is known to be closed is not used.
        let mut sender = match usable(held.take()).await {
            Some(sender) => sender,
            None => match open(&counts, KEPT, gateway).await {
                Some(sender) => sender,
                None => continue,
            },
        };
        let call = sender.send_request(request("GET", "/").body(empty()).unwrap());
        if counts.take(KEPT, call.await).await {
            held = Some(sender);
        }
    }
}

async fn fresh(gateway: SocketAddr, counts: Arc<Counting>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let Some(mut sender) = open(&counts, FRESH, gateway).await else { continue };
        let call = request("GET", "/").header("connection", "close").body(empty()).unwrap();
        counts.take(FRESH, sender.send_request(call).await).await;
    }
}

async fn streams(gateway: SocketAddr, counts: Arc<Counting>, stop: CancellationToken) {
    let mut held: Option<http2::SendRequest<RequestBody>> = None;
    while !stop.is_cancelled() {
        if let Some(sender) = &mut held
            && sender.ready().await.is_err()
        {
            held = None;
        }
        let mut sender = match held.take() {
            Some(sender) => sender,
            None => match open2(&counts, gateway).await {
                Some(sender) => sender,
                None => continue,
            },
        };
        match sender.try_send_request(request2("GET", "/").body(empty()).unwrap()).await {
            Ok(response) => {
                counts.take(STREAMS, Ok(response)).await;
                held = Some(sender);
            }
            Err(mut error) => {
                // One that comes back was not sent: the gateway had said GOAWAY.
                if error.take_message().is_none() {
                    counts.lose(STREAMS, &error.into_error());
                }
            }
        }
    }
}

async fn open2(counts: &Counting, gateway: SocketAddr) -> Option<http2::SendRequest<RequestBody>> {
    let stream = counts.connect(STREAMS, gateway).await?;
    match http2::Builder::new(TokioExecutor::new()).handshake(stream).await {
        Ok((sender, connection)) => {
            tokio::spawn(connection);
            Some(sender)
        }
        Err(error) => {
            counts.lose(STREAMS, &error);
            None
        }
    }
}
