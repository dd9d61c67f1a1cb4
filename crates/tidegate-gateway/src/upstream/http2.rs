//! HTTP/2 connections to an endpoint: streams counted against the peer's bound, and a peer that has gone silent found out.
//!
//! They are driven over `h2` itself: a call takes a stream in its own task, without the spawn and the two channels that
//! hyper's client puts in between, and learns from the error whether the endpoint refused it unprocessed.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use tokio::time;

use super::{
    error::{ConnectError, Unsent},
    pool::{Pool, Slot},
    stream::{Counted, Io, Stream},
};

/// Most streams on one connection, when the peer allows more.
const MOST_STREAMS: usize = 1000;
/// Bytes a peer may send ahead: on one stream, and on a connection. A client that stops reading holds up to the first
/// number; 32 of them hold up the connection, so that few slow readers do not stall the others.
const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 16 << 20;
const MOST_HEADER_BYTES: u32 = 64 << 10;
/// How often a connection is looked at.
const WATCH_EVERY: Duration = Duration::from_secs(5);
/// Looks without an answer to a ping after which the peer counts as gone.
const PATIENCE: u32 = 2;
/// Looks without a byte, while calls are under way, after which the peer is asked for a sign of life without suspicion.
/// Just above five minutes: gRPC servers answer more frequent pings on silent streams with GOAWAY.
const SILENT_FOR: u32 = 62;

/// One connection, shared by its calls. It closes when it has left the pool and its last call is over.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Bytes>,
    streams: AtomicU32,
    idle_since: AtomicU32,
    home: usize,
    /// Set when a call was given up without a response head: maybe the peer hangs.
    suspect: Arc<AtomicBool>,
}

/// A place for one call on a connection, given back by drop.
#[derive(Debug)]
pub(super) struct StreamSlot {
    connection: Arc<Connection>,
    pool: Arc<Pool>,
    /// Whether the call has its response head.
    pub(super) answered: bool,
}

impl Connection {
    /// Speaks HTTP/2 over `io` once the peer has said hello, and adds the connection to the pool.
    ///
    /// # Errors
    /// When the peer does not answer in HTTP/2.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub(super) async fn start(io: Io, slot: Slot, home: usize, pool: &Arc<Pool>) -> Result<(), ConnectError> {
        let read = Arc::new(AtomicU64::new(0));
        let stream = Counted::new(Stream::new(io, slot), Arc::clone(&read));
        // No stream is allowed until the peer's SETTINGS say how many are, so that none is taken on a guess; and a peer
        // that does not speak HTTP/2 is found out before it is sent a call.
        let (sender, mut connection) = Builder::new()
            .initial_max_send_streams(0)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MOST_HEADER_BYTES)
            .enable_push(false)
            .handshake::<_, Bytes>(stream)
            .await
            .map_err(not_http2)?;
        std::future::poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(ended())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(not_http2(error))),
            Poll::Pending if connection.max_concurrent_send_streams() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        let suspect = Arc::new(AtomicBool::new(false));
        let this = Arc::new(Self {
            sender,
            streams: AtomicU32::new(0),
            idle_since: AtomicU32::new(pool.tick.load(Ordering::Relaxed)),
            home,
            suspect: Arc::clone(&suspect),
        });
        let leaving = Leaving { connection: Arc::downgrade(&this), pool: Arc::clone(pool) };
        tokio::spawn(drive(connection, read, suspect, leaving));
        pool.add(this);
        Ok(())
    }

    /// The shard it belongs to.
    pub(super) fn home(&self) -> usize {
        self.home
    }

    /// Calls under way on it.
    pub(super) fn streams(&self) -> u32 {
        self.streams.load(Ordering::SeqCst)
    }

    /// Whether it had no call for `limit` ticks. The caller holds the shard's lock, so no call begins meanwhile.
    pub(super) fn is_idle_for(&self, now: u32, limit: u32) -> bool {
        self.streams() == 0 && now.wrapping_sub(self.idle_since.load(Ordering::Relaxed)) >= limit
    }
}

