//! Response bodies as they come from an endpoint, and what they hold until their end.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{exchange::Http2Body, http1::Http1Body, pool::InFlight};
use crate::{body::BodyError, proxy::hop};

/// A response body on its way from an endpoint.
///
/// It holds the call's place among [`Endpoint::in_flight`](super::Endpoint::in_flight) and its connection or stream. At
/// the body's end both are given back, and an HTTP/1 connection is ready for the next call; a body dropped before its
/// end closes its connection, or resets its stream.
#[derive(Debug)]
pub struct UpstreamBody {
    inner: Inner,
    call: Option<InFlight>,
}

#[derive(Debug)]
enum Inner {
    Http1(Http1Body),
    Http2(Http2Body),
}

impl UpstreamBody {
    pub(super) fn http1(body: Http1Body, call: InFlight) -> Self {
        Self { inner: Inner::Http1(body), call: Some(call) }.settled()
    }

    pub(super) fn http2(body: Http2Body, call: InFlight) -> Self {
        Self { inner: Inner::Http2(body), call: Some(call) }.settled()
    }

    /// A body without content holds nothing from the start.
    fn settled(mut self) -> Self {
        if self.is_end_stream() {
            self.call = None;
        }
        self
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(call) = &this.call else { return Poll::Ready(None) };
        let mut frame = match &mut this.inner {
            Inner::Http1(body) => ready!(body.poll_frame(cx, call.pool())),
            Inner::Http2(body) => ready!(body.poll_frame(cx)),
        };
        if let Some(Ok(frame)) = &mut frame {
            frame.trailers_mut().map(hop::strip_trailers);
        }
        let over = match &frame {
            Some(Ok(_)) => this.is_end_stream(),
            Some(Err(_)) | None => true,
        };
        if over {
            this.call = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.call.is_none()
            || match &self.inner {
                Inner::Http1(body) => body.is_end_stream(),
                Inner::Http2(body) => body.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        if self.call.is_none() {
            return SizeHint::with_exact(0);
        }
        match &self.inner {
            Inner::Http1(body) => body.size_hint(),
            Inner::Http2(body) => body.size_hint(),
        }
    }
}
