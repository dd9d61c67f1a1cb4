//! The client's end of a connection as HTTP reads and writes it. It notes who waits for whom, gives back what was read
//! ahead, stops at the first ambiguous byte, and lets a client read our last words before the connection goes.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    framing::{Framing, Place},
    peer::{Agreement, Input, Peer},
    stats::{ListenerStats, Open, count},
};
use crate::workers::Placed;

/// What HTTP reads instead of an ambiguous byte and all that follows it: in a head, an error that it answers with 400; in
/// a body, one that ends the body with an error.
const REFUSAL: &[u8] = b"\0\r\n\r\n";
/// Most bytes that a client may still send while it only has to read our last words.
const MOST_LINGERED: usize = 1 << 20;

/// The client's end of a connection.
#[derive(Debug)]
pub(super) struct ClientIo<T> {
    inner: T,
    peer: Arc<Peer>,
    framing: Framing,
    /// Bytes that were read before HTTP began, and are read again.
    ahead: Bytes,
    /// Since an ambiguous byte: what is left of the refusal.
    refusing: Option<&'static [u8]>,
    /// Whether the client has closed its end.
    ended: bool,
    lingered: usize,
    closing: bool,
    held: Held,
}

/// What a connection holds until its last end is dropped, a tunnel's included.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) stats: Arc<ListenerStats>,
    pub(super) _placed: Placed,
    /// The last to go: when no connection is open, nothing is held.
    pub(super) _open: Open,
}

impl<T> ClientIo<T> {
    /// A connection that speaks HTTP/1, or does not yet say what.
    pub(super) fn new(inner: T, peer: Arc<Peer>, held: Held) -> Self {
        let framing = Framing::new();
        Self {
            inner,
            peer,
            framing,
            ahead: Bytes::new(),
            refusing: None,
            ended: false,
            lingered: 0,
            closing: false,
            held,
        }
    }

    /// From here on it speaks something that frames itself.
    pub(super) fn set_opaque(&mut self) {
        self.framing = Framing::opaque();
    }

    /// Gives bytes back that were read too early.
    pub(super) fn unread(&mut self, ahead: Bytes) {
        // An empty one may still hold on to a buffer.
        self.ahead = if ahead.is_empty() { Bytes::new() } else { ahead };
    }

    /// Whether there are such bytes.
    pub(super) fn has_unread(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// The connection under it, to be read from before HTTP begins.
    pub(super) fn inner(&mut self) -> &mut T {
        &mut self.inner
    }

    pub(super) fn stats(&self) -> &Arc<ListenerStats> {
        &self.held.stats
    }

    /// Follows what HTTP is about to read and cuts it off at an ambiguous byte.
    fn follow(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let activity = &self.peer.activity;
        match self.framing.place() {
            Place::Opaque => return,
            Place::Undecided => match activity.take_agreement() {
                Agreement::Open => {}
                Agreement::Refused => self.framing.decide(false),
                Agreement::Agreed => self.framing.decide(true),
            },
            Place::Body(_) | Place::Chunk(_) => {
                let read = (buf.filled().len() - before) as u64;
                activity.body_bytes.store(activity.body_bytes.load(Relaxed) + read, Relaxed);
            }
            Place::Between | Place::Head | Place::ChunkSize | Place::Trailers => {}
        }
        if let Err(ambiguous) = self.framing.read(&buf.filled()[before..]) {
            tracing::debug!(client = %self.peer.addr, why = ambiguous.why, "refusing an ambiguous request");
            count(&self.held.stats.ambiguous);
            buf.set_filled(before + ambiguous.at);
            self.refusing = Some(REFUSAL);
            refuse(&mut self.refusing, buf);
        }
        activity.set_input(match self.framing.place() {
            Place::Between | Place::Opaque => Input::Between,
            Place::Head => Input::Head,
            Place::Body(_) | Place::ChunkSize | Place::Chunk(_) | Place::Trailers => Input::Body,
            Place::Undecided => {
                activity.blind.store(self.framing.is_blind(), Relaxed);
                Input::Between
            }
        });
    }

    /// Whether the client may not have read all that we wrote when the connection goes: what it sent and nobody read
    /// makes the system reset the connection and throw that away.
    fn needs_lingering(&self) -> bool {
        !self.ended && (self.refusing.is_some() || self.framing.place() != Place::Between)
    }
}

fn refuse(refusing: &mut Option<&'static [u8]>, buf: &mut ReadBuf<'_>) {
    if let Some(refusal) = refusing {
        let (now, later) = refusal.split_at(refusal.len().min(buf.remaining()));
        buf.put_slice(now);
        *refusal = later;
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ClientIo<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.refusing.is_some() {
            refuse(&mut this.refusing, buf);
            return Poll::Ready(Ok(()));
        }
        if !this.ahead.is_empty() {
            let now = this.ahead.len().min(buf.remaining());
            buf.put_slice(&this.ahead[..now]);
            this.ahead.advance(now);
            if this.ahead.is_empty() {
                this.ahead = Bytes::new();
            }
        }
        let has_ahead = buf.filled().len() > before;
        let after_ahead = buf.filled().len();
        match Pin::new(&mut this.inner).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => this.ended = buf.filled().len() == after_ahead && buf.remaining() > 0,
            // What was read ahead is not lost; the error comes back on the next read.
            Poll::Pending | Poll::Ready(Err(_)) if has_ahead => {}
            Poll::Pending => {
                this.peer.activity.awaits_read.store(true, Relaxed);
                return Poll::Pending;
            }
            Poll::Ready(Err(error)) => {
                this.ended = true;
                return Poll::Ready(Err(error));
            }
        }
        this.peer.activity.awaits_read.store(false, Relaxed);
        this.follow(buf, before);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> ClientIo<T> {
    /// Notes whether we wait for the client to read.
    fn note<R>(&self, written: &Poll<io::Result<R>>) {
        let activity = &self.peer.activity;
        if written.is_pending() {
            activity.awaits_write.store(true, Relaxed);
        } else if activity.awaits_write.load(Relaxed) {
            activity.awaits_write.store(false, Relaxed);
            activity.writes_resumed.store(activity.writes_resumed.load(Relaxed) + 1, Relaxed);
        }
    }

    /// Reads and forgets until the client closes. The connection's watch bounds the time.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 4096];
        while self.lingered < MOST_LINGERED {
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => self.lingered += buf.filled().len(),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.note(&flushed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closing {
            let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
            self.note(&shut);
            ready!(shut)?;
            self.closing = true;
        }
        if self.needs_lingering() {
            self.peer.activity.lingers.store(true, Relaxed);
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
