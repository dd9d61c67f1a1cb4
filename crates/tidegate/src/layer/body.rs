//! The response body that carries a permit to its end.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::{
    Outcome, Permit,
    classify::{ByStatus, Classify, Judged},
};

pin_project! {
    /// A body that holds a permit until its end.
    ///
    /// The permit is settled with what the [`Classify`]r says at the end of the stream (after the trailers, where there
    /// are any), or as failed when the body fails; dropped before the end, it drops the permit, which is
    /// [`Outcome::Abandoned`]. A body that is over from the start holds nothing.
    pub struct GuardedBody<B, P, C = ByStatus> {
        #[pin]
        inner: Option<B>,
        held: Option<Held<P, C>>,
    }
}

struct Held<P, C> {
    permit: P,
    classify: C,
    judged: Judged,
}

impl<P: Permit, C: Classify> Held<P, C> {
    #[inline]
    fn settle(self, outcome: impl FnOnce(&C) -> Outcome) {
        let outcome = match self.judged {
            Judged::Known(outcome) => outcome,
            Judged::AtEnd => outcome(&self.classify),
        };
        self.permit.settle_now(outcome);
    }
}

impl<B: Body, P: Permit, C: Classify> GuardedBody<B, P, C> {
    /// Ties `permit` to the body of `response`.
    #[inline(always)]
    pub fn guard(response: Response<B>, permit: P, classify: C) -> Response<Self> {
        let judged = classify.head(response.status(), response.headers());
        response.map(|body| {
            let held = Held { permit, classify, judged };
            let held = if body.is_end_stream() {
                held.settle(|classify| classify.end(None));
                None
            } else {
                Some(held)
            };
            Self { inner: Some(body), held }
        })
    }

    /// Whether the permit is held still.
    pub const fn is_held(&self) -> bool {
        self.held.is_some()
    }
}

impl<B, P, C> GuardedBody<B, P, C> {
    /// Passes `response` on without a permit.
    pub fn free(response: Response<B>) -> Response<Self> {
        response.map(|body| Self { inner: Some(body), held: None })
    }

    /// An empty body.
    pub const fn empty() -> Self {
        Self { inner: None, held: None }
    }
}

impl<B: Body, P: Permit, C: Classify> Body for GuardedBody<B, P, C> {
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let Some(mut body) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let frame = ready!(body.as_mut().poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let trailers = frame.trailers_ref();
                if (trailers.is_some() || body.is_end_stream())
                    && let Some(held) = this.held.take()
                {
                    held.settle(|classify| classify.end(trailers));
                }
            }
            Some(Err(_)) => {
                if let Some(Held { permit, classify, .. }) = this.held.take() {
                    // Whatever the head said, the answer is not whole.
                    permit.settle_now(classify.failed());
                }
            }
            None => {
                if let Some(held) = this.held.take() {
                    held.settle(|classify| classify.end(None));
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}
