//! Tokens: what asking for a good one costs.

use std::{sync::Arc, time::Duration};

use tidegate::{
    Call, clock,
    token::{
        Grant, GrantError, Login, MemorySessions, ServiceKey, ServiceTokens, SessionId, Settings,
        TokenCoordinator, TokenEndpoint, Tokens,
    },
};
use tokio::runtime::{self, Runtime};

use crate::harness::{Suite, Timings, block_on};

/// An endpoint that nobody should ask.
struct Idle;

impl TokenEndpoint for Idle {
    async fn grant(&self, _: Grant, _: Duration) -> Result<Tokens, GrantError> {
        Ok(Tokens::bearer("a token of the usual length").expires_in(Duration::from_secs(86_400)))
    }
}

pub(crate) fn tables(suite: &mut Suite) {
    for (sessions, title) in
        [(1, "token: is it fresh, one session"), (10_000, "token: is it fresh, 10 000 sessions")]
    {
        suite.timings(title, |table| {
            fresh(table, sessions);
            table.bar("at most 50 ns, 0 allocations");
        });
    }
}

fn on_one_thread() -> Runtime {
    runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn fresh(table: &mut Timings, count: u64) {
    let runtime = on_one_thread();
    let ids: Arc<[SessionId]> =
        (0..count).map(|number| SessionId::new(&format!("{number:064x}")).expect("an id")).collect();
    // Looked at again after a day, so that what is timed is a good token and no look at the store.
    let settings = Settings { recheck: Duration::from_secs(86_400), ..Settings::default() };
    let coordinator = runtime.block_on(async {
        let coordinator =
            TokenCoordinator::new(Idle, MemorySessions::default(), settings).expect("valid settings");
        for id in &*ids {
            let tokens =
                Tokens::bearer("a".repeat(1200)).expires_in(Duration::from_secs(86_400)).refresh("r");
            coordinator.begin(id, Login::of(tokens)).await.expect("memory");
        }
        coordinator
    });
    let services = runtime.block_on(async {
        let services = ServiceTokens::new(Idle, Settings::default()).expect("valid settings");
        let call = Call::at(clock::now());
        services.fresh(&ServiceKey::default().scope("orders"), &call).await.expect("a token");
        services
    });
    let call = Call::at(clock::now());
    let step = move |at: &mut usize| {
        *at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *at >> 33
    };
    table.ours_with(
        "TokenCoordinator, try_fresh",
        (coordinator.clone(), Arc::clone(&ids)),
        |(coordinator, ids)| (coordinator.clone(), Arc::clone(ids), 1_usize),
        move |(coordinator, ids, at)| {
            let id = &ids[step(at) % ids.len()];
            coordinator.try_fresh(id, &call).is_some_and(|token| token.is_ok())
        },
    );
    table.ours_with(
        "TokenCoordinator, fresh().await",
        (coordinator, ids, runtime),
        |(coordinator, ids, _)| (coordinator.clone(), Arc::clone(ids), 1_usize),
        move |(coordinator, ids, at)| {
            let id = &ids[step(at) % ids.len()];
            block_on(coordinator.fresh(id, &call)).is_ok()
        },
    );
    if count == 1 {
        let key = ServiceKey::default().scope("orders");
        table.ours("ServiceTokens, fresh().await", (services, key), move |(services, key)| {
            block_on(services.fresh(key, &call)).is_ok()
        });
    }
}
