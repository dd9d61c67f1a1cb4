//! Overload, from outside: what reaches an upstream that is slow or hangs, and what those get who do not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use http::{Response, StatusCode};
use tokio::task::JoinHandle;

use crate::{
    memory::resident,
    setup::to,
    support::{
        client,
        gateway::{Gateway, array},
        upstream::Upstream,
    },
};

/// Callers that call again as soon as they are answered, until told to stop.
struct Callers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Callers {
    fn start(count: usize, http: std::net::SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..count).map(|_| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut sender = client::http1(http).await;
                while !stop.load(Ordering::Relaxed) {
                    if sender.ready().await.is_err() {
                        sender = client::http1(http).await;
                        continue;
                    }
                    let request = client::request("GET", "/").body(client::empty()).unwrap();
                    let Ok(response) = sender.send_request(request).await else { continue };
                    let refused = response.status() == StatusCode::SERVICE_UNAVAILABLE;
                    let _read = client::Answer::read(response).await;
                    if refused {
                        // What a polite client does, in small.
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            })
        });
        Self { stop: stop.clone(), tasks: tasks.collect() }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        assert!(join_all(self.tasks).await.iter().all(Result::is_ok));
    }
}

#[tokio::test]
async fn an_adaptive_limit_falls_while_the_upstream_hangs_and_recovers_with_it() {
    let hangs = Arc::new(AtomicBool::new(false));
    let hanging = hangs.clone();
    let upstream = Upstream::start(move |_| {
        let hanging = hanging.clone();
        async move {
            if hanging.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            Response::new(client::whole("hello"))
        }
    })
    .await;
    let settings =
        "breaker: off\ntimeout: 500ms\nin_flight: { adaptive: gradient, min: 2, max: 32, queue: 0 }";
    let gateway = Gateway::start(&to(upstream.addr(), settings)).await;
    let callers = Callers::start(24, gateway.http());
    let limit = |state: &serde_json::Value| state["upstreams"][0]["in_flight"]["limit"].as_u64().unwrap();
    assert!(limit(&gateway.state().await) <= 32);
    gateway.state_is("the limit growing while calls are fast", |state| limit(state) >= 8).await;
    hangs.store(true, Ordering::Relaxed);
    gateway.state_is("the limit at its floor while calls hang", |state| limit(state) == 2).await;
    hangs.store(false, Ordering::Relaxed);
    gateway.state_is("the limit growing again", |state| limit(state) >= 8).await;
    assert_eq!(gateway.state().await["upstreams"][0]["in_flight"]["law"], "gradient");
    callers.stop().await;
    gateway.is_at_rest().await;
    assert!(upstream.peak() <= 32, "{}", upstream.peak());
}

/// What a flood met.
#[derive(Default)]
struct Met {
    served: AtomicUsize,
    refused: AtomicUsize,
    other: AtomicUsize,
}

#[tokio::test]
async fn an_upstream_slowed_tenfold_gets_its_limit_and_no_call_more_whatever_is_offered() {
    const LIMIT: usize = 10;
    const BURSTS: usize = 40;
    const BURST: usize = 50;
    /// What 2000 calls, most of them refused, may leave in a gateway of some ten megabytes.
    const GROWTH: usize = 64 << 20;
    let takes = Arc::new(AtomicU64::new(10));
    let taken = takes.clone();
    let upstream = Upstream::start(move |_| {
        let millis = taken.load(Ordering::Relaxed);
        async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Response::new(client::whole("hello"))
        }
    })
    .await;
    let settings = format!("breaker: off\nin_flight: {{ limit: {LIMIT}, queue: 20, max_wait: 250ms }}");
    let mut gateway =
        Gateway::start(&format!("log: {{ access: false }}\n{}", to(upstream.addr(), &settings))).await;
    for _ in 0..20 {
        assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
    }
    let before = resident(gateway.process().id());
    takes.store(100, Ordering::Relaxed);
    // Ten calls of 100 ms at a time are 100 a second; five times that comes in, whatever becomes of it.
    let senders = join_all((0..8).map(|_| client::http2(gateway.http()))).await;
    let met = Arc::new(Met::default());
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    let mut calls = Vec::new();
    let mut most = before;
    for burst in 0..BURSTS {
        pace.tick().await;
        for n in 0..BURST {
            let (mut sender, met) = (senders[n % senders.len()].clone(), met.clone());
            calls.push(tokio::spawn(async move {
                let request = client::request2("GET", "/").body(client::empty()).unwrap();
                let answer = client::Answer::read(sender.send_request(request).await.unwrap()).await.unwrap();
                let count = match answer.status {
                    StatusCode::OK => &met.served,
                    StatusCode::SERVICE_UNAVAILABLE => {
                        assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|after| after >= 1));
                        let reason = answer.json()["reason"].as_str().unwrap().to_owned();
                        assert!(matches!(&*reason, "queue-full" | "wait-too-long"), "{reason}");
                        &met.refused
                    }
                    _ => &met.other,
                };
                count.fetch_add(1, Ordering::Relaxed);
            }));
        }
        if burst % 10 == 9 {
            most = most.max(resident(gateway.process().id()));
        }
    }
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    let [served, refused, other] = [&met.served, &met.refused, &met.other].map(|n| n.load(Ordering::Relaxed));
    assert_eq!((served + refused, other), (BURSTS * BURST, 0));
    assert!(refused > BURSTS * BURST / 4, "{served} served and {refused} refused of five times too many");
    // Nothing that was refused was sent, and at no moment was more sent than agreed.
    assert_eq!((upstream.calls(), upstream.peak()), (20 + served, LIMIT));
    let state = gateway.state().await;
    let gate = &state["upstreams"][0]["in_flight"];
    assert_eq!(gate["admitted"], 20 + served);
    let by_reason: u64 = gate["refused"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(by_reason as usize, refused);
    assert_eq!(array(&state, "/upstreams").len(), 1);
    assert!(most - before < GROWTH, "the gateway grew by {} bytes", most - before);
    drop(senders);
    gateway.is_at_rest().await;
}
