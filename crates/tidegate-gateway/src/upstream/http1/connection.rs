//! A connection that carries one call at a time, and what became of the call.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response};
use http_body::{Body, Frame};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, ReadBuf};

use super::{
    super::{
        error::{SendError, Sent, Unsent},
        stream::Stream,
    },
    decode::{self, After, Decoded, Head, Malformed, Rest},
    encode::{Outbox, Stopped},
};
use crate::body::{BodyError, RequestBody};

/// Bytes asked of the socket at once: for a head, and most for a body that is longer.
const READ: usize = 8 << 10;
const MOST_READ: usize = 64 << 10;

/// One connection.
#[derive(Debug)]
pub(in super::super) struct Connection {
    stream: Stream,
    read: BytesMut,
    /// Informational heads of this call.
    interim: u32,
    out: Outbox,
    home: usize,
    use_: Use,
}

/// A connection as it is handed about: too large to be moved by itself.
pub(in super::super) type Boxed = Box<Connection>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    First,
    Again,
}

/// A response head, and what it takes to read the rest.
#[derive(Debug)]
pub(in super::super) struct Answer {
    pub(in super::super) head: Response<()>,
    pub(super) connection: Boxed,
    pub(super) rest: Rest,
    pub(super) after: After,
    /// The request body, when it is not all sent.
    pub(super) upload: Option<RequestBody>,
}

/// Why there is no head.
#[derive(Debug)]
pub(in super::super) enum Failed {
    /// A connection that was used before had closed; not a byte of the call went out, and it may go on another.
    Stale(Box<Request<RequestBody>>),
    /// A connection that was used before took a safe call and ended without a word; the call may be repeated once.
    Silent(Box<Request<RequestBody>>),
    /// What the caller is told.
    Told(SendError),
}

/// How waiting for a head ended without one.
enum Broken {
    Upload(BodyError),
    Socket(io::Error),
    Malformed(Malformed),
}

impl Connection {
    pub(in super::super) fn new(stream: Stream, home: usize) -> Boxed {
        Box::new(Self {
            stream,
            read: BytesMut::new(),
            interim: 0,
            out: Outbox::default(),
            home,
            use_: Use::First,
        })
    }

    /// The shard it belongs to.
    pub(in super::super) fn home(&self) -> usize {
        self.home
    }

    /// Looks whether the peer has closed it, or speaks unasked.
    pub(in super::super) fn is_reusable(&mut self) -> bool {
        // Into a byte of its own, as a connection that rests needs no room to read; what it says unasked ends it anyway.
        let mut byte = [0];
        let mut unasked = ReadBuf::new(&mut byte);
        // Unconstrained: to a task that has used up its budget, a socket with bytes would look silent.
        let mut looking = tokio::task::unconstrained(std::future::poll_fn(|cx| {
            Pin::new(&mut self.stream).poll_read(cx, &mut unasked)
        }));
        let silent = Pin::new(&mut looking).poll(&mut Context::from_waker(Waker::noop())).is_pending();
        silent && self.read.is_empty()
    }

    /// The bare stream, for a protocol that takes it over.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Marks it as used, for the next call.
    pub(super) fn rest(&mut self) {
        self.out.forget();
        self.use_ = Use::Again;
    }

    /// Gives up the room for what it read and wrote; the next call makes it anew.
    pub(in super::super) fn shrink(&mut self) {
        self.read = BytesMut::new();
        self.out.shrink();
    }

    /// Bytes that it has room for.
    #[cfg(test)]
    pub(in super::super) fn room(&self) -> usize {
        self.read.capacity() + self.out.room()
    }

