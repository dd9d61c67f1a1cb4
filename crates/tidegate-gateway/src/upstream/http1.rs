//! An HTTP/1.1 connection that its caller drives.
//!
//! hyper's connection is a future that is usually spawned, and talks to its caller through channels: a task switch on the
//! way up, one for the head, one for each piece of the body. Here the caller's own task polls it, and the connection's
//! wake-ups while it is being polled go nowhere, as the caller looks again anyway. A task is spawned only where both
//! directions must move on their own: when the head arrives while the request body still streams, and for upgrades.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker, ready},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::{
    error::{SendError, Sent, Unsent},
    pool::Pool,
    stream::Stream,
};
use crate::body::{BodyError, RequestBody};

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Outgoing>,
    driver: http1::Connection<TokioIo<Stream>, Outgoing>,
    state: State,
    home: usize,
    used: bool,
    ear: Arc<Ear>,
    waker: Waker,
    /// Cloned into a request body that streams: alone again, it says that hyper is through with the body.
    uploading: Arc<()>,
}

/// A connection as it is handed about: too large to be moved by itself.
pub(super) type Boxed = Box<Connection>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Over,
}

/// The waker that the connection is polled with: it passes on to the caller's task, unless that task is polling it.
#[derive(Debug)]
struct Ear {
    task: AtomicWaker,
    state: AtomicU8,
}

const DEAF: u8 = 1;
const CALLED: u8 = 2;

impl Ear {
    /// Stops passing on, and forgets earlier calls: what they are about is seen by the poll that follows.
    fn cover(&self) {
        self.state.store(DEAF, Ordering::SeqCst);
    }

    /// Passes on from now on, and what was missed at once.
    fn listen(&self) {
        if self.state.swap(0, Ordering::SeqCst) & CALLED != 0 {
            self.task.wake();
        }
    }
}

impl Wake for Ear {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.fetch_or(CALLED, Ordering::SeqCst) & DEAF == 0 {
            self.task.wake();
        }
    }
}

/// A request body on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    body: RequestBody,
    _uploading: Option<Arc<()>>,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Why there is no head.
#[derive(Debug)]
pub(super) enum Failed {
    /// A connection that was used before had closed; nothing was sent.
    Stale(Box<Request<RequestBody>>),
    /// What the caller is told.
    Told(SendError),
}

/// Who moves the bytes of a response.
#[derive(Debug)]
pub(super) enum Drive {
    /// Whoever polls the body.
    Here(Boxed),
    /// A task; told of the body's end, it keeps the connection.
    Task(oneshot::Sender<()>),
    /// A task that also serves an upgrade; the connection is not used again.
    Upgrade { _held: SendRequest<Outgoing> },
    /// Nobody any more.
    Over,
}

impl Connection {
    /// Speaks HTTP/1.1 over `stream`.
    ///
    /// # Errors
    /// What hyper says of the stream.
    pub(super) async fn new(stream: Stream, home: usize) -> hyper::Result<Box<Self>> {
        let (sender, driver) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
        let ear = Arc::new(Ear { task: AtomicWaker::new(), state: AtomicU8::new(DEAF) });
        Ok(Box::new(Self {
            sender,
            driver,
            state: State::Open,
            home,
            used: false,
            waker: Waker::from(Arc::clone(&ear)),
            ear,
            uploading: Arc::new(()),
        }))
    }

    /// The shard it belongs to.
    pub(super) fn home(&self) -> usize {
        self.home
    }

    /// Looks whether the peer has closed it, and whether it can take a request.
    pub(super) fn is_reusable(&mut self) -> bool {
        self.ear.cover();
        self.drive();
        self.state == State::Open && self.sender.is_ready()
    }

    /// Moves what can be moved.
    fn drive(&mut self) {
        if self.state == State::Open
            && Pin::new(&mut self.driver).poll(&mut Context::from_waker(&self.waker)).is_ready()
        {
            self.state = State::Over;
        }
    }

    /// Moves what can be moved, asks `look` before and after, and waits when it still has nothing.
    fn poll_with<T>(
        &mut self,
        cx: &Context<'_>,
        mut look: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let unheard = &mut Context::from_waker(Waker::noop());
        self.ear.cover();
        if let Poll::Ready(found) = look(unheard) {
            return Poll::Ready(found);
        }
        self.ear.task.register(cx.waker());
        self.ear.cover();
        self.drive();
        if let Poll::Ready(found) = look(unheard) {
            return Poll::Ready(found);
        }
        self.ear.listen();
        Poll::Pending
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// # Errors
    /// When there is no head; an unsent request comes back.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub(super) async fn send(
        mut self: Box<Self>,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Drive), Failed> {
        let request = self.wrap(request);
        let mut response = pin!(self.sender.try_send_request(request));
        let answered =
            std::future::poll_fn(|cx| match self.poll_with(cx, |unheard| response.as_mut().poll(unheard)) {
                Poll::Pending if self.state == State::Over => Poll::Ready(None),
                polled => polled.map(Some),
            })
            .await;
        let used = std::mem::replace(&mut self.used, true);
        match answered {
            Some(Ok(response)) => Ok((response, Drive::Here(self))),
            None => Err(Failed::Told(SendError::sent(Sent::Closed))),
            Some(Err(mut error)) => {
                let request = error.take_message();
                Err(Failed::new(error.into_error(), request, used))
            }
        }
    }

