//! The breaker as a layer: what heads, bodies, trailers, errors and callers who leave make of it.

use std::{
    convert::Infallible,
    future, io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use tidegate::{
    By, Call,
    breaker::{Breaker, Phase, Settings},
    clock,
    layer::{
        breaker::{BoxError, BreakerLayer, BreakerService},
        limit::{LimitLayer, refused_in},
    },
    limiter::Limiter,
};
use tower::{Layer, Service, ServiceExt, service_fn};

type ResponseBody = UnsyncBoxBody<Bytes, io::Error>;

fn breaker() -> Breaker {
    Breaker::new(Settings::default()).expect("the defaults are valid")
}

fn request() -> Request<Empty<Bytes>> {
    Request::new(Empty::new())
}

fn phase(breaker: &Breaker) -> Phase {
    breaker.snapshot(clock::now()).phase
}

fn failures(breaker: &Breaker) -> u32 {
    breaker.snapshot(clock::now()).failures
}

/// A response of these frames that then ends, or, with `hangs`, goes on for ever without another.
fn response(
    status: u16,
    frames: Vec<Result<Frame<Bytes>, io::Error>>,
    hangs: bool,
) -> Response<ResponseBody> {
    let rest = if hangs { stream::pending().left_stream() } else { stream::empty().right_stream() };
    let mut response = Response::new(StreamBody::new(stream::iter(frames).chain(rest)).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status of a test is valid");
    response
}

fn grpc(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    response.headers_mut().insert("content-type", "application/grpc".parse().expect("valid"));
    response
}

fn data() -> Result<Frame<Bytes>, io::Error> {
    Ok(Frame::data(Bytes::from_static(b"message")))
}

fn trailers(status: &str) -> Result<Frame<Bytes>, io::Error> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().expect("valid"));
    Ok(Frame::trailers(trailers))
}

/// Calls a service that always gives `answer`, behind `breaker`.
async fn call<F>(breaker: &Breaker, answer: F) -> Result<Response<impl http_body::Body>, BoxError>
where
    F: Fn() -> Response<ResponseBody>,
{
    let service = service_fn(|_| future::ready(Ok::<_, Infallible>(answer())));
    BreakerLayer::new(breaker.clone()).layer(service).oneshot(request()).await
}

async fn open(breaker: &Breaker) {
    for _ in 0..5 {
        drop(call(breaker, || response(503, vec![], false)).await);
    }
    assert!(matches!(phase(breaker), Phase::Open { .. }));
}

