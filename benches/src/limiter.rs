//! The limiter beside tokio's semaphore, tower, tower-resilience and tower-acc.

mod cases;

use std::{
    hint::black_box,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{Empty, Full};
use tidegate::{
    Call, Outcome, Permit, clock,
    layer::limit::LimitLayer,
    limiter::{Adaptive, Bounds, Gradient, Limiter},
};
use tokio::sync::Semaphore;
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimitLayer};
use tower_resilience_bulkhead::BulkheadLayer;

use crate::harness::{Suite, block_on};

/// Far above what two threads can do at once: every call is admitted.
const LIMIT: u32 = 1000;

pub(crate) fn tables(suite: &mut Suite) {
    enter_and_leave(suite);
    layer(suite);
    adaptive(suite);
    cases::tables(suite);
}

fn limiter() -> Limiter {
    Limiter::new(LIMIT.into()).expect("the limit is in range")
}

fn enter_and_leave(suite: &mut Suite) {
    suite.timings("limiter: enter and leave", |table| {
        let call = Call::at(clock::now());
        table.ours("try_acquire", limiter(), move |limiter| {
            limiter.try_acquire(&call).map(|permit| permit.settle(Outcome::Success, call.now))
        });
        table.ours("acquire", limiter(), move |limiter| {
            block_on(limiter.acquire(&call)).map(|permit| permit.settle(Outcome::Success, call.now))
        });
        let semaphore = Arc::new(Semaphore::new(LIMIT as usize));
        table.note("tokio Semaphore try_acquire (borrowed)", semaphore.clone(), |semaphore| {
            semaphore.try_acquire().map(drop)
        });
        table.peer("tokio Semaphore acquire_owned", semaphore, |semaphore| {
            block_on(Arc::clone(semaphore).acquire_owned()).map(drop)
        });
        table.bar("at most tokio's acquire_owned, 0 allocations");
    });
}

type Answer = Response<Full<Bytes>>;

/// A service that answers at once, with a body of one frame, and might fail. Its request, and what it does, come from
/// functions that are not inlined, as of any real service: else requests and answers dissolve in the layers that pass
/// them on as they are, and nothing is timed of how layers move them.
#[derive(Clone)]
struct Answering;

/// Its answer.
struct Answered;

impl Service<Request<Empty<Bytes>>> for Answering {
    type Response = Answer;
    type Error = io::Error;
    type Future = Answered;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    #[inline(never)]
    fn call(&mut self, request: Request<Empty<Bytes>>) -> Answered {
        black_box(&request);
        Answered
    }
}

impl Future for Answered {
    type Output = io::Result<Answer>;

    #[inline(never)]
    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(Response::new(Full::new(Bytes::from_static(b"ok")))))
    }
}

#[inline(never)]
fn request() -> Request<Empty<Bytes>> {
    Request::new(Empty::new())
}

/// One call, its body read to its end.
fn pass<S, B>(service: &mut S) -> Result<(), S::Error>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>>,
    B: Body,
{
    let response = block_on(async { service.ready().await?.call(request()).await })?;
    let mut body = pin!(response.into_body());
    let mut context = Context::from_waker(Waker::noop());
    while matches!(body.as_mut().poll_frame(&mut context), Poll::Ready(Some(_))) {}
    Ok(())
}

fn layer(suite: &mut Suite) {
    suite.timings("limiter as a tower layer, unary", |table| {
        let ours = LimitLayer::new(limiter()).layer(Answering);
        table.ours("LimitLayer, to the end of the body", ours, |service| pass(service).is_ok());
        let tower = ConcurrencyLimitLayer::new(LIMIT as usize).layer(Answering);
        table.peer("tower ConcurrencyLimit, to the head", tower, |service| pass(service).is_ok());
        let bulkhead = BulkheadLayer::builder().max_concurrent_calls(LIMIT as usize).build();
        let bulkhead = bulkhead.expect("the settings are valid").layer(Answering);
        table.peer("tower-resilience bulkhead, to the head", bulkhead, |service| pass(service).is_ok());
        table.note("the service alone", Answering, |service| pass(service).is_ok());
        table.bar("at most 1.2x tower's, 0 allocations");
    });
}

fn adaptive(suite: &mut Suite) {
    suite.timings("adaptive limiter as a tower layer", |table| {
        let law = Gradient::new(Bounds::new(LIMIT, LIMIT).expect("a limit is its own bounds"));
        let limiter =
            Limiter::builder().adaptive(Adaptive::new(law)).build().expect("the settings are valid");
        let ours = LimitLayer::new(limiter).layer(Answering);
        table.ours("LimitLayer, gradient", ours, |service| pass(service).is_ok());
        let law = tower_acc::Gradient2::builder().initial_limit(LIMIT as usize).build();
        let acc = tower_acc::ConcurrencyLimitLayer::new(law).layer(Answering);
        table.peer("tower-acc, Gradient2", acc, |service| pass(service).is_ok());
        table.note("the service alone", Answering, |service| pass(service).is_ok());
        table.bar("at most 0.5x tower-acc's, 0 allocations");
    });
}
