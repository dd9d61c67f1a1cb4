//! One call on an HTTP/2 connection: the request up, the response down, and the request back when it was refused.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use tokio::task::AbortHandle;

use super::{
    error::{SendError, Sent, Unsent},
    http2::StreamSlot,
    replay::{Replay, Taken},
};
use crate::body::{BodyError, RequestBody};

/// Why there is no head.
#[derive(Debug)]
pub(super) enum Failed {
    /// The connection takes no more calls; nothing was sent.
    Stale(Box<Request<RequestBody>>),
    /// What the caller is told.
    Told(SendError),
}

/// Whether a request head is kept, to be given back when the call is refused: a copy of its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Head,
    Nothing,
}

/// Sends a request and waits for the head of its response.
///
/// # Errors
/// When there is no head; a request that surely was not processed comes back where it is still whole.
///
/// # Cancel safety
/// Dropping the future resets the stream.
pub(super) async fn send(
    mut slot: StreamSlot,
    request: Box<Request<RequestBody>>,
    keep: Keep,
) -> Result<(Response<()>, Http2Body), Failed> {
    let mut sender = match slot.sender() {
        Ok(sender) => sender,
        Err(_) => return Err(Failed::Stale(request)),
    };
    let (mut parts, body) = request.into_parts();
    let extensions = std::mem::take(&mut parts.extensions);
    let kept = match keep {
        Keep::Head => Some((parts.method.clone(), parts.uri.clone(), parts.headers.clone())),
        Keep::Nothing => None,
    };
    let back = |body: Option<RequestBody>| {
        let ((method, uri, headers), body) = kept.zip(body)?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = headers;
        *request.extensions_mut() = extensions;
        Some(request)
    };
    declare_length(&parts.method, &mut parts.headers, &body);
    let over = body.is_end_stream();
    let (response, upload) = match sender.send_request(Request::from_parts(parts, ()), over) {
        Ok(begun) => begun,
        Err(error) => {
            slot.retire();
            let why = if error.is_go_away() || error.is_io() { Unsent::Refused } else { Unsent::Protocol };
            let mut told = SendError::unsent(why).because(error);
            told.request = back(Some(body)).map(Box::new);
            return Err(Failed::Told(told));
        }
    };
    drop(sender);
    let mut upload = Upload::new(body, upload, over);
    slot.answered = false;
    let mut response = pin!(response);
    let answered = std::future::poll_fn(|cx| {
        if upload.poll(cx) == Poll::Ready(Uploaded::Cut) {
            return Poll::Ready(Err(None));
        }
        response.as_mut().poll(cx).map_err(Some)
    })
    .await;
    slot.answered = true;
    let error = match answered {
        Ok(response) => {
            let (parts, receive) = response.into_parts();
            // One length is held against the body; a second one could tell another reader something else.
            if parts.headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
                let error = SendError::sent(Sent::Protocol).because("more than one content-length");
                return Err(Failed::Told(error));
            }
            let body = Http2Body::new(&parts.headers, receive, slot, upload);
            return Ok((Response::from_parts(parts, ()), body));
        }
        Err(None) => {
            let mut told = SendError::sent(Sent::RequestBody);
            told.source = upload.error.map(Into::into);
            return Err(Failed::Told(told));
        }
        Err(Some(error)) => error,
    };
    let refused = error.is_remote()
        && (error.is_go_away() || (error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM)));
    if refused {
        if error.is_go_away() {
            slot.retire();
        }
        let mut told = SendError::unsent(Unsent::Refused).because(error);
        told.request = back(upload.into_body()).map(Box::new);
        return Err(Failed::Told(told));
    }
    let how = if error.is_reset() && error.is_remote() {
        Sent::Reset
    } else if error.is_library() {
        Sent::Protocol
    } else {
        Sent::Closed
    };
    Err(Failed::Told(SendError::sent(how).because(error)))
}

/// Says the length of a body where it is known, once: what the client said may be several lengths.
fn declare_length(method: &Method, headers: &mut HeaderMap, body: &RequestBody) {
    match body.size_hint().exact() {
        Some(length) if length > 0 || [Method::POST, Method::PUT, Method::PATCH].contains(method) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        Some(_) | None => {
            headers.remove(header::CONTENT_LENGTH);
        }
    }
}

