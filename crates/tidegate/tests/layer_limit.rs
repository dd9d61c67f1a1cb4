//! The limiter's layer over plain `http` services, on a paused clock.
#![cfg(not(any(loom, shuttle)))]

use std::{
    convert::Infallible,
    future::{Future, pending, ready},
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use tidegate::{
    By, Call,
    clock::now,
    grpc,
    layer::{
        StreamError,
        limit::{Error, Hold, LimitLayer, Refusals, refused_in},
    },
    limiter::Limiter,
};
use tokio::time::advance;
use tower::{Layer, Service, ServiceExt, service_fn};

const MS: Duration = Duration::from_millis(1);

type Frames = UnsyncBoxBody<Bytes, &'static str>;

/// Frames that come at once, then an end, an error, or silence.
fn frames(frames: Vec<Result<Frame<Bytes>, &'static str>>, then_silence: bool) -> Frames {
    let given = stream::iter(frames);
    if then_silence {
        let silence = stream::once(pending::<Result<Frame<Bytes>, &'static str>>());
        StreamBody::new(futures_util::StreamExt::chain(given, silence)).boxed_unsync()
    } else {
        StreamBody::new(given).boxed_unsync()
    }
}

fn data() -> Result<Frame<Bytes>, &'static str> {
    Ok(Frame::data(Bytes::from_static(b"x")))
}

fn trailers(status: &'static str) -> Result<Frame<Bytes>, &'static str> {
    let mut trailers = HeaderMap::new();
    trailers.insert(grpc::STATUS, status.parse().expect("a number"));
    Ok(Frame::trailers(trailers))
}

fn request() -> Request<Empty<Bytes>> {
    Request::new(Empty::new())
}

fn limiter(limit: i64) -> Limiter {
    Limiter::builder().limit(limit).max_wait(MS * 100).measure_hold().build().expect("valid settings")
}

#[tokio::test(start_paused = true)]
async fn at_limit_one_there_is_one_open_body() {
    let limiter = limiter(1);
    let silent = service_fn(|_: Request<Empty<Bytes>>| {
        ready(Ok::<_, Infallible>(Response::new(frames(vec![data()], true))))
    });
    let mut service = LimitLayer::new(limiter.clone()).layer(silent);
    let first = service.ready().await.unwrap().call(request()).await.unwrap();
    for _ in 0..9 {
        let error = service.ready().await.unwrap().call(request()).await.map(drop).unwrap_err();
        assert_eq!(error.refused().unwrap().by, By::WaitTooLong);
    }
    assert_eq!(limiter.in_flight(), 1);
    drop(first);
    assert_eq!(limiter.in_flight(), 0);
    service.ready().await.unwrap().call(request()).await.map(drop).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_permit_goes_back_at_the_end_of_the_stream_whatever_the_end() {
    let ends: [(Vec<_>, usize); 4] = [
        (vec![data(), trailers("0")], 2),
        (vec![data(), Err("reset")], 2),
        (vec![data()], 2),
        (vec![trailers("14")], 1),
    ];
    for (given, polls) in ends {
        let limiter = limiter(1);
        let given = Arc::new(Mutex::new(Some(given)));
        let service = service_fn(move |_: Request<Empty<Bytes>>| {
            let given = given.lock().unwrap().take().unwrap();
            ready(Ok::<_, Infallible>(Response::new(frames(given, false))))
        });
        let mut service = LimitLayer::new(limiter.clone()).layer(service);
        let mut body = service.ready().await.unwrap().call(request()).await.unwrap().into_body();
        for _ in 0..polls {
            assert_eq!(limiter.in_flight(), 1);
            let _ = body.frame().await;
        }
        assert_eq!(limiter.in_flight(), 0, "the body is over, though it is not dropped");
        drop(body);
        assert_eq!(limiter.in_flight(), 0, "given back once");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_over_at_its_head_holds_nothing() {
    let limiter = limiter(1);
    let service = service_fn(|_: Request<Empty<Bytes>>| {
        ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())))
    });
    let response = LimitLayer::new(limiter.clone()).layer(service).oneshot(request()).await.unwrap();
    assert_eq!(limiter.in_flight(), 0);
    assert!(response.body().is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn a_permit_goes_back_when_the_call_fails_or_is_dropped_before_its_head() {
    let limiter = limiter(1);
    let failing =
        service_fn(|_: Request<Empty<Bytes>>| ready(Err::<Response<Empty<Bytes>>, _>("connection refused")));
    let error =
        LimitLayer::new(limiter.clone()).layer(failing).oneshot(request()).await.map(drop).unwrap_err();
    assert_eq!((error, limiter.in_flight()), (Error::Inner("connection refused"), 0));

    let hung = service_fn(|_: Request<Empty<Bytes>>| pending::<Result<Response<Empty<Bytes>>, Infallible>>());
    let mut hung = LimitLayer::new(limiter.clone()).layer(hung);
    let unpolled = hung.ready().await.unwrap().call(request());
    assert_eq!(limiter.in_flight(), 1);
    drop(unpolled);
    assert_eq!(limiter.in_flight(), 0);
    {
        let mut polled = pin!(hung.ready().await.unwrap().call(request()));
        assert!(polled.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let mut waiting = Box::pin(hung.ready().await.unwrap().call(request()));
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!((limiter.in_flight(), limiter.queued()), (1, 1));
        drop(waiting);
        assert_eq!((limiter.in_flight(), limiter.queued()), (1, 0));
    }
    assert_eq!(limiter.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_ready_clone_holds_nothing() {
    let limiter = limiter(1);
    let service = service_fn(|_: Request<Empty<Bytes>>| {
        ready(Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok")))))
    });
    let mut idle = LimitLayer::new(limiter.clone()).layer(service);
    idle.ready().await.unwrap();
    let mut other = idle.clone();
    let response = other.ready().await.unwrap().call(request()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    assert_eq!(limiter.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_sent_says_so() {
    let limiter = limiter(1);
    let hung = service_fn(|_: Request<Empty<Bytes>>| pending::<Result<Response<Empty<Bytes>>, Infallible>>());
    let mut service = LimitLayer::new(limiter.clone()).layer(hung);
    let _held = service.ready().await.unwrap().call(request());
    let mut late = request();
    late.extensions_mut().insert(Call::at(now()).within(MS * 10));
    let error = service.ready().await.unwrap().call(late).await.map(drop).unwrap_err();
    assert_eq!(refused_in(&error).unwrap().by, By::Deadline);
    assert!(error.to_string().contains("not sent"));

    let answering = LimitLayer::new(limiter.clone()).refusals(Refusals::Answer);
    let hung = service_fn(|_: Request<Empty<Bytes>>| pending::<Result<Response<Empty<Bytes>>, Infallible>>());
    let mut service = answering.layer(hung);
    let response = service.ready().await.unwrap().call(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[grpc::REFUSED], "wait-too-long");
    assert!(response.body().is_end_stream());
    let mut call = request();
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    call.headers_mut().insert("grpc-timeout", "20m".parse().unwrap());
    let began = now();
    let response = service.ready().await.unwrap().call(call).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(grpc::status(response.headers()), Some(grpc::Code::DEADLINE_EXCEEDED));
    assert!(now().since(began) < MS * 30, "its grpc-timeout bounds the wait");
}

#[tokio::test(start_paused = true)]
async fn a_route_may_hold_its_permit_to_the_head_only() {
    let limiter = limiter(1);
    let silent = service_fn(|_: Request<Empty<Bytes>>| {
        ready(Ok::<_, Infallible>(Response::new(frames(vec![data()], true))))
    });
    let mut service = LimitLayer::new(limiter.clone()).layer(silent);
    let mut download = request();
    download.extensions_mut().insert(Hold::Headers);
    let _download = service.ready().await.unwrap().call(download).await.unwrap();
    assert_eq!(limiter.in_flight(), 0);
    let _stream = service.ready().await.unwrap().call(request()).await.unwrap();
    assert_eq!(limiter.in_flight(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_reads_is_cut_when_nothing_moves() {
    let limiter = limiter(1);
    let silent = service_fn(|_: Request<Empty<Bytes>>| {
        ready(Ok::<_, Infallible>(Response::new(frames(vec![data(), data()], true))))
    });
    let mut service = LimitLayer::new(limiter.clone()).idle_stream(MS * 1000).layer(silent);
    let mut body = service.ready().await.unwrap().call(request()).await.unwrap().into_body();
    tokio::time::sleep(MS * 600).await;
    body.frame().await.unwrap().unwrap();
    tokio::time::sleep(MS * 600).await;
    assert_eq!(limiter.in_flight(), 1, "it moved 600 ms ago");
    tokio::time::sleep(MS * 600).await;
    assert_eq!(limiter.in_flight(), 0, "nobody has polled it, and it is cut");
    assert_eq!(body.frame().await.unwrap().unwrap_err(), StreamError::Idle(MS * 1000));
    drop(body);
    assert_eq!(limiter.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_in_both_directions_holds_until_both_are_over() {
    let limiter = limiter(1);
    let (sender, mut sent) = tokio::sync::mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<_>| {
        sender.send(request.into_body()).unwrap();
        ready(Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok")))))
    });
    let layer = LimitLayer::new(limiter.clone()).both_directions(|body| body);
    let mut service = layer.layer(service);
    let response =
        service.ready().await.unwrap().call(Request::new(frames(vec![data()], false))).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(limiter.in_flight(), 1, "the request is on its way still");
    sent.recv().await.unwrap().collect().await.unwrap();
    assert_eq!(limiter.in_flight(), 0);

    let response =
        service.ready().await.unwrap().call(Request::new(frames(vec![data()], true))).await.unwrap();
    drop(sent.recv().await.unwrap());
    assert_eq!(limiter.in_flight(), 1);
    drop(response);
    assert_eq!(limiter.in_flight(), 0);
    advance(MS).await;
}

#[tokio::test(start_paused = true)]
async fn a_nested_call_through_the_layer_is_refused_instead_of_waiting_for_itself() {
    let limiter = limiter(1);
    let inner = service_fn(|_: Request<Empty<Bytes>>| {
        ready(Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok")))))
    });
    let inner = LimitLayer::new(limiter.clone()).layer(inner);
    let outer = service_fn(move |request: Request<Empty<Bytes>>| {
        let inner = inner.clone();
        async move {
            tokio::task::yield_now().await;
            let error = inner.oneshot(request).await.map(drop).unwrap_err();
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(error.to_string()))))
        }
    });
    let response = LimitLayer::new(limiter.clone()).layer(outer).oneshot(request()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "refused by nested, not sent");
}

#[tokio::test(start_paused = true)]
async fn a_nested_call_is_known_as_such_after_the_outer_request_is_over() {
    let limiter = limiter(1);
    let inner = service_fn(|_: Request<Empty<Bytes>>| {
        ready(Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok")))))
    });
    let inner = LimitLayer::new(limiter.clone()).layer(inner);
    let outer = service_fn(move |given: Request<_>| {
        let inner = inner.clone();
        async move {
            drop(given);
            tokio::task::yield_now().await;
            let error = inner.oneshot(request()).await.map(drop).unwrap_err();
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(error.to_string()))))
        }
    });
    let layer = LimitLayer::new(limiter.clone()).both_directions(|body| body);
    let given = Request::new(frames(vec![data()], true));
    let response = layer.layer(outer).oneshot(given).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "refused by nested, not sent");
    assert_eq!(limiter.in_flight(), 0);
}

/// Retries once, a second later.
#[derive(Clone)]
struct Once(bool);

impl<E> tower::retry::Policy<Request<Empty<Bytes>>, Response<Limited>, E> for Once {
    type Future = tokio::time::Sleep;

    fn retry(
        &mut self,
        _request: &mut Request<Empty<Bytes>>,
        result: &mut Result<Response<Limited>, E>,
    ) -> Option<Self::Future> {
        (result.is_err() && !std::mem::replace(&mut self.0, true)).then(|| tokio::time::sleep(MS * 1000))
    }

    fn clone_request(&mut self, _request: &Request<Empty<Bytes>>) -> Option<Request<Empty<Bytes>>> {
        Some(request())
    }
}

type Limited = tidegate::layer::limit::LimitedBody<Full<Bytes>>;

#[tokio::test(start_paused = true)]
async fn l6_a_slot_is_free_during_back_off() {
    let limiter = limiter(1);
    let calls = Arc::new(Mutex::new(0));
    let count = calls.clone();
    let flapping = service_fn(move |_: Request<Empty<Bytes>>| {
        let mut count = count.lock().unwrap();
        *count += 1;
        ready(if *count == 1 {
            Err("broken")
        } else {
            Ok(Response::new(Full::new(Bytes::from_static(b"ok"))))
        })
    });
    let limited = LimitLayer::new(limiter.clone()).layer(flapping);
    let mut retrying = tower::retry::RetryLayer::new(Once(false)).layer(limited.clone());
    let mut first = pin!(retrying.ready().await.unwrap().call(request()));
    assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!((limiter.in_flight(), *calls.lock().unwrap()), (0, 1));
    let held = limited.clone().oneshot(request()).await.unwrap();
    assert_eq!(limiter.in_flight(), 1);
    drop(held);
    let retried = first.await.unwrap();
    assert_eq!(retried.into_body().collect().await.unwrap().to_bytes(), "ok");
    assert_eq!(limiter.in_flight(), 0);
}
