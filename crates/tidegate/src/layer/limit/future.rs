//! A limited call on its way: waiting for its permit, then calling with it.

#![expect(
    clippy::type_complexity,
    reason = "the types of a call are made of those of its service and its settings"
)]

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{Directions, Error, Guarded, Hold, Refusals, Settings, Silence, directions::Watching};
use crate::{
    By, Call, Refused,
    classify::Classify,
    grpc,
    layer::GuardedBody,
    limiter::{Inside, Permit},
};

/// What a call ends with, in a box.
type Answered<I, R, P, C, E> = Box<Result<Guarded<I, R, P, C>, Error<E>>>;

/// What a call with these settings meets its head with.
type HeadOf<B, C, D, I> = OnHead<<D as Directions<B>>::Held, C, <I as Silence>::Watch>;

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
        // Admitted at once. What most calls never see is apart, so that they do not carry it about.
        Calling { #[pin] calling: Calling<F, HeadOf<B, C, D, I>> },
        // Gone when it has ended.
        Apart { apart: Option<Box<Apart<S, B, C, D, I, F>>> },
    }
}

pin_project! {
    /// A call on its way, and what its head is met with.
    pub(super) struct Calling<F, H> {
        #[pin]
        future: F,
        on_head: Option<H>,
    }
}

/// A call that was not admitted at once. It and all that belongs to it stay in boxes: what is passed about by reference
/// could not be dissolved by the compiler on the path of the others.
pub(super) enum Apart<S, B, C, D, I, F>
where
    D: Directions<B>,
    I: Silence,
{
    /// Goes to `Calling`, or ends in a refusal.
    Waiting { admission: Admission, ready: S, settings: Settings<C, D, I>, request: Box<Request<B>> },
    /// Goes on to its end.
    Calling(Pin<Box<Calling<F, HeadOf<B, C, D, I>>>>),
    /// Refused at the door; it ends when it is polled.
    Refused { refused: Refused, refusals: Refusals, is_grpc: Grpc },
    /// It has ended.
    Over,
}

pub(super) struct OnHead<P, C, W> {
    permit: P,
    hold: Hold,
    watch: W,
    classify: C,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Grpc {
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
    D: Directions<B>,
    S: Service<Request<D::Body>>,
    I: Silence,
{
    #[inline(always)]
    pub(super) const fn calling(future: S::Future, on_head: HeadOf<B, C, D, I>) -> Self {
        Self { state: State::Calling { calling: Calling { future, on_head: Some(on_head) } } }
    }

    #[inline(always)]
    pub(super) const fn apart(apart: Box<Apart<S, B, C, D, I, S::Future>>) -> Self {
        Self { state: State::Apart { apart: Some(apart) } }
    }
}

impl<S, B, C, D, I, F> Apart<S, B, C, D, I, F>
where
    D: Directions<B>,
    I: Silence,
{
    pub(super) fn refused(settings: &Settings<C, D, I>, request: &Request<B>, refused: Refused) -> Box<Self> {
        let is_grpc = Grpc::of(request);
        Box::new(Self::Refused { refused, refusals: settings.refusals, is_grpc })
    }

    pub(super) fn waiting(
        ready: S,
        settings: Settings<C, D, I>,
        request: Box<Request<B>>,
        call: Call,
    ) -> Box<Self> {
        let limiter = settings.limiter(&request).clone();
        let admission = Box::pin(async move { limiter.wait(&call).await });
        Box::new(Self::Waiting { admission, ready, settings, request })
    }
}

/// What a call takes with it when it begins, and what stays for its head.
#[inline(always)]
pub(super) fn prepare<B, C, D, I>(
    settings: &Settings<C, D, I>,
    request: &Request<B>,
    permit: Permit,
) -> (HeadOf<B, C, D, I>, D::Half, Watching)
where
    C: Clone,
    D: Directions<B>,
    I: Silence,
{
    let hold = request.extensions().get::<Hold>().copied().unwrap_or(settings.hold);
    let watch = settings.silence.watch();
    let watching = I::watching(&watch);
    let (permit, half) = settings.directions.hold(permit);
    (OnHead { permit, hold, watch, classify: settings.classify.clone() }, half, watching)
}

impl<F, P: crate::Permit + 'static, C: Classify, W> Calling<F, OnHead<P, C, W>> {
    /// `limiter` tells a permit's limiter from others.
    #[inline(always)]
    fn poll<I, R, E>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        limiter: impl FnOnce(&P) -> usize,
    ) -> Poll<Result<Guarded<I, R, P, C>, Error<E>>>
    where
        F: Future<Output = Result<Response<R>, E>>,
        I: Silence<Watch = W>,
        R: Body + Send + 'static,
    {
        let this = self.project();
        let inside = Inside::of(this.on_head.as_ref().map_or(0, |on_head| limiter(&on_head.permit)));
        let polled = this.future.poll(cx);
        drop(inside);
        // Taken apart where it lies: a response is large to move.
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(response)) => {
                let OnHead { permit, hold, watch, classify, .. } =
                    this.on_head.take().expect("a future is not polled after its end");
                Poll::Ready(Ok(I::guard(watch, response, permit, classify, hold)))
            }
            Poll::Ready(Err(error)) => {
                let OnHead { permit, classify, .. } =
                    this.on_head.take().expect("a future is not polled after its end");
                permit.settle_now(classify.failed());
                Poll::Ready(Err(Error::Inner(error)))
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
        match self.project().state.project() {
            Projection::Calling { calling } => calling.poll::<I, R, S::Error>(cx, D::limiter),
            Projection::Apart { apart } => {
                match apart.take().expect("a future is not polled after its end").poll(cx) {
                    Ok(result) => Poll::Ready(*result),
                    Err(still) => {
                        *apart = Some(still);
                        Poll::Pending
                    }
                }
            }
        }
    }
}