    /// Reads once; 0 is the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        if self.read.capacity() - self.read.len() < room {
            self.read.reserve(room.max(READ));
        }
        let reading = pin!(self.stream.read_buf(&mut self.read));
        reading.poll(cx)
    }

    /// Sends what there is of a request body; ready when all is sent or nothing more will be.
    pub(super) fn poll_upload(
        &mut self,
        body: &mut RequestBody,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Stopped>> {
        self.out.poll(&mut self.stream, body, cx)
    }

    /// The next frame of a response body.
    pub(super) fn poll_frame(
        &mut self,
        rest: &mut Rest,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match rest.next(&mut self.read) {
                Ok(Decoded::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::More) => {}
                Err(malformed) => return Poll::Ready(Some(Err(malformed.into()))),
            }
            let room = match *rest {
                Rest::Length(left) => {
                    usize::try_from(left).map_or(MOST_READ, |left| left.clamp(1, MOST_READ))
                }
                Rest::ToEnd | Rest::Chunked(_) | Rest::Nothing => READ,
            };
            match ready!(self.poll_fill(cx, room)) {
                Ok(0) if rest.ends_with_connection() => {
                    *rest = Rest::Nothing;
                    return Poll::Ready(None);
                }
                Ok(0) => return Poll::Ready(Some(Err(Malformed::Incomplete.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// Takes a body that is all there already.
    pub(super) fn whole(&mut self, rest: &mut Rest) -> Option<Bytes> {
        match *rest {
            Rest::Nothing => Some(Bytes::new()),
            Rest::Length(left) if left <= self.read.len() as u64 => {
                *rest = Rest::Nothing;
                Some(self.read.split_to(left as usize).freeze())
            }
            Rest::Length(_) | Rest::Chunked(_) | Rest::ToEnd => None,
        }
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// # Errors
    /// When there is no head; an unsent request comes back.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub(in super::super) async fn send(
        mut self: Boxed,
        mut request: Box<Request<RequestBody>>,
    ) -> Result<Answer, Failed> {
        self.out.begin(&request);
        self.interim = 0;
        let method = request.method().clone();
        let mut upload = Uploading::Goes;
        let mut heard = false;
        let waited = std::future::poll_fn(|cx| {
            self.poll_head(&method, request.body_mut(), &mut upload, &mut heard, cx)
        });
        match waited.await {
            Ok(Head { response, rest, after }) => Ok(Answer {
                head: response,
                rest,
                after: if upload == Uploading::Stopped { After::Close } else { after },
                upload: (upload == Uploading::Goes).then(|| request.into_body()),
                connection: self,
            }),
            Err(broken) => Err(self.failed(broken, request, heard)),
        }
    }

    /// Says what a call without a head was: surely not sent, or maybe.
    fn failed(&mut self, broken: Broken, request: Box<Request<RequestBody>>, heard: bool) -> Failed {
        let (parts, body) = request.into_parts();
        let error = match broken {
            Broken::Malformed(why) => return Failed::Told(SendError::sent(Sent::Protocol).because(why)),
            Broken::Upload(why) => return Failed::Told(SendError::sent(Sent::RequestBody).because(why)),
            Broken::Socket(error) => error,
        };
        let unsent = !heard && self.out.written == 0;
        // A safe request may be repeated (RFC 9110 §9.2.2), and that the connection was closed while it was idle, with the
        // news still under way, is the usual reason for silence.
        let repeatable = !heard && self.use_ == Use::Again && parts.method.is_safe() && body.is_end_stream();
        let again = if unsent || repeatable { self.out.body_again(body) } else { None };
        let request = again.map(|body| Box::new(Request::from_parts(parts, body)));
        match (request, self.use_) {
            (Some(request), Use::Again) if unsent => Failed::Stale(request),
            (Some(request), Use::Again) => Failed::Silent(request),
            (request, _) if unsent => {
                let mut told = SendError::unsent(Unsent::Refused).because(error);
                told.request = request;
                Failed::Told(told)
            }
            (_, _) => Failed::Told(SendError::sent(Sent::Closed).because(error)),
        }
    }

    fn poll_head(
        &mut self,
        method: &Method,
        body: &mut RequestBody,
        upload: &mut Uploading,
        heard: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Head, Broken>> {
        if *upload == Uploading::Goes {
            match self.poll_upload(body, cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => *upload = Uploading::Done,
                Poll::Ready(Err(Stopped::Body(error))) => return Poll::Ready(Err(Broken::Upload(error))),
                // It may have answered before it closed.
                Poll::Ready(Err(Stopped::Socket)) => *upload = Uploading::Stopped,
            }
        }
        loop {
            match decode::head(&mut self.read, method, &mut self.interim) {
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => {}
                Err(malformed) => return Poll::Ready(Err(Broken::Malformed(malformed))),
            }
            match ready!(self.poll_fill(cx, READ)) {
                Ok(0) => {
                    let ended = io::Error::new(io::ErrorKind::UnexpectedEof, Malformed::Incomplete);
                    return Poll::Ready(Err(Broken::Socket(ended)));
                }
                Ok(_) => *heard = true,
                Err(error) => return Poll::Ready(Err(Broken::Socket(error))),
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Uploading {
    Goes,
    Done,
    Stopped,
}
