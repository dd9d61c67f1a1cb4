//! Many calls with random faults, from a seed: no permit is lost, none is given back twice.
//!
//! A million calls (some seconds) by default; `TIDEGATE_FAULT_CALLS=100000` and `TIDEGATE_FAULT_SEED=7` set others.
#![cfg(not(any(loom, shuttle)))]

#[path = "support/echo.rs"]
mod echo;

use std::{
    env,
    future::pending,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use futures_util::{FutureExt, future::join_all};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tidegate::{
    Call,
    clock::now,
    layer::limit::LimitLayer,
    limiter::{Fixed, Limiter},
};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower::{Layer, Service, service_fn};

const MS: Duration = Duration::from_millis(1);
const CLIENTS: u64 = 200;
/// The limit moves from 5 to here.
const MOST: u32 = 30;

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let planned = panic.payload_as_str().is_some_and(|text| text.contains("as asked"));
        if !planned {
            eprintln!("{panic}");
        }
    }));
}

/// Calls at the service, which must never be more than the limit ever was.
#[derive(Default)]
struct Seen {
    live: AtomicU32,
    started: AtomicU64,
}

struct Live(Arc<Seen>);

impl Live {
    fn enter(seen: &Arc<Seen>) -> Self {
        seen.started.fetch_add(1, Ordering::SeqCst);
        assert!(seen.live.fetch_add(1, Ordering::SeqCst) < MOST, "more live calls than permits");
        Self(seen.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A response that streams some frames and ends as it was told.
struct Streamed {
    frames: u32,
    end: End,
    pause: Option<Pin<Box<Sleep>>>,
    _live: Live,
}

#[derive(Clone, Copy)]
enum End {
    Trailers,
    Plain,
    Reset,
    Hang,
    Over,
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.poll_unpin(cx));
            self.pause = None;
        }
        if self.frames > 0 {
            self.frames -= 1;
            self.pause = Some(Box::pin(sleep(MS)));
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))));
        }
        Poll::Ready(match std::mem::replace(&mut self.end, End::Over) {
            End::Trailers => Some(Ok(Frame::trailers(HeaderMap::new()))),
            End::Reset => Some(Err("reset")),
            End::Plain | End::Over => None,
            End::Hang => {
                self.end = End::Hang;
                return Poll::Pending;
            }
        })
    }
}

async fn serve(seen: Arc<Seen>, mut random: Rng) -> Result<Response<Streamed>, &'static str> {
    let live = Live::enter(&seen);
    match random.u32(..60) {
        0..3 => return Err("connect failure"),
        3..6 => panic!("as asked"),
        6 => pending().await,
        7..20 => sleep(MS * random.u32(1..5)).await,
        _ => {}
    }
    let end = match random.u32(..40) {
        0..4 => End::Reset,
        4 => End::Hang,
        5..20 => End::Trailers,
        _ => End::Plain,
    };
    Ok(Response::new(Streamed { frames: random.u32(..4), end, pause: None, _live: live }))
}

/// One call, and what its caller does with it.
async fn call<S, B, E>(mut service: S, random: &mut Rng)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = E>,
    B: Body<Error: Send> + Unpin,
{
    let mut request = Request::new(Full::new(Bytes::from_static(b"ask")));
    if random.bool() {
        let deadline = MS * random.u32(..40);
        request.extensions_mut().insert(Call::at(now()).within(deadline));
    }
    if std::future::poll_fn(|cx| service.poll_ready(cx)).await.is_err() {
        return;
    }
    let answer = service.call(request);
    match random.u32(..10) {
        0 => return,
        1 => {
            let _ = AssertUnwindSafe(answer).catch_unwind().now_or_never();
            return;
        }
        _ => {}
    }
    let patience = MS * random.u32(1..40);
    let Ok(Ok(Ok(response))) = timeout(patience, AssertUnwindSafe(answer).catch_unwind()).await else {
        return;
    };
    let mut body = response.into_body();
    let frames = if random.u32(..4) == 0 { random.usize(..3) } else { usize::MAX };
    let reading = async {
        for _ in 0..frames {
            if !matches!(body.frame().await, Some(Ok(_))) {
                return;
            }
        }
    };
    let _ = timeout(patience, reading).await;
}

