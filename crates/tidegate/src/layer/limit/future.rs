//! A limited call on its way: waiting for its permit, then calling with it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{Directions, Error, Guarded, Hold, Refusals, Settings, Silence};
use crate::{
    By, Call, Outcome, Permit as _, Refused,
    classify::{Classify, Judged},
    grpc,
    layer::GuardedBody,
    limiter::{Inside, Permit},
};

type Admission = Pin<Box<dyn Future<Output = Result<Permit, Refused>> + Send>>;

pin_project! {
    /// The response to a limited call. Dropping it gives up the place in line or the permit.
    pub struct ResponseFuture<S, B, C, D, I>
    where
        D: Directions<B>,
        S: Service<Request<D::Body>>,
        I: Silence,
    {
        #[pin]
        state: State<S, B, C, D, I, S::Future>,
    }
}

pin_project! {
    #[project = Projection]
    enum State<S, B, C, D, I, F>
    where
        D: Directions<B>,
        I: Silence,
    {
        Waiting { waiting: Box<Waiting<S, B, C, D, I>> },
        Calling { #[pin] future: F, on_head: Option<OnHead<D::Held, C, I::Watch>> },
        Refused { refused: Refused, refusals: Refusals, is_grpc: Grpc },
        Over,
    }
}

struct Waiting<S, B, C, D, I> {
    admission: Admission,
    ready: S,
    settings: Settings<C, D, I>,
    request: Option<Request<B>>,
}

struct OnHead<P, C, W> {
    permit: P,
    limiter: usize,
    hold: Hold,
    watch: W,
    classify: C,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Grpc {
    Yes,
    No,
}

impl Grpc {
    fn of<B>(request: &Request<B>) -> Self {
        if grpc::is_grpc(request.headers()) { Self::Yes } else { Self::No }
    }
}

impl<S, B, C, D, I> ResponseFuture<S, B, C, D, I>
where
    C: Clone,
    D: Directions<B>,
    S: Service<Request<D::Body>>,
    I: Silence,
{
    #[inline(always)]
    pub(super) fn calling(
        service: &mut S,
        settings: &Settings<C, D, I>,
        request: Request<B>,
        permit: Permit,
    ) -> Self {
        Self { state: begin(service, settings, request, permit) }
    }

    pub(super) fn refused(settings: &Settings<C, D, I>, request: &Request<B>, refused: Refused) -> Self {
        let is_grpc = Grpc::of(request);
        Self { state: State::Refused { refused, refusals: settings.refusals, is_grpc } }
    }

    pub(super) fn waiting(ready: S, settings: Settings<C, D, I>, request: Request<B>, call: Call) -> Self {
        let limiter = settings.limiter(&request).clone();
        let admission = Box::pin(async move { limiter.wait(&call).await });
        let waiting = Waiting { admission, ready, settings, request: Some(request) };
        Self { state: State::Waiting { waiting: Box::new(waiting) } }
    }
}

/// Makes the call. A request is moved as little as can be: it is large, and this is every call's path.
#[inline(always)]
fn begin<S, B, C, D, I>(
    service: &mut S,
    settings: &Settings<C, D, I>,
    request: Request<B>,
    permit: Permit,
) -> State<S, B, C, D, I, S::Future>
where
    C: Clone,
    D: Directions<B>,
    S: Service<Request<D::Body>>,
    I: Silence,
{
    let hold = request.extensions().get::<Hold>().copied().unwrap_or(settings.hold);
    let watch = settings.silence.watch();
    let limiter = settings.limiter(&request).id();
    let (permit, half) = settings.directions.hold(permit);
    let _inside = Inside::of(limiter);
    State::Calling {
        future: service.call(settings.directions.wrap(request, half, I::watching(&watch))),
        on_head: Some(OnHead { permit, limiter, hold, watch, classify: settings.classify.clone() }),
    }
}

impl<P: crate::Permit + 'static, C: Classify, W> OnHead<P, C, W> {
    #[inline(always)]
    fn head<I: Silence<Watch = W>, R: Body + Send + 'static>(
        self,
        response: Response<R>,
    ) -> Guarded<I, R, P, C> {
        match self.hold {
            Hold::Body => I::guard(self.watch, response, self.permit, self.classify),
            Hold::Headers => {
                let outcome = match self.classify.head(response.status(), response.headers()) {
                    Judged::Known(outcome) => outcome,
                    // Its trailers are none of the permit's business any more.
                    Judged::AtEnd => Outcome::Success,
                };
                self.permit.settle_now(outcome);
                I::free(response)
            }
        }
    }
}

impl<S, B, R, C, D, I> Future for ResponseFuture<S, B, C, D, I>
where
    D: Directions<B>,
    S: Service<Request<D::Body>, Response = Response<R>>,
    R: Body + Send + 'static,
    C: Classify + Clone,
    I: Silence,
{
    type Output = Result<Guarded<I, R, D::Held, C>, Error<S::Error>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                Projection::Calling { future, on_head } => {
                    let inside = Inside::of(on_head.as_ref().map_or(0, |on_head| on_head.limiter));
                    let result = ready!(future.poll(cx));
                    drop(inside);
                    let on_head = on_head.take().expect("a future is not polled after its end");
                    return Poll::Ready(match result {
                        Ok(response) => Ok(on_head.head::<I, R>(response)),
                        Err(error) => {
                            let outcome = on_head.classify.failed();
                            on_head.permit.settle_now(outcome);
                            Err(Error::Inner(error))
                        }
                    });
                }
                Projection::Waiting { waiting } => {
                    let admission = ready!(waiting.admission.as_mut().poll(cx));
                    let request = waiting.request.take().expect("a request is sent once");
                    match admission {
                        Ok(permit) => begin(&mut waiting.ready, &waiting.settings, request, permit),
                        Err(refused) => State::Refused {
                            refused,
                            refusals: waiting.settings.refusals,
                            is_grpc: Grpc::of(&request),
                        },
                    }
                }
                Projection::Refused { refused, refusals, is_grpc } => {
                    let result = match refusals {
                        Refusals::Error => Err(Error::Refused(*refused)),
                        Refusals::Answer => Ok(answer(refused, *is_grpc).map(|()| GuardedBody::empty())),
                    };
                    state.set(State::Over);
                    return Poll::Ready(result);
                }
                Projection::Over => unreachable!("a future is not polled after its end"),
            };
            state.set(next);
        }
    }
}

fn answer(refused: &Refused, is_grpc: Grpc) -> Response<()> {
    if is_grpc == Grpc::Yes {
        return grpc::refusal(refused);
    }
    let mut response = Response::new(());
    *response.status_mut() = match refused.by {
        By::Deadline => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    response.headers_mut().insert(grpc::REFUSED, HeaderValue::from_static(refused.by.as_str()));
    if let Some(after) = refused.retry_after {
        let seconds = u64::try_from(after.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