#[tokio::test(start_paused = true)]
async fn bad_heads_open_it_even_when_nobody_reads_their_bodies_and_the_refusal_is_found_in_the_error() {
    let breaker = breaker();
    for _ in 0..5 {
        drop(call(&breaker, || response(503, vec![data()], true)).await.unwrap());
    }
    let error = call(&breaker, || response(200, vec![], false)).await.map(drop).unwrap_err();
    let refused = refused_in(&*error).unwrap();
    assert_eq!((refused.by, refused.retry_after), (By::Breaker, Some(Duration::from_secs(5))));
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_application_do_not_count() {
    let breaker = breaker();
    for status in [200, 301, 400, 404, 500, 501].repeat(5) {
        let response = call(&breaker, || response(status, vec![data()], false)).await.unwrap();
        drop(response.into_body().collect().await);
    }
    assert_eq!(failures(&breaker), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_is_a_failure_and_one_that_its_reader_leaves_is_none() {
    let breaker = breaker();
    let left = call(&breaker, || response(200, vec![data()], true)).await.unwrap();
    tokio::time::advance(Duration::from_secs(3600)).await;
    drop(left);
    assert_eq!(failures(&breaker), 0);
    let reset = || response(200, vec![data(), Err(io::ErrorKind::ConnectionReset.into())], false);
    let broken = call(&breaker, reset).await.unwrap();
    assert!(broken.into_body().collect().await.is_err());
    assert_eq!(failures(&breaker), 1);
}

#[tokio::test(start_paused = true)]
async fn a_grpc_call_is_judged_by_its_trailers() {
    let breaker = breaker();
    for (status, counted) in [("0", 0), ("5", 0), ("14", 1), ("0", 1), ("8", 2), ("4", 3)] {
        let answer = || grpc(response(200, vec![data(), trailers(status)], false));
        drop(call(&breaker, answer).await.unwrap().into_body().collect().await);
        assert_eq!(failures(&breaker), counted, "grpc-status {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hung_upstream_behind_its_callers_deadlines_opens_it() {
    let breaker = breaker();
    let calls = Arc::new(AtomicUsize::new(0));
    let service = service_fn({
        let calls = Arc::clone(&calls);
        move |_| {
            calls.fetch_add(1, Ordering::Relaxed);
            future::pending::<Result<Response<ResponseBody>, Infallible>>()
        }
    });
    let mut service = BreakerLayer::new(breaker.clone()).layer(service);
    for _ in 0..200 {
        let mut request = request();
        request.extensions_mut().insert(Call::at(clock::now()).within(Duration::from_millis(100)));
        drop(tokio::time::timeout(Duration::from_millis(100), service.call(request)).await);
    }
    assert_eq!(calls.load(Ordering::Relaxed), 5);
}

#[tokio::test(start_paused = true)]
async fn a_probe_passes_with_a_good_head_however_long_its_stream_is() {
    for answer in [|| response(200, vec![], true), || grpc(response(200, vec![], true))] {
        let breaker = breaker();
        open(&breaker).await;
        tokio::time::advance(Duration::from_secs(5)).await;
        let stream = call(&breaker, answer).await.unwrap();
        assert_eq!(phase(&breaker), Phase::Closed);
        drop(stream);
        assert_eq!((phase(&breaker), failures(&breaker)), (Phase::Closed, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_ready_clone_holds_no_probe_and_a_dropped_call_gives_its_back() {
    let breaker = breaker();
    open(&breaker).await;
    tokio::time::advance(Duration::from_secs(5)).await;
    let service = service_fn(|_| future::pending::<Result<Response<ResponseBody>, Infallible>>());
    let service = BreakerLayer::new(breaker.clone()).layer(service);
    let mut clones: Vec<_> = (0..10).map(|_| service.clone()).collect();
    for clone in &mut clones {
        BreakerService::ready(clone).await.unwrap();
    }
    assert!(breaker.would_admit(clock::now()));
    let probe = clones[0].call(request());
    assert!(!breaker.would_admit(clock::now()));
    drop(probe);
    assert!(breaker.would_admit(clock::now()));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_guard_further_in_is_nobodys_failure() {
    let breaker = breaker();
    open(&breaker).await;
    tokio::time::advance(Duration::from_secs(5)).await;
    let limiter = Limiter::builder().limit(1).queue(0).build().unwrap();
    let taken = limiter.try_acquire(&Call::at(clock::now())).unwrap();
    let service = service_fn(|_| future::ready(Ok::<_, io::Error>(response(200, vec![], false))));
    let service = BreakerLayer::new(breaker.clone()).layer(LimitLayer::new(limiter).layer(service));
    for _ in 0..20 {
        let error = service.clone().oneshot(request()).await.map(drop).unwrap_err();
        assert_ne!(refused_in(&*error).unwrap().by, By::Breaker, "each refused probe lets another try");
    }
    drop(taken);
    service.oneshot(request()).await.unwrap();
    assert_eq!(phase(&breaker), Phase::Closed);
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_transport_open_it() {
    let breaker = breaker();
    let service = service_fn(|_| {
        future::ready(Err::<Response<ResponseBody>, _>(io::Error::from(io::ErrorKind::ConnectionRefused)))
    });
    let service = BreakerLayer::new(breaker.clone()).layer(service);
    for _ in 0..5 {
        let error = service.clone().oneshot(request()).await.map(drop).unwrap_err();
        assert!(error.is::<io::Error>(), "{error}");
    }
    assert!(matches!(phase(&breaker), Phase::Open { .. }));
}