#[tokio::test(start_paused = true)]
async fn no_permit_is_lost_or_given_back_twice_whatever_goes_wrong() {
    quiet_panics();
    let (calls, seed) = (setting("TIDEGATE_FAULT_CALLS", 1_000_000), setting("TIDEGATE_FAULT_SEED", 1));
    let limiter = Limiter::builder().limit(20).queue(100).max_wait(MS * 50).build().expect("valid settings");
    let seen = Arc::new(Seen::default());
    let clients = (0..CLIENTS).map(|client| {
        let mut random = Rng::with_seed(seed * 1000 + client);
        let (limiter, seen) = (limiter.clone(), seen.clone());
        tokio::spawn(async move {
            for _ in 0..calls / CLIENTS {
                let (seen, served) = (seen.clone(), random.fork());
                match random.u32(..3) {
                    0 => {
                        let service = service_fn(move |_: Request<_>| serve(seen.clone(), served.clone()));
                        let layer = LimitLayer::new(limiter.clone()).both_directions(|body| body);
                        call(layer.layer(service), &mut random).await;
                    }
                    1 => {
                        let service = service_fn(move |_: Request<_>| serve(seen.clone(), served.clone()));
                        let layer = LimitLayer::new(limiter.clone()).idle_stream(MS * 20);
                        call(layer.layer(service), &mut random).await;
                    }
                    _ => {
                        let service = service_fn(move |_: Request<_>| serve(seen.clone(), served.clone()));
                        call(LimitLayer::new(limiter.clone()).layer(service), &mut random).await;
                    }
                }
                if random.u32(..100) == 0 {
                    limiter.resize(Fixed::new(random.i64(5..=MOST.into())).expect("a positive limit"));
                }
            }
        })
    });
    for client in join_all(clients.collect::<Vec<_>>()).await {
        client.expect("a client catches what its calls do");
    }
    // The watch of an idle stream may outlive its client by its time.
    let until = Instant::now() + MS * 100;
    tokio::time::sleep_until(until).await;
    let read = limiter.snapshot();
    assert_eq!((read.in_flight, read.queued, seen.live.load(Ordering::SeqCst)), (0, 0, 0));
    let started = seen.started.load(Ordering::SeqCst);
    assert!(
        started > calls / 10 && started <= read.admitted,
        "{started} started, {} admitted",
        read.admitted
    );
    assert!(
        read.refused_in_all() > 0 && read.cancelled_in_queue > 0,
        "the faults reached the queue: {read:?}"
    );
    let all: Vec<_> = std::iter::from_fn(|| limiter.try_acquire(&Call::at(now())).ok()).collect();
    assert_eq!(Some(all.len() as u32), limiter.limit(), "every permit is there");
}

#[tokio::test]
async fn no_permit_is_lost_over_real_sockets() {
    quiet_panics();
    let server = echo::start().await;
    let limiter =
        Limiter::builder().limit(16).queue(500).max_wait(MS * 60_000).build().expect("valid settings");
    let clients = (0..40u64).map(|client| {
        let (limiter, addr, counts) = (limiter.clone(), server.addr, server.counts.clone());
        tokio::spawn(async move {
            let mut random = Rng::with_seed(client);
            let mut wire = echo::Wire::to(addr).await;
            for _ in 0..50 {
                if random.u32(..10) == 0 {
                    wire = echo::Wire::to(addr).await;
                }
                let channel = echo::endpoint(wire.addr).connect_lazy();
                let mut client = echo::Client::new(LimitLayer::new(limiter.clone()).layer(channel));
                let ask = echo::Ask {
                    count: random.u32(..5),
                    code: if random.u32(..5) == 0 { 5 } else { 0 },
                    hold: random.u32(..5) == 0,
                    panic: random.u32(..20) == 0,
                    ..echo::ask("x")
                };
                counts.release(usize::from(random.bool()));
                // Half the callers are patient, so that calls reach the server however slow the machine is.
                let is_patient = !ask.hold && random.bool();
                let patience = if is_patient { MS * 60_000 } else { MS * random.u32(1..30) };
                let _ = timeout(patience, async {
                    if random.bool() {
                        return client.unary(ask).await.map(drop);
                    }
                    let mut tolds = client.list(ask).await?;
                    for _ in 0..random.u32(..6) {
                        tolds.message().await?;
                    }
                    Ok(())
                })
                .await;
            }
        })
    });
    for client in join_all(clients.collect::<Vec<_>>()).await {
        client.expect("clients do not panic");
    }
    assert_eq!((limiter.in_flight(), limiter.queued()), (0, 0));
    assert!(server.counts.calls() > 500, "{} calls reached the server", server.counts.calls());
}