impl StreamSlot {
    /// Takes a place, if the peer allows one more. The caller holds the shard's lock.
    pub(super) fn take(connection: &Arc<Connection>, pool: &Arc<Pool>) -> Option<Self> {
        let most = connection.sender.current_max_send_streams().min(MOST_STREAMS) as u32;
        connection
            .streams
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |streams| {
                (streams < most).then_some(streams + 1)
            })
            .ok()?;
        Some(Self { connection: Arc::clone(connection), pool: Arc::clone(pool), answered: true })
    }

    /// A sender for one request, unless the connection takes no more; then it has left the pool.
    pub(super) fn sender(&self) -> Result<SendRequest<Bytes>, h2::Error> {
        let mut sender = self.connection.sender.clone();
        match sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(error)) => {
                self.retire();
                Err(error)
            }
            Poll::Ready(Ok(())) | Poll::Pending => Ok(sender),
        }
    }

    /// Takes the connection out of the pool: it takes no new calls.
    pub(super) fn retire(&self) {
        self.pool.retire(&self.connection);
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        if !self.answered {
            self.connection.suspect.store(true, Ordering::Relaxed);
        }
        if self.connection.streams.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.connection.idle_since.store(self.pool.tick.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.pool.changed();
    }
}

/// Takes the connection out of the pool when its task ends, however it ends.
struct Leaving {
    connection: Weak<Connection>,
    pool: Arc<Pool>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.upgrade() {
            self.pool.retire(&connection);
        }
    }
}

/// Moves the connection's bytes to its end, and watches for a peer that is there no more.
async fn drive(
    mut connection: h2::client::Connection<Counted, Bytes>,
    read: Arc<AtomicU64>,
    suspect: Arc<AtomicBool>,
    leaving: Leaving,
) {
    let mut watch = Watch { ping: connection.ping_pong(), seen: 0, silent: 0, asked: false };
    let mut every = time::interval(WATCH_EVERY);
    every.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection to the endpoint ended");
                }
                break;
            }
            _ = every.tick() => {
                let busy = leaving.connection.upgrade().is_none_or(|connection| connection.streams() > 0);
                let suspected = suspect.swap(false, Ordering::Relaxed);
                match watch.look(read.load(Ordering::Relaxed), busy, suspected) {
                    Sight::Alive => {}
                    Sight::Gone => {
                        tracing::debug!("the endpoint does not answer pings; its connection is closed");
                        break;
                    }
                }
            }
        }
    }
    drop(leaving);
}

/// What is known of the peer's health.
struct Watch {
    ping: Option<h2::PingPong>,
    seen: u64,
    silent: u32,
    asked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    Alive,
    Gone,
}

impl Watch {
    /// Looks at a peer that has sent `read` bytes so far.
    fn look(&mut self, read: u64, busy: bool, suspected: bool) -> Sight {
        if read != self.seen {
            (self.seen, self.silent, self.asked) = (read, 0, false);
            return Sight::Alive;
        }
        self.silent += 1;
        if self.asked {
            return if self.silent > PATIENCE { Sight::Gone } else { Sight::Alive };
        }
        if suspected || (busy && self.silent >= SILENT_FOR) {
            if let Some(ping) = &mut self.ping {
                let _an_earlier_pong_makes_room = ping.poll_pong(&mut Context::from_waker(Waker::noop()));
                self.asked = ping.send_ping(h2::Ping::opaque()).is_ok();
            }
            self.silent = 0;
        }
        Sight::Alive
    }
}

fn ended() -> ConnectError {
    ConnectError::new(Unsent::Protocol, "the connection was closed before the HTTP/2 preface")
}

fn not_http2(error: h2::Error) -> ConnectError {
    if error.is_io() && error.get_io().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset) {
        return ConnectError::new(Unsent::Connect, error);
    }
    ConnectError::new(Unsent::Protocol, error)
}