impl<S, B, R, C, D, I> Apart<S, B, C, D, I, S::Future>
where
    D: Directions<B>,
    S: Service<Request<D::Body>, Response = Response<R>>,
    R: Body + Send + 'static,
    C: Classify + Clone,
    I: Silence,
{
    /// How it ends; or itself, if it goes on. By value: so the compiler sees on the others' path that nothing is left.
    #[cold]
    #[inline(never)]
    fn poll(
        mut self: Box<Self>,
        cx: &mut Context<'_>,
    ) -> Result<Answered<I, R, D::Held, C, S::Error>, Box<Self>> {
        if let Self::Waiting { admission, .. } = &mut *self {
            let Poll::Ready(admitted) = admission.as_mut().poll(cx) else { return Err(self) };
            let Self::Waiting { mut ready, settings, request, .. } =
                std::mem::replace(&mut *self, Self::Over)
            else {
                unreachable!("it waited a moment ago")
            };
            *self = match admitted {
                Ok(permit) => {
                    let _inside = Inside::counted(&permit);
                    let (on_head, half, watching) = prepare(&settings, &request, permit);
                    let future = settings.directions.call(&mut ready, *request, half, watching);
                    Self::Calling(Box::pin(Calling { future, on_head: Some(on_head) }))
                }
                Err(refused) => {
                    Self::Refused { refused, refusals: settings.refusals, is_grpc: Grpc::of(&request) }
                }
            };
        }
        if let Self::Calling(calling) = &mut *self {
            return match calling.as_mut().poll::<I, R, S::Error>(cx, D::limiter) {
                Poll::Ready(result) => Ok(Box::new(result)),
                Poll::Pending => Err(self),
            };
        }
        let Self::Refused { refused, refusals, is_grpc } = std::mem::replace(&mut *self, Self::Over) else {
            unreachable!("a future is not polled after its end")
        };
        Ok(Box::new(match refusals {
            Refusals::Error => Err(Error::Refused(Box::new(refused))),
            Refusals::Answer => Ok(answer(&refused, is_grpc).map(|()| GuardedBody::empty())),
        }))
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
