//! The body of a response, and the connection under it.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::{
    super::pool::Pool,
    connection::{Answer, Boxed},
    decode::{After, Rest},
    encode::Stopped,
    upgrade::Sender,
};
use crate::body::{BodyError, RequestBody};

type Framed = Result<Frame<Bytes>, BodyError>;

/// The body of an HTTP/1 response.
#[derive(Debug)]
pub(in super::super) enum Http1Body {
    /// All of it came with the head; the connection is back in the pool.
    Whole(Bytes),
    /// Read by whoever polls.
    Here { connection: Boxed, rest: Rest, after: After },
    /// Read by a task that still sends the request body.
    Relayed { frames: mpsc::Receiver<Framed>, size: SizeHint },
    /// The answer to an upgrade; hyper's, as the connection may have become something else.
    Upgrade { incoming: Incoming, _held: Sender },
    /// Nothing left.
    Over,
}

impl Http1Body {
    pub(in super::super) fn new(answer: Answer, pool: &Arc<Pool>) -> (http::Response<()>, Self) {
        let Answer { head, mut connection, mut rest, after, upload } = answer;
        if let Some(upload) = upload {
            // Both directions move on their own from here: a reader that stalls must not stall its own writing.
            let (sender, frames) = mpsc::channel(1);
            let size = size(rest);
            tokio::spawn(relay(connection, rest, after, upload, Arc::clone(pool), sender));
            return (head, Self::Relayed { frames, size });
        }
        let body = match connection.whole(&mut rest) {
            Some(whole) => {
                keep(connection, after, pool);
                if whole.is_empty() { Self::Over } else { Self::Whole(whole) }
            }
            None => Self::Here { connection, rest, after },
        };
        (head, body)
    }

    pub(in super::super) fn upgrade(incoming: Incoming, sender: Sender) -> Self {
        Self::Upgrade { incoming, _held: sender }
    }

    /// The next frame; with the last one the connection goes back to the pool.
    pub(in super::super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        pool: &Arc<Pool>,
    ) -> Poll<Option<Framed>> {
        let frame = match self {
            Self::Whole(whole) => Some(Ok(Frame::data(std::mem::take(whole)))),
            Self::Here { connection, rest, .. } => ready!(connection.poll_frame(rest, cx)),
            Self::Relayed { frames, size } => {
                let frame = ready!(frames.poll_recv(cx));
                if let (Some(Ok(frame)), Some(left)) = (&frame, size.exact()) {
                    let read = frame.data_ref().map_or(0, |data| data.len() as u64);
                    *size = SizeHint::with_exact(left.saturating_sub(read));
                }
                frame
            }
            Self::Upgrade { incoming, .. } => {
                ready!(std::pin::Pin::new(incoming).poll_frame(cx)).map(|frame| frame.map_err(Into::into))
            }
            Self::Over => None,
        };
        let over = match (&frame, &*self) {
            (None | Some(Err(_)), _) => true,
            (Some(Ok(_)), Self::Whole(_)) => true,
            (Some(Ok(_)), Self::Here { rest, .. }) => *rest == Rest::Nothing,
            (Some(Ok(_)), Self::Relayed { .. } | Self::Upgrade { .. } | Self::Over) => false,
        };
        if over
            && let Self::Here { connection, after, .. } = std::mem::replace(self, Self::Over)
            && matches!(frame, None | Some(Ok(_)))
        {
            keep(connection, after, pool);
        }
        Poll::Ready(frame)
    }

    pub(in super::super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Over => true,
            Self::Upgrade { incoming, .. } => incoming.is_end_stream(),
            Self::Relayed { size, .. } => size.exact() == Some(0),
            Self::Whole(_) | Self::Here { .. } => false,
        }
    }

    pub(in super::super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => SizeHint::with_exact(whole.len() as u64),
            Self::Here { rest, .. } => size(*rest),
            Self::Relayed { size, .. } => *size,
            Self::Upgrade { incoming, .. } => incoming.size_hint(),
            Self::Over => SizeHint::with_exact(0),
        }
    }
}

fn size(rest: Rest) -> SizeHint {
    match rest {
        Rest::Nothing => SizeHint::with_exact(0),
        Rest::Length(left) => SizeHint::with_exact(left),
        Rest::Chunked(_) | Rest::ToEnd => SizeHint::default(),
    }
}

/// Gives the connection back at the end of a response, if it may be used again.
fn keep(mut connection: Boxed, after: After, pool: &Arc<Pool>) {
    match after {
        After::Reuse => {
            connection.rest();
            pool.put(connection);
        }
        After::Close => {}
    }
}

/// Reads the response for somebody else while the request body is still being sent.
async fn relay(
    mut connection: Boxed,
    mut rest: Rest,
    after: After,
    body: RequestBody,
    pool: Arc<Pool>,
    frames: mpsc::Sender<Framed>,
) {
    let mut upload = Some(body);
    let mut after = after;
    let mut gone = pin!(frames.closed());
    loop {
        let frame = std::future::poll_fn(|cx| {
            if gone.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Next::Nobody);
            }
            if let Poll::Ready(Err(error)) = push(&mut connection, &mut upload, &mut after, cx) {
                return Poll::Ready(Next::Frame(Some(Err(error))));
            }
            connection.poll_frame(&mut rest, cx).map(Next::Frame)
        })
        .await;
        match frame {
            Next::Nobody => return,
            Next::Frame(None) => {
                if upload.is_none() {
                    keep(connection, after, &pool);
                }
                return;
            }
            Next::Frame(Some(frame)) => {
                let failed = frame.is_err();
                let mut broken = None;
                let mut sending = pin!(frames.send(frame));
                let sent = std::future::poll_fn(|cx| {
                    if broken.is_none()
                        && let Poll::Ready(Err(error)) = push(&mut connection, &mut upload, &mut after, cx)
                    {
                        broken = Some(error);
                    }
                    sending.as_mut().poll(cx)
                })
                .await;
                if let Some(error) = broken {
                    let _nobody_may_listen_any_more = frames.send(Err(error)).await;
                    return;
                }
                if failed || sent.is_err() {
                    return;
                }
            }
        }
    }
}

enum Next {
    Frame(Option<Framed>),
    Nobody,
}

/// Sends what there is of the request body. A body that breaks off is an error: the endpoint would wait for the rest.
fn push(
    connection: &mut Boxed,
    upload: &mut Option<RequestBody>,
    after: &mut After,
    cx: &mut Context<'_>,
) -> Poll<Result<(), BodyError>> {
    let Some(body) = upload else { return Poll::Ready(Ok(())) };
    let result = match ready!(connection.poll_upload(body, cx)) {
        Ok(()) => Ok(()),
        Err(Stopped::Socket) => {
            *after = After::Close;
            Ok(())
        }
        Err(Stopped::Body(error)) => Err(error),
    };
    match result {
        Ok(()) => *upload = None,
        Err(_) => *after = After::Close,
    }
    Poll::Ready(result)
}
