//! Opening connections: which protocol they will speak, who opens them, and who hears of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use http::HeaderMap;
use tidegate::clock;
use tidegate_core::Call;
use tokio::time::{self, Instant};

use super::{
    address,
    connect::{Agreed, Connector},
    error::{ConnectError, Unsent},
    http1, http2,
    pool::{Lent, Opening, Pool, Slot},
    queue::{Grant, Line},
    stream::Stream,
    sweep,
    tls::Offer,
};
use crate::config::Protocol;

/// What an endpoint's calls and its opening connections share.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connector: Connector,
    pub(super) protocol: Protocol,
    pub(super) idle: Duration,
    pub(super) pool: Arc<Pool>,
    /// What TLS last agreed on, under [`Protocol::Auto`].
    learned: AtomicU8,
}

const UNKNOWN: u8 = 0;
const HTTP1: u8 = 1;
const HTTP2: u8 = 2;

/// Which protocol a call goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Http1,
    /// HTTP/1.1 on a connection that the call may take over.
    Upgrade,
    Http2,
    /// What TLS agrees on; until the first connection nobody knows.
    Unknown,
}

/// How a call comes to HTTP/2.
#[derive(Debug)]
pub(super) enum Reached {
    Stream(http2::StreamSlot),
    /// The endpoint speaks another protocol after all.
    Again,
}

impl Link {
    pub(super) fn new(connector: Connector, protocol: Protocol, idle: Duration, pool: Arc<Pool>) -> Self {
        Self { connector, protocol, idle, pool, learned: AtomicU8::new(UNKNOWN) }
    }

    /// Decides by what protocol a call goes.
    pub(super) fn wire(&self, headers: &HeaderMap) -> Wire {
        if address::upgrades(headers) {
            return Wire::Upgrade;
        }
        match (self.protocol, &self.connector.tls) {
            (Protocol::Http1, _) => Wire::Http1,
            (Protocol::Http2, _) => Wire::Http2,
            (Protocol::Auto, None) if address::is_grpc(headers) => Wire::Http2,
            (Protocol::Auto, None) => Wire::Http1,
            (Protocol::Auto, Some(_)) => match self.learned.load(Ordering::Relaxed) {
                HTTP1 => Wire::Http1,
                HTTP2 => Wire::Http2,
                _ => Wire::Unknown,
            },
        }
    }

    /// Takes an idle HTTP/1 connection or opens one, in turn.
    ///
    /// # Errors
    /// When none could be opened or none became free in time.
    ///
    /// # Cancel safety
    /// Dropping the future gives the place up, or closes what was being opened.
    pub(super) async fn http1(&self, wire: Wire, call: &Call) -> Result<http1::Boxed, ConnectError> {
        let home = self.pool.home();
        let slot = if self.pool.queue.is_waiting_in(Line::Http1) {
            None
        } else {
            if let Some(connection) = self.pool.own_http1(home) {
                return Ok(connection);
            }
            match self.pool.reserve() {
                Some(slot) => Some(slot),
                None => {
                    let mut dead = Vec::new();
                    if let Some(connection) = self.pool.any_http1(home, &mut dead) {
                        return Ok(connection);
                    }
                    None
                }
            }
        };
        match slot {
            Some(slot) => Box::pin(self.open_http1(slot, home, wire)).await,
            None => Box::pin(self.wait_http1(home, wire, call)).await,
        }
    }

    async fn wait_http1(&self, home: usize, wire: Wire, call: &Call) -> Result<http1::Boxed, ConnectError> {
        let (grant, _) =
            time::timeout_at(self.patience(call), self.pool.enter(Line::Http1, home, None)?.turn())
                .await
                .map_err(|_| Unsent::PoolTimeout)?;
        match grant {
            Grant::Connection(lent) => Ok(Lent::keep(lent)),
            Grant::Slot(slot) => self.open_http1(slot, home, wire).await,
            Grant::Failed(error) => Err(error),
            // The first two are never granted in this line, and nobody is told the third.
            Grant::Stream(_) | Grant::Opening(_) | Grant::Again => Err(Unsent::PoolTimeout.into()),
        }
    }

    async fn open_http1(&self, slot: Slot, home: usize, wire: Wire) -> Result<http1::Boxed, ConnectError> {
        sweep::start(&self.pool, self.idle);
        let opening = async {
            // An upgrade needs HTTP/1.1, and so does a call that was told that the endpoint speaks it.
            debug_assert!(matches!(wire, Wire::Http1 | Wire::Upgrade), "{wire:?} is not HTTP/1.1");
            let (io, _) = self.connector.connect(Offer::Http1).await?;
            Ok(http1::Connection::new(Stream::new(io, slot), home))
        };
        time::timeout(self.connector.timeout, opening).await.map_err(|_| Unsent::ConnectTimeout)?
    }

