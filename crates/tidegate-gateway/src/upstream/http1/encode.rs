//! Writing requests: the head, and the body as its size is known or not (RFC 9112 §§3, 6, 7).

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, Method, Request, header};
use http_body::Body;
use tokio::io::AsyncWrite;

use super::super::replay::{Replay, Taken};
use crate::body::{BodyError, RequestBody};

/// Pieces up to this size are copied behind the head, so that a small request is one write.
const COPIED: usize = 4 << 10;
/// Bytes that are gathered before they are written.
const GATHERED: usize = 16 << 10;

/// What waits to be written, and how the rest of the body will be.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: BytesMut,
    /// A large piece, written after `bytes` without being copied.
    piece: Bytes,
    /// What follows the piece.
    tail: &'static [u8],
    left: Left,
    /// Bytes of this request that the socket has taken.
    pub(super) written: u64,
    replay: Replay,
}

/// What is still to come of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Left {
    #[default]
    Nothing,
    Length(u64),
    Chunked,
}

/// Why a request could not be written to its end.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The body's own fault.
    Body(BodyError),
    /// The endpoint takes no more.
    Socket,
}

impl Outbox {
    /// Begins a request: writes its head.
    pub(super) fn begin(&mut self, request: &Request<RequestBody>) {
        self.bytes.clear();
        self.piece = Bytes::new();
        self.tail = b"";
        (self.written, self.replay) = (0, Replay::default());
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let out = &mut self.bytes;
        out.reserve(512);
        out.put_slice(request.method().as_str().as_bytes());
        out.put_u8(b' ');
        if !path.starts_with(['/', '*']) {
            out.put_u8(b'/');
        }
        out.put_slice(path.as_bytes());
        out.put_slice(b" HTTP/1.1\r\n");
        fields(out, request.headers());
        self.left = if request.body().is_end_stream() {
            if matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) {
                out.put_slice(b"content-length: 0\r\n");
            }
            Left::Nothing
        } else if let Some(length) = request.body().size_hint().exact() {
            out.put_slice(b"content-length: ");
            decimal(out, length);
            out.put_slice(b"\r\n");
            Left::Length(length)
        } else {
            out.put_slice(b"transfer-encoding: chunked\r\n");
            Left::Chunked
        };
        out.put_slice(b"\r\n");
    }

    /// Writes what there is of the request; ready when all of it has been.
    pub(super) fn poll(
        &mut self,
        socket: &mut (impl AsyncWrite + Unpin),
        body: &mut RequestBody,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Stopped>> {
        loop {
            let gathered = self.gather(body, cx).map_err(Stopped::Body)?;
            ready!(self.write(socket, cx)).map_err(|_| Stopped::Socket)?;
            if self.left == Left::Nothing {
                return Pin::new(socket).poll_flush(cx).map_err(|_| Stopped::Socket);
            }
            if gathered.is_pending() {
                let _what_is_flushed_later_wakes =
                    Pin::new(socket).poll_flush(cx).map_err(|_| Stopped::Socket)?;
                return Poll::Pending;
            }
        }
    }

    /// The body as it was before any of it was taken, if it can still be had.
    pub(super) fn body_again(&mut self, body: RequestBody) -> Option<RequestBody> {
        let taken = if self.left == Left::Nothing { Taken::All } else { Taken::Part };
        std::mem::take(&mut self.replay).body(body, taken)
    }

    /// Forgets what is kept of the body.
    pub(super) fn forget(&mut self) {
        self.replay = Replay::default();
        self.piece = Bytes::new();
    }

    /// Gives up the room for what was written.
    pub(super) fn shrink(&mut self) {
        self.bytes = BytesMut::new();
    }

    /// Bytes that it has room for.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.bytes.capacity()
    }

    /// Takes from the body what is there; pending when it has no more for now.
    fn gather(&mut self, body: &mut RequestBody, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        while self.left != Left::Nothing && self.piece.is_empty() && self.bytes.len() < GATHERED {
            let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.replay.take(&data);
                        self.put(data)?;
                    }
                    Err(frame) => {
                        self.replay.lose();
                        self.end(frame.into_trailers().ok().as_ref())?;
                    }
                },
                Some(Err(error)) => {
                    self.replay.lose();
                    return Poll::Ready(Err(error));
                }
                None => {
                    self.replay.end();
                    self.end(None)?;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn put(&mut self, data: Bytes) -> Result<(), BodyError> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.left {
            Left::Nothing => return Err("the request body is longer than it said".into()),
            Left::Length(left) => {
                *left =
                    left.checked_sub(data.len() as u64).ok_or("the request body is longer than it said")?;
                if *left == 0 {
                    self.left = Left::Nothing;
                }
            }
            Left::Chunked => {
                hexadecimal(&mut self.bytes, data.len());
                self.bytes.put_slice(b"\r\n");
                self.tail = b"\r\n";
            }
        }
        if data.len() <= COPIED {
            self.bytes.put_slice(&data);
            self.bytes.put_slice(std::mem::take(&mut self.tail));
        } else {
            self.piece = data;
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), BodyError> {
        match std::mem::take(&mut self.left) {
            Left::Nothing => {}
            Left::Length(0) => {}
            Left::Length(_) => return Err("the request body is shorter than it said".into()),
            Left::Chunked => {
                self.bytes.put_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    fields(&mut self.bytes, trailers);
                }
                self.bytes.put_slice(b"\r\n");
            }
        }
        Ok(())
    }

    fn write(
        &mut self,
        socket: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() || !self.piece.is_empty() {
            let socket = Pin::new(&mut *socket);
            let taken = if self.piece.is_empty() {
                ready!(socket.poll_write(cx, &self.bytes))?
            } else {
                let both = [IoSlice::new(&self.bytes), IoSlice::new(&self.piece)];
                let from = usize::from(self.bytes.is_empty());
                ready!(socket.poll_write_vectored(cx, &both[from..]))?
            };
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += taken as u64;
            let of_bytes = taken.min(self.bytes.len());
            self.bytes.advance(of_bytes);
            self.piece.advance(taken - of_bytes);
            if self.piece.is_empty() {
                self.bytes.put_slice(std::mem::take(&mut self.tail));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Writes fields, `Host` first (RFC 9110 §7.2), and none that speak of framing: that is written from the body itself.
fn fields(out: &mut BytesMut, headers: &HeaderMap) {
    let mut put = |name: &[u8], value: &[u8]| {
        out.reserve(name.len() + value.len() + 4);
        out.put_slice(name);
        out.put_slice(b": ");
        out.put_slice(value);
        out.put_slice(b"\r\n");
    };
    if let Some(host) = headers.get(header::HOST) {
        put(b"host", host.as_bytes());
    }
    for (name, value) in headers {
        if !matches!(
            *name,
            header::HOST | header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::COOKIE
        ) {
            put(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    // HTTP/2 cuts cookies into several fields; in HTTP/1 they are one (RFC 9113 §8.2.3).
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if let Some(first) = cookies.next() {
        out.put_slice(b"cookie: ");
        out.put_slice(first.as_bytes());
        for more in cookies {
            out.put_slice(b"; ");
            out.put_slice(more.as_bytes());
        }
        out.put_slice(b"\r\n");
    }
}

fn decimal(out: &mut BytesMut, number: u64) {
    use std::fmt::Write as _;
    let _memory_does_not_fail = write!(out, "{number}");
}

fn hexadecimal(out: &mut BytesMut, number: usize) {
    use std::fmt::Write as _;
    out.reserve(16);
    let _memory_does_not_fail = write!(out, "{number:X}");
}
