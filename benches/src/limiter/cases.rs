//! What limiters do with bodies, idle clones and faults, counted.

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, StreamBody};
use tidegate::{layer::limit::LimitLayer, limiter::Limiter};
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimitLayer, service_fn};
use tower_resilience_bulkhead::BulkheadLayer;

use crate::harness::{Suite, block_on};

pub(super) fn tables(suite: &mut Suite) {
    // A peer's timer needs a runtime.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
    let _entered = runtime.enter();
    suite.counts("limiter: streaming responses open at once", |table| {
        table.columns(["limit 4, 64 calls", "limit 1, 10 calls"]);
        table.row("tidegate", [open(ours(4), 64), open(ours(1), 10)]);
        table.row("tower ConcurrencyLimit", [open(tower(4), 64), open(tower(1), 10)]);
        table.row("tower-resilience bulkhead", [open(bulkhead(4), 64), open(bulkhead(1), 10)]);
        table.bar("4 and 1");
    });
    suite.counts("limiter: calls that pass while another clone is ready and idle, limit 1", |table| {
        table.columns(["of 10"]);
        table.row("tidegate", [beside_idle(ours(1))]);
        table.row("tower ConcurrencyLimit", [beside_idle(tower(1))]);
        table.row("tower-resilience bulkhead", [beside_idle(bulkhead(1))]);
        table.bar("10");
    });
}

type Silent = StreamBody<futures_util::stream::Pending<Result<http_body::Frame<Bytes>, Infallible>>>;

/// A service whose answers stream, and never end by themselves.
fn streaming()
-> impl Service<Request<Empty<Bytes>>, Response = Response<Silent>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    service_fn(|_: Request<Empty<Bytes>>| {
        ready(Ok::<_, Infallible>(Response::new(StreamBody::new(futures_util::stream::pending()))))
    })
}

fn ours(limit: i64) -> impl Service<Request<Empty<Bytes>>, Response: 'static> + Clone {
    let limiter = Limiter::builder().limit(limit).queue(0).build().expect("the limit is in range");
    LimitLayer::new(limiter).layer(streaming())
}

fn tower(limit: usize) -> impl Service<Request<Empty<Bytes>>, Response: 'static> + Clone {
    ConcurrencyLimitLayer::new(limit).layer(streaming())
}

fn bulkhead(limit: usize) -> impl Service<Request<Empty<Bytes>>, Response: 'static> + Clone {
    let layer = BulkheadLayer::builder().max_concurrent_calls(limit).reject_when_full().build();
    layer.expect("the settings are valid").layer(streaming())
}

/// The answer of a call that is ready at once.
fn at_once<S: Service<Request<Empty<Bytes>>>>(service: &mut S) -> Option<S::Response> {
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut context) else { return None };
    let call = pin!(service.call(Request::new(Empty::new())));
    match call.poll(&mut context) {
        Poll::Ready(Ok(response)) => Some(response),
        Poll::Ready(Err(_)) | Poll::Pending => None,
    }
}

fn open<S: Service<Request<Empty<Bytes>>> + Clone>(service: S, calls: usize) -> String {
    let bodies: Vec<_> = (0..calls).filter_map(|_| at_once(&mut service.clone())).collect();
    bodies.len().to_string()
}

fn beside_idle<S: Service<Request<Empty<Bytes>>> + Clone>(service: S) -> String {
    let mut idle = service.clone();
    assert!(block_on(idle.ready()).is_ok(), "nobody holds a permit yet");
    (0..10).filter(|_| at_once(&mut service.clone()).is_some()).count().to_string()
}
