//! Callers that never give up: each sends one call after the other to its gateway, whatever becomes of them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http_body_util::BodyExt as _;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use super::{
    client::{RequestBody, empty, request},
    eventually,
    tally::{KEY, SENT, micros},
};

/// The shortest time from one call of a caller to its next: what the gateway gets is bounded.
const PACE: Duration = Duration::from_millis(3);

/// Running callers. Dropping it ends them.
pub struct Load {
    counts: Arc<Counts>,
    _callers: JoinSet<()>,
}

#[derive(Default)]
struct Counts {
    admitted: AtomicUsize,
    refused: AtomicUsize,
    other: AtomicUsize,
}

impl Load {
    /// Starts `callers` at each of these gateways, with this key.
    pub fn start(gateways: &[SocketAddr], key: &str, callers: usize) -> Self {
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        for gateway in gateways {
            for _ in 0..callers {
                tasks.spawn(call_on(*gateway, key.to_owned(), counts.clone()));
            }
        }
        Self { counts, _callers: tasks }
    }

    /// Calls that were answered with 200.
    pub fn admitted(&self) -> usize {
        self.counts.admitted.load(Relaxed)
    }

    /// Calls that were refused: 429 for the limit, 503 while the store is away.
    pub fn refused(&self) -> usize {
        self.counts.refused.load(Relaxed)
    }

    /// Calls that were answered otherwise.
    pub fn other(&self) -> usize {
        self.counts.other.load(Relaxed)
    }

    /// Waits until so many more were admitted.
    pub async fn admits(&self, more: usize) {
        self.has_admitted(self.admitted() + more).await;
    }

    /// Waits until so many were admitted in all.
    pub async fn has_admitted(&self, goal: usize) {
        eventually(&format!("{goal} calls admitted"), async || self.admitted() >= goal).await;
    }

    /// Waits until so many more were refused.
    pub async fn refuses(&self, more: usize) {
        let goal = self.refused() + more;
        eventually(&format!("{more} more calls refused"), async || self.refused() >= goal).await;
    }
}

async fn call_on(gateway: SocketAddr, key: String, counts: Arc<Counts>) {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sender: Option<SendRequest<RequestBody>> = None;
    loop {
        pace.tick().await;
        let mut open = match sender.take() {
            Some(open) => open,
            None => match connect(gateway).await {
                Some(open) => open,
                None => continue,
            },
        };
        let call = request("GET", "/").header(KEY, &key).header(SENT, micros()).body(empty()).unwrap();
        // A gateway that was killed breaks off; the next call finds out whether it is back.
        let Ok(response) = open.send_request(call).await else { continue };
        let count = match response.status().as_u16() {
            200 => &counts.admitted,
            429 | 503 => &counts.refused,
            _ => &counts.other,
        };
        count.fetch_add(1, Relaxed);
        if response.into_body().collect().await.is_ok() && open.ready().await.is_ok() {
            sender = Some(open);
        }
    }
}

async fn connect(gateway: SocketAddr) -> Option<SendRequest<RequestBody>> {
    let stream = TcpStream::connect(gateway).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    Some(sender)
}
