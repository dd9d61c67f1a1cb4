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

/// What a refusal says of a store that did not answer.
const REASON: &[u8] = br#""reason":"store""#;

/// Running callers. Dropping it ends them.
pub struct Load {
    counts: Arc<Counts>,
    _callers: JoinSet<()>,
}

#[derive(Default)]
struct Counts {
    admitted: AtomicUsize,
    refused: AtomicUsize,
    without_store: AtomicUsize,
    other: AtomicUsize,
}

impl Load {
    /// Starts `callers` at each of these gateways, with this key.
    pub fn start(gateways: &[SocketAddr], key: &str, callers: usize) -> Self {
        Self::paced(gateways, key, callers, PACE)
    }

    /// The same, with so long from one call of a caller to its next.
    pub fn paced(gateways: &[SocketAddr], key: &str, callers: usize, pace: Duration) -> Self {
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        for gateway in gateways {
            for _ in 0..callers {
                tasks.spawn(call_on(*gateway, key.to_owned(), pace, counts.clone()));
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

    /// Of these, calls that were refused because the store did not answer.
    pub fn without_store(&self) -> usize {
        self.counts.without_store.load(Relaxed)
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

async fn call_on(gateway: SocketAddr, key: String, pace: Duration, counts: Arc<Counts>) {
    let mut pace = tokio::time::interval(pace);
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
        let status = response.status().as_u16();
        let count = match status {
            200 => &counts.admitted,
            429 | 503 => &counts.refused,
            _ => &counts.other,
        };
        count.fetch_add(1, Relaxed);
        let Ok(body) = response.into_body().collect().await else { continue };
        if status == 503 && body.to_bytes().windows(REASON.len()).any(|part| part == REASON) {
            counts.without_store.fetch_add(1, Relaxed);
        }
        if open.ready().await.is_ok() {
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
