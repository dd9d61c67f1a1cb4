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

use crate::{
    harness::{Suite, Timings, block_on, held_by},
    waiters::{Gate, Told, rows},
};

/// An endpoint that nobody should ask.
struct Idle;

impl TokenEndpoint for Idle {
    async fn grant(&self, _: Grant, _: Duration) -> Result<Tokens, GrantError> {
        Ok(Tokens::bearer("a token of the usual length").expires_in(DAY))
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
    suite.counts("token: 10 000 callers wait for one grant", |table| {
        rows(
            table,
            5,
            [("tidegate TokenCoordinator", &|runtime| runtime.block_on(waiting(Gate::default())))],
        );
    });
    suite.counts("token: memory of a session, 10 000 of them", |table| {
        table.columns(["bytes of its place", "bytes of the session"]);
        table.row("tidegate TokenCoordinator, MemorySessions", bytes());
        table.bar("stated. An access token of 1200 bytes and a refresh token of 800 are held twice: in the store, and to answer");
    });
}

/// An endpoint that grants when the gate is opened.
struct Gated(Gate);

impl TokenEndpoint for Gated {
    async fn grant(&self, _: Grant, _: Duration) -> Result<Tokens, GrantError> {
        self.0.pass().await;
        Ok(Tokens::bearer("a".repeat(1200)).expires_in(DAY).refresh("r"))
    }
}

async fn waiting(gate: Gate) -> Told {
    let coordinator =
        TokenCoordinator::new(Gated(gate.clone()), MemorySessions::default(), Settings::default())
            .expect("valid settings");
    let id = SessionId::new("one").expect("an id");
    // The shortest life there is: its end is what they all wait at.
    let life = Duration::from_secs(1);
    let short = Tokens::bearer("a").expires_in(life).refresh("r");
    coordinator.begin(&id, Login::of(short)).await.expect("memory");
    tokio::time::sleep(life).await;
    gate.told(|| {
        let (coordinator, id) = (coordinator.clone(), id.clone());
        async move { coordinator.fresh(&id, &Call::at(clock::now())).await.is_ok() }
    })
    .await
}

/// Begins 10 000 sessions with tokens of 1200 and 800 bytes, and counts what is held for them.
fn bytes() -> [String; 2] {
    const SESSIONS: u64 = 10_000;
    let runtime = on_one_thread();
    let (coordinator, before) = held_by(|| {
        let settings = Settings { sessions: SESSIONS as usize, ..Settings::default() };
        runtime.block_on(async {
            TokenCoordinator::new(Idle, MemorySessions::default(), settings).expect("valid settings")
        })
    });
    let ((), for_them) = held_by(|| {
        runtime.block_on(async {
            for number in 0..SESSIONS {
                let id = SessionId::new(&format!("{number:064x}")).expect("an id");
                let tokens = Tokens::bearer("a".repeat(1200)).expires_in(DAY).refresh("r".repeat(800));
                coordinator.begin(&id, Login::of(tokens)).await.expect("memory");
            }
        });
    });
    [before, for_them].map(|bytes| (bytes / SESSIONS as i64).to_string())
}

const DAY: Duration = Duration::from_secs(86_400);

fn on_one_thread() -> Runtime {
    runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn fresh(table: &mut Timings, count: u64) {
    let runtime = on_one_thread();
    let ids: Arc<[SessionId]> =
        (0..count).map(|number| SessionId::new(&format!("{number:064x}")).expect("an id")).collect();
    // Looked at again after a day, so that what is timed is a good token and no look at the store.
    let settings = Settings { recheck: DAY, ..Settings::default() };
    let coordinator = runtime.block_on(async {
        let coordinator =
            TokenCoordinator::new(Idle, MemorySessions::default(), settings).expect("valid settings");
        for id in &*ids {
            let tokens = Tokens::bearer("a".repeat(1200)).expires_in(DAY).refresh("r");
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