    /// As [`Self::send`], for a request that may turn the connection into something else.
    ///
    /// # Errors
    /// As [`Self::send`].
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub(super) async fn send_upgrade(
        self: Box<Self>,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Drive), Failed> {
        let request = self.wrap(request);
        let Self { mut sender, driver, used, .. } = *self;
        tokio::spawn(async move {
            if let Err(error) = driver.with_upgrades().await {
                tracing::debug!(%error, "upgrade connection ended");
            }
        });
        match sender.try_send_request(request).await {
            Ok(response) => Ok((response, Drive::Upgrade { _held: sender })),
            Err(mut error) => {
                let request = error.take_message();
                Err(Failed::new(error.into_error(), request, used))
            }
        }
    }

    fn wrap(&self, request: Request<RequestBody>) -> Request<Outgoing> {
        request.map(|body| Outgoing {
            _uploading: (!body.is_end_stream()).then(|| Arc::clone(&self.uploading)),
            body,
        })
    }

    fn is_uploading(&self) -> bool {
        Arc::strong_count(&self.uploading) > 1
    }

    /// Drives the connection in a task of its own until told of the body's end, or that nobody wants it.
    fn detach(mut self: Box<Self>, pool: Arc<Pool>) -> Drive {
        let (ended, mut end) = oneshot::channel();
        let driving = async move {
            let end = std::future::poll_fn(|cx| {
                if let Poll::Ready(end) = Pin::new(&mut end).poll(cx) {
                    return Poll::Ready(end.is_ok());
                }
                ready!(self.poll_task(cx));
                Poll::Ready(false)
            })
            .await;
            if end && self.is_reusable() {
                pool.put(self);
            }
        };
        tokio::spawn(driving);
        Drive::Task(ended)
    }

    fn poll_task(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.ear.task.register(cx.waker());
        self.ear.cover();
        self.drive();
        if self.state == State::Over {
            // The head or the body's end may still be on its way to the reader.
            return Poll::Ready(());
        }
        self.ear.listen();
        Poll::Pending
    }
}

impl Failed {
    fn new(error: hyper::Error, request: Option<Request<Outgoing>>, used: bool) -> Self {
        match request.map(|request| request.map(|outgoing| outgoing.body)) {
            Some(request) if used => Self::Stale(Box::new(request)),
            Some(request) => {
                Self::Told(SendError::unsent(Unsent::Refused).because(error).giving_back(request))
            }
            None => {
                let how = if error.is_user() {
                    Sent::RequestBody
                } else if error.is_parse() {
                    Sent::Protocol
                } else {
                    Sent::Closed
                };
                Self::Told(SendError::sent(how).because(error))
            }
        }
    }
}

/// The body of an HTTP/1 response, and the connection under it.
#[derive(Debug)]
pub(super) struct Http1Body {
    incoming: Incoming,
    drive: Drive,
}

impl Http1Body {
    pub(super) fn new(incoming: Incoming, drive: Drive, pool: &Arc<Pool>) -> Self {
        let drive = match drive {
            Drive::Here(connection) if connection.is_uploading() => connection.detach(Arc::clone(pool)),
            other @ (Drive::Here(_) | Drive::Task(_) | Drive::Upgrade { .. } | Drive::Over) => other,
        };
        let mut body = Self { incoming, drive };
        if body.incoming.is_end_stream() {
            body.end(pool);
        }
        body
    }

    /// The next frame; with the last one the connection goes back to the pool.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        pool: &Arc<Pool>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let incoming = &mut self.incoming;
        let frame = match &mut self.drive {
            Drive::Here(connection) => {
                match connection.poll_with(cx, |unheard| Pin::new(&mut *incoming).poll_frame(unheard)) {
                    Poll::Ready(frame) => frame,
                    Poll::Pending if connection.state == State::Over => {
                        // The end of the connection, with the body cut short: its drop says so to the body.
                        self.drive = Drive::Over;
                        ready!(Pin::new(incoming).poll_frame(cx))
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
            Drive::Task(_) | Drive::Upgrade { .. } | Drive::Over => ready!(Pin::new(incoming).poll_frame(cx)),
        };
        match frame {
            Some(Ok(frame)) => {
                if self.incoming.is_end_stream() {
                    self.end(pool);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.drive = Drive::Over;
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                self.end(pool);
                Poll::Ready(None)
            }
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    fn end(&mut self, pool: &Arc<Pool>) {
        match std::mem::replace(&mut self.drive, Drive::Over) {
            Drive::Here(mut connection) => {
                if connection.is_reusable() {
                    pool.put(connection);
                }
            }
            Drive::Task(ended) => {
                let _a_task_that_is_gone_needs_no_telling = ended.send(());
            }
            Drive::Upgrade { .. } | Drive::Over => {}
        }
    }
}
