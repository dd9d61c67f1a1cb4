//! One refresh per expiry, and nobody logged out by it: the cases of one coordinator and of several that share a store,
//! against a provider that rotates and detects reuse, on a paused clock.
#![cfg(not(any(loom, shuttle)))]

#[path = "support/idp.rs"]
mod idp;
#[path = "support/sessions.rs"]
mod sessions;
#[path = "support/trace.rs"]
mod trace;

#[path = "token/callers.rs"]
mod callers;
#[path = "token/endings.rs"]
mod endings;
#[path = "token/failures.rs"]
mod failures;
#[path = "token/fleet.rs"]
mod fleet;
#[path = "token/late.rs"]
mod late;
#[path = "token/load.rs"]
mod load;
#[path = "token/outage.rs"]
mod outage;
#[path = "token/service.rs"]
mod service;
#[path = "token/service_fleet.rs"]
mod service_fleet;
#[path = "token/verified.rs"]
mod verified;

use std::{sync::Arc, time::Duration};

use idp::Idp;
use sessions::{Distant, Life, Mortal};
use tidegate::{
    Call, clock,
    token::{AccessToken, Login, MemorySessions, SessionId, Settings, TokenCoordinator, TokenError},
};
use tokio::time::sleep;

pub(crate) type Replica = TokenCoordinator<Mortal<Idp>, Distant>;

/// A process of a fleet.
pub(crate) struct Process {
    pub(crate) tokens: Replica,
    pub(crate) store: Distant,
    pub(crate) life: Life,
}

impl Process {
    pub(crate) fn start(idp: &Idp, store: &MemorySessions, settings: Settings) -> Self {
        Self::with(idp, Distant::new(store), settings)
    }

    pub(crate) fn with(idp: &Idp, store: Distant, settings: Settings) -> Self {
        let life = store.life.clone();
        let idp = Mortal { inner: idp.clone(), life: life.clone() };
        let tokens = TokenCoordinator::new(idp, store.clone(), settings).expect("good settings");
        Self { tokens, store, life }
    }

    pub(crate) async fn fresh(&self, id: &SessionId) -> Result<AccessToken, TokenError> {
        self.within(id, 5).await
    }

    pub(crate) async fn within(&self, id: &SessionId, seconds: u64) -> Result<AccessToken, TokenError> {
        let call = Call::at(clock::now()).within(Duration::from_secs(seconds));
        self.tokens.fresh(id, &call).await
    }
}

/// One process, and a session of family 1 in it.
pub(crate) async fn alone(settings: Settings) -> (Idp, Process, SessionId) {
    let idp = Idp::new();
    let (process, id) = with(&idp, settings).await;
    (idp, process, id)
}

pub(crate) async fn with(idp: &Idp, settings: Settings) -> (Process, SessionId) {
    let process = Process::start(idp, &MemorySessions::default(), settings);
    let id = begin(idp, &process, 1).await;
    (process, id)
}

pub(crate) async fn begin(idp: &Idp, process: &Process, family: u64) -> SessionId {
    let id = SessionId::new(&format!("session-{family}")).expect("an id");
    assert!(process.tokens.begin(&id, Login::of(idp.login(family))).await.expect("a store"));
    id
}

/// Lets the tokens of 5 minutes fall due, which they do after 240 to 255 s, and stay good, until 270 s.
pub(crate) async fn until_due() {
    sleep(Duration::from_secs(256)).await;
}

/// Lets the tokens of 5 minutes be over.
pub(crate) async fn until_over() {
    sleep(Duration::from_secs(301)).await;
}

/// Many callers of one session at once.
pub(crate) async fn crowd(process: &Arc<Process>, id: &SessionId, callers: usize) -> Vec<String> {
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let (process, id) = (Arc::clone(process), id.clone());
        crowd.spawn(async move { process.fresh(&id).await.expect("a token").expose().to_owned() });
    }
    crowd.join_all().await
}