    /// Takes a stream on an HTTP/2 connection, opening another when those there are full, in turn.
    ///
    /// # Errors
    /// When none could be opened or none became free in time.
    ///
    /// # Cancel safety
    /// Dropping the future gives the place up. A connection that is being opened goes on: others may wait for it.
    pub(super) async fn http2(self: &Arc<Self>, call: &Call) -> Result<Reached, ConnectError> {
        let home = self.pool.home();
        if !self.pool.queue.is_waiting_in(Line::Http2) {
            if let Some(stream) = self.pool.own_stream(home) {
                return Ok(Reached::Stream(stream));
            }
            if let Some(opening) = self.pool.begin_open(home) {
                self.spawn(opening);
            }
            if let Some(stream) = self.pool.any_stream(home) {
                return Ok(Reached::Stream(stream));
            }
        }
        Box::pin(self.wait_http2(home, call)).await
    }

    async fn wait_http2(self: &Arc<Self>, home: usize, call: &Call) -> Result<Reached, ConnectError> {
        let until = self.patience(call);
        let mut ticket = None;
        loop {
            let waiting = self.pool.enter(Line::Http2, home, ticket)?;
            // Who stands in line by now is told what a connection finds out; who came too late for that sees it here.
            if self.protocol == Protocol::Auto && self.learned.load(Ordering::SeqCst) == HTTP1 {
                return Ok(Reached::Again);
            }
            let (grant, place) =
                time::timeout_at(until, waiting.turn()).await.map_err(|_| Unsent::PoolTimeout)?;
            ticket = Some(place);
            match grant {
                Grant::Stream(stream) => return Ok(Reached::Stream(stream)),
                Grant::Opening(opening) => self.spawn(opening),
                Grant::Again => return Ok(Reached::Again),
                Grant::Failed(error) => return Err(error),
                // Never granted in this line.
                Grant::Connection(_) | Grant::Slot(_) => {}
            }
        }
    }

    /// Until when a call waits for a connection: its deadline, at most `connect_timeout`.
    fn patience(&self, call: &Call) -> Instant {
        let most = Instant::now() + self.connector.timeout;
        call.deadline.map_or(most, |deadline| clock::timer_at(deadline).min(most))
    }

    /// Opens a connection in a task of its own, as nobody who waits for it may take it down by going away.
    fn spawn(self: &Arc<Self>, opening: Opening) {
        sweep::start(&self.pool, self.idle);
        let link = Arc::clone(self);
        tokio::spawn(async move {
            let closing = link.pool.closing.clone();
            tokio::select! {
                () = closing.cancelled() => {}
                () = link.open(opening) => {}
            }
        });
    }

    async fn open(&self, mut opening: Opening) {
        let offer = match self.protocol {
            Protocol::Auto => Offer::Either,
            Protocol::Http1 => Offer::Http1,
            Protocol::Http2 => Offer::Http2,
        };
        let opened = time::timeout(self.connector.timeout, async {
            let slot = opening.slot.take().ok_or(Unsent::PoolTimeout)?;
            let (io, agreed) = self.connector.connect(offer).await?;
            match (self.protocol, &self.connector.tls, agreed) {
                (Protocol::Auto, Some(_), Agreed::Http1 | Agreed::Nothing) => {
                    let connection = http1::Connection::new(Stream::new(io, slot), opening.home);
                    self.learned.store(HTTP1, Ordering::SeqCst);
                    self.pool.put(connection);
                    self.pool.tell_http2(|| Grant::Again);
                }
                (protocol @ (Protocol::Auto | Protocol::Http1 | Protocol::Http2), tls, _) => {
                    let started = http2::Connection::start(io, slot, opening.home, &self.pool).await;
                    started.map_err(|error| match (protocol, tls) {
                        // Only the call's content type said that the endpoint speaks HTTP/2, so it fails at nothing.
                        (Protocol::Auto, None) => ConnectError { why: Unsent::Protocol, ..error },
                        _ => error,
                    })?;
                    self.learned.store(HTTP2, Ordering::Relaxed);
                }
            }
            Ok::<_, ConnectError>(())
        })
        .await
        .unwrap_or(Err(Unsent::ConnectTimeout.into()));
        if let Err(error) = opened {
            tracing::debug!(?error, host = self.connector.host, "no connection to the endpoint");
            // With a connection left they may still be served; without one, waiting is for nothing.
            if !self.pool.has_http2() {
                self.pool.tell_http2(|| Grant::Failed(error.clone()));
            }
        }
        drop(opening);
    }
}
