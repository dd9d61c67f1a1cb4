//! The response body that carries a permit to its end.

use std::{
    mem::ManuallyDrop,
    num::NonZeroU64,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tidegate_core::nanos;

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

/// What a body holds.
pub(super) struct Held<P, C> {
    permit: P,
    classify: C,
    verdict: Verdict,
}

/// What the head of a response told, in one word: a response is copied often, and a compiler that finds the free values of
/// half a word in it, such as those of a [`Duration`], tears every copy apart there.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Verdict(NonZeroU64);

impl Verdict {
    const AT_END: Self = Self::of(1);
    const SUCCESS: Self = Self::of(2);
    const IGNORE: Self = Self::of(3);
    const ABANDONED: Self = Self::of(4);
    const UNSENT: Self = Self::of(5);
    const OVERLOAD: Self = Self::of(6);
    /// An overload that told when to come back, in this many nanoseconds more than 7.
    const OVERLOAD_AFTER: u64 = 7;

    const fn of(word: u64) -> Self {
        Self(NonZeroU64::new(word).expect("counted from 1"))
    }

    const fn new(judged: Judged) -> Self {
        match judged {
            Judged::AtEnd => Self::AT_END,
            Judged::Known(Outcome::Success) => Self::SUCCESS,
            Judged::Known(Outcome::Ignore) => Self::IGNORE,
            Judged::Known(Outcome::Abandoned) => Self::ABANDONED,
            Judged::Known(Outcome::Unsent) => Self::UNSENT,
            Judged::Known(Outcome::Overload { retry_after: None }) => Self::OVERLOAD,
            Judged::Known(Outcome::Overload { retry_after: Some(after) }) => {
                Self::of(nanos(after).saturating_add(Self::OVERLOAD_AFTER))
            }
        }
    }

    const fn judged(self) -> Judged {
        match self {
            Self::AT_END => Judged::AtEnd,
            Self::SUCCESS => Judged::Known(Outcome::Success),
            Self::IGNORE => Judged::Known(Outcome::Ignore),
            Self::ABANDONED => Judged::Known(Outcome::Abandoned),
            Self::UNSENT => Judged::Known(Outcome::Unsent),
            Self::OVERLOAD => Judged::Known(Outcome::Overload { retry_after: None }),
            Self(word) => {
                let after = Duration::from_nanos(word.get() - Self::OVERLOAD_AFTER);
                Judged::Known(Outcome::Overload { retry_after: Some(after) })
            }
        }
    }
}

impl<P: Permit, C: Classify> Held<P, C> {
    /// What the body of `response` is to hold: nothing, if it is over from the start.
    #[inline(always)]
    pub(super) fn by<B: Body>(response: &Response<B>, permit: P, classify: C) -> Option<Self> {
        // Nobody asks what has no use: looking through headers is most of what a call costs here.
        let verdict = if permit.learns() {
            Verdict::new(classify.head(response.status(), response.headers()))
        } else {
            Verdict::IGNORE
        };
        let held = Self { permit, classify, verdict };
        if response.body().is_end_stream() {
            held.settle(|classify| classify.end(None));
            return None;
        }
        Some(held)
    }

    /// Settles a permit that is held to the head alone.
    #[inline(always)]
    pub(super) fn to_head<B>(response: &Response<B>, permit: P, classify: &C) {
        permit.settle_now(match classify.head(response.status(), response.headers()) {
            Judged::Known(outcome) => outcome,
            // Its trailers are none of the permit's business any more.
            Judged::AtEnd => Outcome::Success,
        });
    }

    #[inline]
    fn settle(self, at_end: impl FnOnce(&C) -> Outcome) {
        let outcome = match self.verdict.judged() {
            Judged::Known(outcome) => outcome,
            Judged::AtEnd => at_end(&self.classify),
        };
        self.permit.settle_now(outcome);
    }
}

impl<B: Body, P: Permit, C: Classify> GuardedBody<B, P, C> {
    /// Ties `permit` to the body of `response`.
    #[inline(always)]
    pub fn guard(response: Response<B>, permit: P, classify: C) -> Response<Self> {
        let held = Held::by(&response, permit, classify);
        Self::holding(response, held)
    }

    /// Whether the permit is held still.
    pub const fn is_held(&self) -> bool {
        self.held.is_some()
    }
}

impl<B, P, C> GuardedBody<B, P, C> {
    /// Passes `response` on without a permit.
    pub fn free(response: Response<B>) -> Response<Self> {
        Self::holding(response, None)
    }

    /// A response is large: all there is to decide is decided before it moves, once.
    #[inline(always)]
    pub(super) fn holding(response: Response<B>, held: Option<Held<P, C>>) -> Response<Self> {
        response.map(|body| Self { inner: Some(body), held })
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
        // With one way out, and nothing to drop on the way if settling panics (the frame would only be leaked), a frame is
        // not moved from place to place before it reaches the caller.
        let polled = ManuallyDrop::new(match this.inner.as_mut().as_pin_mut() {
            Some(body) => body.poll_frame(cx),
            None => Poll::Ready(None),
        });
        match &*polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => {
                let trailers = frame.trailers_ref();
                let is_over = trailers.is_some()
                    || this.inner.as_ref().as_pin_ref().is_none_or(|body| body.is_end_stream());
                if is_over && let Some(held) = this.held.take() {
                    held.settle(|classify| classify.end(trailers));
                }
            }
            Poll::Ready(Some(Err(_))) => {
                if let Some(Held { permit, classify, .. }) = this.held.take() {
                    // Whatever the head said, the answer is not whole.
                    permit.settle_now(classify.failed());
                }
            }
            Poll::Ready(None) => {
                if let Some(held) = this.held.take() {
                    held.settle(|classify| classify.end(None));
                }
            }
        }
        ManuallyDrop::into_inner(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_in_a_word_is_what_was_judged() {
        let overload = |retry_after| Judged::Known(Outcome::Overload { retry_after });
        for judged in [
            Judged::AtEnd,
            Judged::Known(Outcome::Success),
            Judged::Known(Outcome::Ignore),
            Judged::Known(Outcome::Abandoned),
            Judged::Known(Outcome::Unsent),
            overload(None),
            overload(Some(Duration::ZERO)),
            overload(Some(Duration::from_nanos(1))),
            overload(Some(Duration::from_secs(7))),
        ] {
            assert_eq!(Verdict::new(judged).judged(), judged);
        }
        // 584 years are for ever.
        let most = Duration::from_nanos(u64::MAX - Verdict::OVERLOAD_AFTER);
        assert_eq!(Verdict::new(overload(Some(Duration::MAX))).judged(), overload(Some(most)));
    }
}
