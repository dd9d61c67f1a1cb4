//! One connection, from its first byte to its last: which HTTP it speaks, and when it ends.

use std::{
    error::Error,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    Handler,
    io::ClientIo,
    limits::Limits,
    peer::{Activity, Input, Peer},
    service::Connection,
    slow::{Overdue, Watch},
    stats::{ListenerStats, Resting, count},
    stop::{Follow, Stage, Stop},
};

/// What an HTTP/2 client with prior knowledge says first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Header fields that HTTP/1 parses without an allocation.
const HEADERS_ON_STACK: usize = 100;
/// Requests that a client may reset before they are handed on; more is an attack (CVE-2023-44487).
const MOST_RESETS_PENDING: usize = 20;
/// Streams that may be reset for the client's errors before its connection goes.
const MOST_ERROR_RESETS: usize = 256;
/// Bytes of a response that are buffered for a stream whose client does not read.
const STREAM_SEND_BUFFER: usize = 64 << 10;
/// Bytes of a request body that a client may send ahead on one stream.
const STREAM_WINDOW: u32 = 256 << 10;
/// Bytes of request bodies that a client may send ahead on all streams of a connection.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Silence after which an HTTP/2 client is asked whether it is still there.
const PING_AFTER: Duration = Duration::from_secs(30);
/// The time it has to say so.
const PING_WITHIN: Duration = Duration::from_secs(20);

/// What a client is known to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    /// What its first bytes say.
    FirstBytes,
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Why a connection was left.
enum Left {
    Ended(hyper::Result<()>),
    Overdue(Overdue),
    Broken,
    CutOff,
}

/// Serves a connection to its end. Dropped, it closes the connection and drops its exchanges.
pub(super) async fn serve<H, T>(
    handler: Arc<H>,
    stop: Arc<Stop>,
    peer: Arc<Peer>,
    mut io: ClientIo<T>,
    limits: Limits,
    mut speaks: Speaks,
) where
    H: Handler,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stats = Arc::clone(io.stats());
    let mut watch = pin!(Watch::new(limits));
    let mut stages = pin!(stop.follow());
    let connection = Arc::new(Connection { handler, peer, stop: Arc::clone(&stop) });
    let activity = &connection.peer.activity;
    let mut patience = limits.header_timeout;
    loop {
        if speaks != Speaks::Http2 {
            let until = watch.since() + patience;
            let Ok(known) =
                first_bytes(&mut io, speaks, until, watch.as_mut(), stages.as_mut(), &stats).await
            else {
                return;
            };
            speaks = known;
        }
        let answering = Arc::clone(&connection);
        let service = service_fn(move |request| answering.answer(request));
        if speaks == Speaks::Http2 {
            io.set_opaque();
            let mut http = Box::pin(http2(&limits).serve_connection(TokioIo::new(io), service));
            let left =
                drive(http.as_mut(), http2::Connection::graceful_shutdown, speaks, watch, stages, activity)
                    .await;
            return note(&left, &stats);
        }
        // On the heap, as HTTP/2 above, so that a connection at rest does not keep its place.
        let mut http = Box::new(http1(&limits).serve_connection(TokioIo::new(io), service).with_upgrades());
        watch.as_mut().tell_of_quiet(true);
        let left = drive(
            Pin::new(&mut *http),
            http1::UpgradeableConnection::graceful_shutdown,
            speaks,
            watch.as_mut(),
            stages.as_mut(),
            activity,
        )
        .await;
        let (Left::Overdue(Overdue::Quiet), Some(rest)) = (&left, http.into_parts()) else {
            return note(&left, &stats);
        };
        // Only the connection is kept, without HTTP's buffers, until the client says something again.
        io = rest.io.into_inner();
        io.unread(rest.read_buf);
        patience = limits.keep_alive;
    }
}

