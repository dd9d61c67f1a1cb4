//! Connections that stop speaking HTTP (WebSocket and other upgrades, RFC 9110 §7.8): bytes both ways until either ends.

use std::{io, time::Duration};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const BUFFER: usize = 8 * 1024;

/// How a tunnel ended.
#[derive(Debug)]
pub struct Ended {
    /// Bytes that went up.
    pub up: u64,
    /// Bytes that came down.
    pub down: u64,
    /// Why, when it was no orderly end.
    pub error: Option<io::Error>,
}

/// Joins the two sides of an upgrade until both have ended, either fails, or neither says anything for `idle`.
///
/// # Cancel safety
/// Dropping the future closes both sides.
pub async fn tunnel(client: OnUpgrade, upstream: OnUpgrade, idle: Option<Duration>) -> Ended {
    let (mut up, mut down) = (0, 0);
    let result = async {
        let (client, upstream) = tokio::try_join!(client, upstream).map_err(io::Error::other)?;
        join(client, upstream, idle, &mut up, &mut down).await
    }
    .await;
    Ended { up, down, error: result.err() }
}

async fn join(
    client: Upgraded,
    upstream: Upgraded,
    idle: Option<Duration>,
    up: &mut u64,
    down: &mut u64,
) -> io::Result<()> {
    let (client_read, client_write) = tokio::io::split(TokioIo::new(client));
    let (upstream_read, upstream_write) = tokio::io::split(TokioIo::new(upstream));
    let moved = tokio::sync::Notify::new();
    let both = async {
        tokio::try_join!(
            carry(client_read, upstream_write, up, &moved),
            carry(upstream_read, client_write, down, &moved),
        )
    };
    let silence = async {
        match idle {
            Some(idle) => while tokio::time::timeout(idle, moved.notified()).await.is_ok() {},
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = both => ended.map(drop),
        () = silence => Err(io::Error::new(io::ErrorKind::TimedOut, "neither side said anything")),
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    carried: &mut u64,
    moved: &tokio::sync::Notify,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        *carried += read as u64;
        moved.notify_one();
    }
}
