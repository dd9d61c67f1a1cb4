//! Connections that stop speaking HTTP (WebSocket and other upgrades, RFC 9110 §7.8): bytes both ways until either ends.

mod frames;

use std::{future::Future, io, pin::pin, time::Duration};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use self::frames::Frames;

const BUFFER: usize = 8 * 1024;
/// Longest time for the last word to a client. Default: 1 s.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// WebSocket: a client can be told why it ends.
    WebSocket,
    /// Anything else.
    Anything,
}

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

/// How a tunnel ended by itself, or that it was told to end.
pub type Told = Result<Ended, Revoked>;

/// A tunnel was told to end.
#[derive(Clone, Copy, Debug)]
pub struct Revoked;

/// Joins the two sides of an upgrade until both have ended, either fails, neither says anything for `idle`, or `over` is
/// ready: then a client that can be told why is told.
///
/// # Errors
/// [`Revoked`] when it was over.
///
/// # Cancel safety
/// Dropping the future closes both sides.
pub async fn tunnel(
    client: OnUpgrade,
    upstream: OnUpgrade,
    idle: Option<Duration>,
    speaks: Speaks,
    over: impl Future<Output = ()>,
) -> Told {
    let (mut up, mut down) = (0, 0);
    let mut over = pin!(over);
    let both = async { tokio::try_join!(client, upstream).map_err(io::Error::other) };
    let (client, upstream) = tokio::select! {
        both = both => match both {
            Ok(both) => both,
            Err(error) => return Ok(Ended { up, down, error: Some(error) }),
        },
        () = &mut over => return Err(Revoked),
    };
    let (client_read, mut client_write) = tokio::io::split(TokioIo::new(client));
    let mut frames = Frames::default();
    let ended = {
        let follow = (speaks == Speaks::WebSocket).then_some(&mut frames);
        let joined = join((client_read, &mut client_write), upstream, idle, (&mut up, &mut down), follow);
        tokio::select! {
            ended = joined => Some(ended),
            () = over => None,
        }
    };
    if let Some(result) = ended {
        return Ok(Ended { up, down, error: result.err() });
    }
    // In the middle of a frame nothing can be said.
    if speaks == Speaks::WebSocket && frames.are_whole() {
        let close = frames::close("the session is over: log in again");
        let said = async {
            client_write.write_all(&close).await?;
            client_write.shutdown().await
        };
        // A client that takes nothing is not waited for.
        let _ = tokio::time::timeout(LAST_WORD, said).await;
    }
    Err(Revoked)
}

async fn join(
    (client_read, client_write): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    upstream: Upgraded,
    idle: Option<Duration>,
    (up, down): (&mut u64, &mut u64),
    follow: Option<&mut Frames>,
) -> io::Result<()> {
    let (upstream_read, upstream_write) = tokio::io::split(TokioIo::new(upstream));
    let moved = tokio::sync::Notify::new();
    let both = async {
        tokio::try_join!(
            carry(client_read, upstream_write, up, &moved, None),
            carry(upstream_read, client_write, down, &moved, follow),
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
    mut follow: Option<&mut Frames>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            // One write at a time: what went by is known even when this is cut short.
            let written = to.write(rest).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            if let Some(frames) = &mut follow {
                frames.pass(&rest[..written]);
            }
            *carried += written as u64;
            rest = &rest[written..];
        }
        to.flush().await?;
        moved.notify_one();
    }
}
