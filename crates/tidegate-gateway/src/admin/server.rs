//! The listener behind the pages: few connections, each bounded in time and bytes.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    os::fd::AsFd as _,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{AdminSource, Audience, router};
use crate::telemetry::Telemetry;

/// Most connections at once; further ones wait to be accepted.
const MOST_CONNECTIONS: usize = 64;
/// Time to send a request head, and the longest silence between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection serves requests. A keep-alive client makes a new one then.
const LIFETIME: Duration = Duration::from_secs(120);
/// How long the request that is being answered then may take.
const LAST_REQUEST: Duration = Duration::from_secs(5);
/// Most bytes of a request head.
const MOST_HEAD_BYTES: usize = 16 << 10;
/// Pause after an accept that failed because of us, like too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound admin listener.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    stats: Arc<AdminStats>,
}

/// What became of its connections.
#[derive(Debug, Default)]
pub struct AdminStats {
    accepted: AtomicU64,
    open: AtomicUsize,
}

impl AdminStats {
    /// Connections taken since the start.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Connections now.
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed) as u64
    }

    /// Most connections at once.
    pub const fn most(&self) -> u64 {
        MOST_CONNECTIONS as u64
    }
}

impl Admin {
    /// Binds to `address`.
    ///
    /// # Errors
    /// What the system answers: the address is taken, or not ours.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Self::open(TcpListener::bind(address).await?)
    }

    /// Listens on a socket that somebody else bound.
    ///
    /// # Errors
    /// What the system says.
    pub fn adopt(socket: std::net::TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Self::open(TcpListener::from_std(socket)?)
    }

    /// Another handle of its socket, to be handed to another process. The address is taken for as long as one lives.
    ///
    /// # Errors
    /// When there is no file descriptor left.
    pub fn share(&self) -> io::Result<std::net::TcpListener> {
        Ok(self.listener.as_fd().try_clone_to_owned()?.into())
    }

    fn open(listener: TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        if Audience::of(address) == Audience::Network {
            tracing::warn!(%address, "the admin pages are open to the network; they have no login");
        }
        Ok(Self { listener, address, stats: Arc::default() })
    }

    /// The address it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What becomes of its connections.
    pub fn stats(&self) -> Arc<AdminStats> {
        Arc::clone(&self.stats)
    }

    /// Serves the pages until `stop` is done, then lets the requests under way end, for five seconds at most.
    ///
    /// # Cancel safety
    /// Dropping the future closes the listener and every connection.
    pub async fn serve(
        self,
        source: Arc<dyn AdminSource>,
        telemetry: Arc<Telemetry>,
        stop: impl Future<Output = ()>,
    ) {
        let pages = router(source, telemetry, Audience::of(self.address));
        let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let stopping = CancellationToken::new();
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            let accepted = async {
                let place = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
                (self.listener.accept().await, place)
            };
            tokio::select! {
                () = &mut stop => break,
                (accepted, place) = accepted => match accepted {
                    Ok((stream, peer)) => {
                        self.stats.accepted.fetch_add(1, Relaxed);
                        let pages = pages.clone().layer(Extension(peer));
                        let (pages, stopping) = (pages, stopping.clone());
                        connections.spawn(async move {
                            connection(stream, pages, stopping.cancelled()).await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the admin listener could not accept");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_ended) = connections.join_next() => {}
            }
            self.stats.open.store(connections.len(), Relaxed);
        }
        drop(self.listener);
        stopping.cancel();
        let _late = timeout(LAST_REQUEST, async { while connections.join_next().await.is_some() {} }).await;
    }
}

/// Serves one connection until it ends, lived long enough, or the listener stops.
async fn connection(stream: TcpStream, pages: Router, stopping: impl Future<Output = ()>) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MOST_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(pages));
    let mut connection = pin!(connection);
    // How a connection ends is its client's affair.
    tokio::select! {
        _ended = connection.as_mut() => return,
        () = sleep(LIFETIME) => {}
        () = stopping => {}
    }
    connection.as_mut().graceful_shutdown();
    let _late = timeout(LAST_REQUEST, connection).await;
}
