//! All guards of a call together, as the request path passes them: throttle, limiter, breaker, as one tuple.

use std::time::Duration;

use tidegate::{
    Call, Gate, Instant, Outcome, Permit, Rate, Refused,
    breaker::{self, Breaker},
    clock,
    limiter::Limiter,
    throttle::{Key, Quota, Throttle},
};
use tokio::runtime::{self, Runtime};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_resilience_bulkhead::BulkheadLayer;
use tower_resilience_circuitbreaker::CircuitBreakerLayer;
use tower_resilience_ratelimiter::RateLimiterLayer;
use tower_resilience_timelimiter::TimeLimiterLayer;

use crate::harness::{Suite, block_on};

/// Far above what a bench can do: every call is admitted.
const PLENTY: u32 = 1_000_000_000;

pub(crate) fn tables(suite: &mut Suite) {
    suite.timings("whole stack: miss path, all guards admit", |table| {
        table.ours("throttle, limiter, breaker; clock read twice", gates(), |gates| {
            let call = Call::at(clock::now());
            pass(gates, &call, clock::now)
        });
        table.ours("throttle, limiter, breaker; clock read once", gates(), |gates| {
            let call = Call::at(clock::now());
            pass(gates, &call, || call.now)
        });
        let call = Call::at(clock::now());
        table.note("of it: the gates alone", gates(), move |gates| pass(gates, &call, || call.now));
        table.note("of it: throttle", gates().0, move |throttle| {
            throttle
                .try_enter(&call, &Key::of(b"client-1"))
                .map(|permit| permit.settle(Outcome::Success, call.now))
        });
        table.note("of it: limiter", gates().1, move |limiter| {
            limiter.try_acquire(&call).map(|permit| permit.settle(Outcome::Success, call.now))
        });
        table.note("of it: breaker", gates().2, move |breaker| {
            breaker.admit(&call).map(|permit| permit.settle(Outcome::Success, call.now))
        });
        table.note("of it: one reading of the clock", (), |()| clock::now());
        table.peer("tower-resilience: rate limiter, bulkhead, circuit breaker", three(), |service| {
            block_on(async { service.ready().await.map_err(drop)?.call(1).await.map_err(drop) })
        });
        let (runtime, service) = (runtime(), TimeLimiterLayer::standard().build().layer(three()));
        table.peer_with(
            "tower-resilience: those and a time limiter",
            service,
            |service| (runtime.enter(), service.clone()),
            |(_entered, service)| {
                block_on(async { service.ready().await.map_err(drop)?.call(1).await.map_err(drop) })
            },
        );
        table.bar("at most 150 ns with one clock read, at most 2 allocations");
    });
}

/// The guards of a route and its upstream.
fn gates() -> (&'static Throttle, Limiter, Breaker) {
    let rate = Rate::new(PLENTY, Duration::from_secs(1)).expect("a second is in range");
    let throttle = Throttle::new(Quota::of(rate).build().expect("the quota is in range"));
    let limiter = Limiter::new(10_000).expect("the limit is in range");
    let breaker = Breaker::new(breaker::Settings::default()).expect("the defaults are valid");
    (Box::leak(Box::new(throttle)), limiter, breaker)
}

#[inline]
fn pass<G: Gate<Key>>(gates: &G, call: &Call, now: impl FnOnce() -> Instant) -> Result<(), Refused> {
    let permit = gates.try_enter(call, &Key::of(b"client-1"))?;
    permit.settle(Outcome::Success, now());
    Ok(())
}

/// tower-resilience's layers for the same three guards.
fn three() -> impl Service<u32, Error: Send + 'static, Response = u32, Future: Send> + Clone + Send + Sync {
    let rate = RateLimiterLayer::builder()
        .limit_for_period(PLENTY as usize)
        .refresh_period(Duration::from_secs(1))
        .build()
        .expect("the settings are valid");
    let bulkhead =
        BulkheadLayer::builder().max_concurrent_calls(10_000).build().expect("the settings are valid");
    let breaker = CircuitBreakerLayer::builder().build().expect("the defaults are valid");
    rate.layer(bulkhead.layer(breaker.layer(service_fn(async |request: u32| Ok::<_, ()>(request)))))
}

/// A runtime for the peers whose timers need one; it lives as long as the process.
fn runtime() -> &'static Runtime {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
    Box::leak(Box::new(runtime.expect("a runtime starts")))
}