/// Waits for the first bytes of a connection, or of its next request, and says what they speak.
async fn first_bytes<T: AsyncRead + Unpin>(
    io: &mut ClientIo<T>,
    speaks: Speaks,
    until: Instant,
    mut watch: Pin<&mut Watch>,
    mut stages: Pin<&mut Follow<'_>>,
    stats: &ListenerStats,
) -> Result<Speaks, ()> {
    if io.has_unread() {
        return Ok(Speaks::Http1);
    }
    let _resting = Resting::begin(stats);
    let mut first = [0; PREFACE.len()];
    let mut len = 0;
    let known = poll_fn(|cx| {
        loop {
            let mut buf = ReadBuf::new(&mut first[len..]);
            match Pin::new(io.inner()).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    len += buf.filled().len();
                    if speaks == Speaks::Http1 || first[..len] != PREFACE[..len] {
                        return Poll::Ready(Ok(Speaks::Http1));
                    }
                    if len == PREFACE.len() {
                        return Poll::Ready(Ok(Speaks::Http2));
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Err(())),
                Poll::Pending => break,
            }
        }
        while let Poll::Ready(stage) = stages.as_mut().poll_next(cx) {
            match stage {
                Stage::Serving | Stage::HandedOver => {}
                Stage::Draining | Stage::Aborting => return Poll::Ready(Err(())),
            }
        }
        ready!(watch.as_mut().poll_until(cx, until));
        count(if len > 0 { &stats.slow_closed } else { &stats.idle_closed });
        Poll::Ready(Err(()))
    })
    .await?;
    io.unread(Bytes::copy_from_slice(&first[..len]));
    Ok(known)
}

/// Drives HTTP until it ends, the client is overdue, or time is up. An idle HTTP/2 client is told before it is left.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    mut http: Pin<&mut C>,
    finish: fn(Pin<&mut C>),
    speaks: Speaks,
    mut watch: Pin<&mut Watch>,
    mut stages: Pin<&mut Follow<'_>>,
    activity: &Activity,
) -> Left {
    poll_fn(|cx| {
        loop {
            // First, so that an answer that is ready now already says that it is the last.
            if let Poll::Ready(stage) = stages.as_mut().poll_next(cx) {
                match stage {
                    // An HTTP/1 client is told by its next answer, an HTTP/2 client below.
                    Stage::Serving | Stage::HandedOver => {}
                    Stage::Draining => {
                        finish(http.as_mut());
                        watch.as_mut().say_goodbye();
                    }
                    Stage::Aborting => return Poll::Ready(Left::CutOff),
                }
                continue;
            }
            if let Poll::Ready(ended) = http.as_mut().poll(cx) {
                return Poll::Ready(Left::Ended(ended));
            }
            // GOAWAY loses no stream. One that came before the first request would only make the client connect again.
            let has_called = activity.begun.load(Relaxed) > 0;
            if speaks == Speaks::Http2 && stages.is_handed_over() && has_called && !watch.is_leaving() {
                finish(http.as_mut());
                watch.as_mut().say_goodbye();
                continue;
            }
            match (ready!(watch.as_mut().poll_overdue(cx, activity)), speaks) {
                (Overdue::Idle, Speaks::Http2) => {
                    finish(http.as_mut());
                    watch.as_mut().say_goodbye();
                }
                // HTTP ended it, the client has not, and how HTTP ended it cannot be asked any more: it leaves a request
                // body unread with reason, and anything else because the client broke it.
                (Overdue::Close, _) if !watch.is_leaving() && activity.input() != Input::Body => {
                    return Poll::Ready(Left::Broken);
                }
                (overdue, _) => return Poll::Ready(Left::Overdue(overdue)),
            }
        }
    })
    .await
}

fn note(left: &Left, stats: &ListenerStats) {
    match left {
        Left::Ended(Ok(())) => {}
        Left::Ended(Err(error)) if is_protocol_error(error) => {
            tracing::debug!(%error, "a client broke HTTP");
            count(&stats.protocol_errors);
        }
        Left::Broken => count(&stats.protocol_errors),
        Left::Ended(Err(error)) => tracing::trace!(%error, "a client went away"),
        Left::Overdue(Overdue::Head | Overdue::Body | Overdue::Read) => count(&stats.slow_closed),
        Left::Overdue(Overdue::Idle | Overdue::Quiet) => count(&stats.idle_closed),
        Left::Overdue(Overdue::Close) => {}
        Left::CutOff => count(&stats.cut_off),
    }
}

/// Whether the client broke HTTP; everything else is a client that went away.
fn is_protocol_error(error: &hyper::Error) -> bool {
    error.is_parse()
        || error
            .source()
            .and_then(|source| source.downcast_ref::<h2::Error>())
            .is_some_and(h2::Error::is_library)
}

fn http1(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    // No timer: the watch bounds the time of a head with one timer a connection instead of one a request.
    http.max_buf_size(limits.header_bytes).max_header_size(limits.header_bytes);
    if limits.header_count != HEADERS_ON_STACK {
        http.max_headers(limits.header_count);
    }
    http
}

fn http2(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MOST_RESETS_PENDING)
        .max_local_error_reset_streams(MOST_ERROR_RESETS)
        .max_send_buf_size(STREAM_SEND_BUFFER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .adaptive_window(false)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_WITHIN);
    http
}
