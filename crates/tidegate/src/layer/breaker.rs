//! The breaker as a `tower` layer over `http` types, for clients of plain HTTP and gRPC alike.

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{GuardedBody, limit::refused_in};
use crate::{
    Call, Outcome, Permit as _, Refused,
    breaker::{Breaker, Permit},
    classify::{ByStatus, Classify, Judged},
    clock, grpc,
};

/// The error of a guarded call: a [`Refused`], which [`refused_in`] finds, or the error of the service below.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The response body of a guarded call.
pub type BreakerBody<B, C = ByStatus> = GuardedBody<B, Permit, C>;

/// Refuses calls through a service while its breaker is open.
///
/// A call is admitted in `call`, after the service is ready, so that an idle clone never holds a probe. A bad response
/// head counts at once. A good one means that the dependency answers: a probe passes with it, and what remains to be
/// judged is how the body ends: a stream that breaks, or ends in a bad gRPC status, is a failure, one that its reader
/// leaves is none. A refusal by a guard further in is nobody's failure; a probe it refuses lets another try.
///
/// What the call knows is read from a [`Call`] in the request's extensions; without one it begins here, and
/// `grpc-timeout` is its deadline.
///
/// ```
/// use tidegate::{breaker::{Breaker, Settings}, layer::breaker::BreakerLayer};
///
/// let layer = BreakerLayer::new(Breaker::new(Settings::default())?);
/// # let _ = layer; Ok::<(), tidegate::breaker::InvalidSettings>(())
/// ```
#[derive(Clone, Debug)]
pub struct BreakerLayer<C = ByStatus> {
    breaker: Breaker,
    classify: C,
}

impl BreakerLayer {
    /// Makes a layer of `breaker`, which other layers may share.
    pub const fn new(breaker: Breaker) -> Self {
        Self { breaker, classify: ByStatus }
    }
}

impl<C> BreakerLayer<C> {
    /// How the ends of calls are judged. Default: [`ByStatus`].
    #[must_use]
    pub fn classify<C2>(self, classify: C2) -> BreakerLayer<C2> {
        BreakerLayer { breaker: self.breaker, classify }
    }
}

impl<S, C: Clone> Layer<S> for BreakerLayer<C> {
    type Service = BreakerService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        BreakerService { inner, breaker: self.breaker.clone(), classify: self.classify.clone() }
    }
}

/// A service with a breaker before it.
#[derive(Clone, Debug)]
pub struct BreakerService<S, C = ByStatus> {
    inner: S,
    breaker: Breaker,
    classify: C,
}

impl<S, B, R, C> Service<Request<B>> for BreakerService<S, C>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<BoxError>>,
    R: Body,
    C: Classify + Clone,
{
    type Response = Response<BreakerBody<R, C>>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let call = request.extensions().get::<Call>().copied().unwrap_or_else(|| {
            let call = Call::at(clock::now());
            grpc::timeout(request.headers()).map_or(call, |timeout| call.within(timeout))
        });
        let state = match self.breaker.admit(&call) {
            Ok(permit) => State::Calling {
                future: self.inner.call(request),
                held: Some((permit, self.classify.clone())),
            },
            Err(refused) => State::Refused { refused },
        };
        ResponseFuture { state }
    }
}

pin_project! {
    /// The response to a guarded call. Dropping it abandons the call.
    pub struct ResponseFuture<F, C> {
        #[pin]
        state: State<F, C>,
    }
}

pin_project! {
    #[project = Projection]
    enum State<F, C> {
        Calling { #[pin] future: F, held: Option<(Permit, C)> },
        Refused { refused: Refused },
    }
}

impl<F, R, E, C> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
    E: Into<BoxError>,
    C: Classify,
{
    type Output = Result<Response<BreakerBody<R, C>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (future, held) = match self.project().state.project() {
            Projection::Calling { future, held } => (future, held),
            Projection::Refused { refused } => return Poll::Ready(Err(Box::new(*refused))),
        };
        let result = ready!(future.poll(cx));
        let (permit, classify) = held.take().expect("a future is not polled after its end");
        Poll::Ready(match result {
            Ok(response) => Ok(head(response, permit, classify)),
            Err(error) => {
                let error = error.into();
                let outcome = match refused_in(&*error) {
                    Some(_) => Outcome::Unsent,
                    None => classify.failed(),
                };
                permit.settle_now(outcome);
                Err(error)
            }
        })
    }
}

fn head<R: Body, C: Classify>(
    response: Response<R>,
    mut permit: Permit,
    classify: C,
) -> Response<BreakerBody<R, C>> {
    match classify.head(response.status(), response.headers()) {
        Judged::Known(Outcome::Success) | Judged::AtEnd => {
            permit.answered(clock::now());
            GuardedBody::guard(response, permit, classify)
        }
        // What the head has said needs no body: its reader may well drop it unread.
        Judged::Known(outcome) => {
            permit.settle_now(outcome);
            GuardedBody::free(response)
        }
    }
}
