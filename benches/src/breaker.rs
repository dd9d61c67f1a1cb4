//! The breaker beside recloser, failsafe and tower-resilience.

use std::{sync::Arc, time::Duration};

use failsafe::CircuitBreaker as _;
use tidegate::{
    Call, Outcome, Permit, Refused,
    breaker::{Breaker, Settings},
    clock,
};
use tower::{Service, ServiceExt, service_fn};
use tower_resilience_circuitbreaker::CircuitBreakerLayer;

use crate::harness::{Suite, block_on};

/// How long every subject stays open.
const OPEN_FOR: Duration = Duration::from_secs(5);

mod cases;

pub(crate) fn tables(suite: &mut Suite) {
    closed(suite);
    cases::tables(suite);
}

fn closed(suite: &mut Suite) {
    suite.timings("breaker: closed, success", |table| {
        let call = Call::at(clock::now());
        let breaker = Breaker::new(Settings::default()).expect("the defaults are valid");
        table.ours("Breaker", breaker, move |breaker| {
            let permit = breaker.admit(&call)?;
            permit.settle(Outcome::Success, call.now);
            Ok::<_, Refused>(())
        });
        let recloser = recloser::Recloser::custom().open_wait(OPEN_FOR).build();
        table.peer("recloser", Arc::new(recloser), |recloser| recloser.call(|| Ok::<_, ()>(())));
        table.peer("failsafe", failsafe(), |breaker| breaker.call(|| Ok::<_, ()>(())));
        let layer = CircuitBreakerLayer::builder().build().expect("the defaults are valid");
        let service = layer.layer_fn(service_fn(async |request: u32| Ok::<_, ()>(request)));
        table.peer("tower-resilience", service, |service| {
            block_on(async { service.ready().await.map_err(drop)?.call(1).await.map_err(drop) })
        });
        table.bar("at most recloser's, on 1 thread and on 2; 0 allocations");
    });
}

fn failsafe() -> impl failsafe::CircuitBreaker + Clone + Sync + 'static {
    let policy = failsafe::failure_policy::consecutive_failures(5, failsafe::backoff::constant(OPEN_FOR));
    failsafe::Config::new().failure_policy(policy).build()
}
