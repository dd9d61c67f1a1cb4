//! A permit for a call whose two directions end apart: it goes back when both are over.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use pin_project_lite::pin_project;

use super::idle::{Direction, StreamError, Watch};
use crate::{Instant, Outcome, Permit};

struct Shared<P> {
    permit: Option<P>,
    /// How the first half ended, if it is over: a response with an outcome, a request with none.
    over: Option<Option<Outcome>>,
}

struct Half<P: Permit>(Option<Arc<Mutex<Shared<P>>>>);

/// Splits a permit for the two directions of a call. It is settled, when both are over, with the response's outcome.
pub fn halves<P: Permit>(permit: P) -> (RequestHalf<P>, ResponseHalf<P>) {
    let shared = Arc::new(Mutex::new(Shared { permit: Some(permit), over: None }));
    (RequestHalf(Half(Some(Arc::clone(&shared)))), ResponseHalf(Half(Some(shared))))
}

impl<P: Permit> Half<P> {
    /// Ends this half; `now` is known when it was settled at a known time.
    fn end(&mut self, outcome: Option<Outcome>, now: Option<Instant>) {
        let Some(shared) = self.0.take() else { return };
        let (permit, outcome) = {
            let mut shared = shared.lock();
            match shared.over {
                None => {
                    shared.over = Some(outcome);
                    return;
                }
                Some(other) => (shared.permit.take(), outcome.or(other)),
            }
        };
        match (permit, outcome, now) {
            (Some(permit), Some(outcome), Some(now)) => permit.settle(outcome, now),
            (Some(permit), Some(outcome), None) => permit.settle_now(outcome),
            (permit, _, _) => drop(permit),
        }
    }
}

impl<P: Permit> Drop for Half<P> {
    fn drop(&mut self) {
        self.end(None, None);
    }
}

/// The request's half of a permit: over when dropped.
pub struct RequestHalf<P: Permit>(Half<P>);

impl<P: Permit> RequestHalf<P> {
    /// Ends the request's direction.
    pub fn end(mut self) {
        self.0.end(None, None);
    }
}

/// The response's half of a permit.
pub struct ResponseHalf<P: Permit>(Half<P>);

impl<P: Permit> ResponseHalf<P> {
    /// Looks at the permit.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&P) -> T) -> Option<T> {
        self.0.0.as_ref()?.lock().permit.as_ref().map(at)
    }
}

impl<P: Permit> Permit for ResponseHalf<P> {
    fn learns(&self) -> bool {
        self.look(P::learns).unwrap_or(false)
    }

    fn settle(mut self, outcome: Outcome, now: Instant) {
        self.0.end(Some(outcome), Some(now));
    }

    fn settle_now(mut self, outcome: Outcome) {
        self.0.end(Some(outcome), None);
    }
}

impl<P: Permit> Drop for ResponseHalf<P> {
    fn drop(&mut self) {
        self.0.end(Some(Outcome::Abandoned), None);
    }
}

pin_project! {
    /// A request body that holds its half of a permit until its end or drop.
    pub struct RequestBody<B, P: Permit> {
        #[pin]
        inner: B,
        held: Option<RequestHalf<P>>,
        watch: Option<Arc<Watch>>,
    }
}

impl<B: Body, P: Permit> RequestBody<B, P> {
    /// Ties `half` to `inner`.
    pub fn new(inner: B, half: RequestHalf<P>) -> Self {
        let held = if inner.is_end_stream() { None } else { Some(half) };
        Self { inner, held, watch: None }
    }

    /// Lets `watch` cut the stream.
    pub(crate) fn watched(mut self, watch: Option<Arc<Watch>>) -> Self {
        self.watch = watch;
        self
    }
}

impl<B: Body, P: Permit> Body for RequestBody<B, P> {
    type Data = B::Data;
    type Error = StreamError<B::Error>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        let mut this = self.project();
        if let Some(watch) = this.watch
            && let Poll::Ready(idle) = watch.poll_cut(Direction::Request, cx)
        {
            *this.held = None;
            return Poll::Ready(Some(Err(StreamError::Idle(idle))));
        }
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        if let Some(watch) = this.watch {
            watch.moved();
        }
        let goes_on = matches!(&frame, Some(Ok(frame)) if frame.is_data()) && !this.inner.is_end_stream();
        if !goes_on {
            *this.held = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(StreamError::Inner)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    struct Told(Sender<Outcome>, bool);

    impl Permit for Told {
        fn settle(mut self, outcome: Outcome, _now: Instant) {
            self.1 = true;
            self.0.send(outcome).unwrap();
        }
    }

    impl Drop for Told {
        fn drop(&mut self) {
            if !self.1 {
                self.0.send(Outcome::Abandoned).unwrap();
            }
        }
    }

    fn told() -> (Told, Receiver<Outcome>) {
        let (sender, receiver) = channel();
        (Told(sender, false), receiver)
    }

    #[test]
    fn a_permit_goes_back_once_when_both_directions_are_over() {
        let (permit, outcomes) = told();
        let (request, response) = halves(permit);
        response.settle(Outcome::Ignore, Instant::EPOCH);
        assert!(outcomes.try_recv().is_err(), "the client is sending still");
        drop(request);
        assert_eq!(outcomes.iter().collect::<Vec<_>>(), [Outcome::Ignore]);

        let (permit, outcomes) = told();
        let (request, response) = halves(permit);
        request.end();
        assert!(outcomes.try_recv().is_err());
        response.settle(Outcome::Success, Instant::EPOCH);
        assert_eq!(outcomes.iter().collect::<Vec<_>>(), [Outcome::Success]);
    }

    #[test]
    fn an_abandoned_response_is_told_as_such() {
        let (permit, outcomes) = told();
        let (request, response) = halves(permit);
        drop(response);
        drop(request);
        assert_eq!(outcomes.iter().collect::<Vec<_>>(), [Outcome::Abandoned]);
    }
}