/// A request body on its way up.
struct Upload {
    body: RequestBody,
    stream: SendStream<Bytes>,
    /// A piece that waits for room, and whether it is the last.
    piece: Option<(Bytes, End)>,
    state: Going,
    replay: Replay,
    error: Option<BodyError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Last,
    More,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Going {
    Up,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Uploaded {
    /// All that will be sent has been.
    Done,
    /// The client's body broke off.
    Cut,
}

impl Upload {
    fn new(body: RequestBody, stream: SendStream<Bytes>, over: bool) -> Self {
        let state = if over { Going::Done } else { Going::Up };
        Self { body, stream, piece: None, state, replay: Replay::default(), error: None }
    }

    /// The body, if it is still whole.
    fn into_body(self) -> Option<RequestBody> {
        let taken = if self.state == Going::Done { Taken::All } else { Taken::Part };
        self.replay.body(self.body, taken)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Uploaded> {
        if self.state == Going::Done {
            return Poll::Ready(Uploaded::Done);
        }
        let polled = self.poll_up(cx);
        if polled.is_ready() {
            self.state = Going::Done;
        }
        polled
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Uploaded> {
        loop {
            // The endpoint may have heard enough; the response, or its error, says what that means.
            if self.stream.poll_reset(cx).is_ready() {
                return self.stopped();
            }
            if let Some((piece, end)) = self.piece.take() {
                if !piece.is_empty() && self.stream.capacity() == 0 {
                    match self.stream.poll_capacity(cx) {
                        Poll::Ready(Some(Ok(0))) => {
                            self.piece = Some((piece, end));
                            continue;
                        }
                        Poll::Ready(Some(Ok(_))) => {}
                        Poll::Ready(Some(Err(_)) | None) => return self.stopped(),
                        Poll::Pending => {
                            self.piece = Some((piece, end));
                            return Poll::Pending;
                        }
                    }
                }
                match (self.stream.send_data(piece, end == End::Last), end) {
                    (Ok(()), End::More) => continue,
                    (Ok(()), End::Last) => return Poll::Ready(Uploaded::Done),
                    (Err(_), _) => return self.stopped(),
                }
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => {
                        let end = if self.body.is_end_stream() { End::Last } else { End::More };
                        self.replay.take(&piece);
                        if !piece.is_empty() {
                            // One byte, not the piece: what is claimed but cannot be sent yet would be kept from others.
                            self.stream.reserve_capacity(1);
                        }
                        self.piece = Some((piece, end));
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.replay.lose();
                            self.stream.reserve_capacity(0);
                            let _a_reset_is_told_by_the_response = self.stream.send_trailers(trailers);
                            return Poll::Ready(Uploaded::Done);
                        }
                    }
                },
                Some(Err(error)) => {
                    self.error = Some(error);
                    self.replay.lose();
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Uploaded::Cut);
                }
                None => {
                    self.replay.end();
                    let _a_reset_is_told_by_the_response = self.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(Uploaded::Done);
                }
            }
        }
    }

    /// The endpoint takes no more of a body that is not over.
    fn stopped(&mut self) -> Poll<Uploaded> {
        if !matches!(self.replay, Replay::Untouched) {
            self.replay.lose();
        }
        Poll::Ready(Uploaded::Done)
    }
}

/// The body of an HTTP/2 response.
#[derive(Debug)]
pub(super) struct Http2Body {
    receive: RecvStream,
    slot: Option<StreamSlot>,
    length: Option<u64>,
    part: Part,
    /// The upload that goes on by itself.
    upload: Option<Aborting>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Data,
    Trailers,
    Over,
}

/// A task that ends with its call.
#[derive(Debug)]
struct Aborting(AbortHandle);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Http2Body {
    fn new(headers: &HeaderMap, receive: RecvStream, slot: StreamSlot, mut upload: Upload) -> Self {
        // Both directions move on their own from here: a reader that stalls must not stall its own writing.
        let upload = (upload.state == Going::Up).then(|| {
            Aborting(
                tokio::spawn(async move { std::future::poll_fn(|cx| upload.poll(cx)).await }).abort_handle(),
            )
        });
        let length = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse().ok());
        let mut body = Self { receive, slot: Some(slot), length, part: Part::Data, upload };
        if body.receive.is_end_stream() {
            body.end();
        }
        body
    }

    /// The next frame; with the last one the stream is given back.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.part == Part::Data {
            match ready!(self.receive.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Fails only when the stream is gone, which the next poll tells.
                    let _released = self.receive.flow_control().release_capacity(data.len());
                    self.length = self.length.map(|length| length.saturating_sub(data.len() as u64));
                    if self.receive.is_end_stream() {
                        self.end();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // A peer that has said all may reset what it has not read of the request (RFC 9113 §8.1).
                Some(Err(error))
                    if error.is_remote()
                        && error.reason() == Some(Reason::NO_ERROR)
                        && self.length.is_none_or(|left| left == 0) =>
                {
                    self.end();
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    self.end();
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => self.part = Part::Trailers,
            }
        }
        if self.part == Part::Over {
            return Poll::Ready(None);
        }
        let trailers = ready!(self.receive.poll_trailers(cx));
        self.end();
        Poll::Ready(match trailers {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(error.into())),
        })
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.part == Part::Over
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    fn end(&mut self) {
        self.part = Part::Over;
        self.upload = None;
        self.slot = None;
    }
}
