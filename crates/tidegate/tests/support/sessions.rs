//! A store of sessions as a process sees it: some time away, down now and then, and out of reach for a process that died.

#![allow(dead_code, reason = "each test file uses the faults it needs")]

use std::{
    fmt,
    future::{Future, pending},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::trace;
use tidegate::token::{
    Change, Fence, Grant, GrantError, Identity, Leased, MemorySessions, Phase, SessionId, SessionStore,
    SessionStoreError, Stored, TokenEndpoint, Tokens, VerifyError, Write, Written,
};
use tokio::{
    sync::{broadcast, watch},
    time::sleep,
};

/// Whether a process lives.
#[derive(Clone)]
pub(crate) struct Life(watch::Sender<bool>);

impl Life {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(true))
    }

    /// Nothing that it began goes on, and nobody hears of it again: what a SIGKILL looks like from outside.
    pub(crate) fn kill(&self) {
        self.0.send_replace(false);
    }

    async fn while_alive<T>(&self, work: impl Future<Output = T>) -> T {
        let mut watching = self.0.subscribe();
        let killed = async move { watching.wait_for(|alive| !alive).await.is_ok() };
        tokio::select! {
            biased;
            _ = killed => pending().await,
            done = work => done,
        }
    }
}

/// What is used by a process that may die.
#[derive(Clone)]
pub(crate) struct Mortal<T> {
    pub(crate) inner: T,
    pub(crate) life: Life,
}

impl<E: TokenEndpoint> TokenEndpoint for Mortal<E> {
    async fn grant(&self, grant: Grant, within: Duration) -> Result<Tokens, GrantError> {
        self.life.while_alive(self.inner.grant(grant, within)).await
    }

    fn verifies(&self) -> bool {
        self.inner.verifies()
    }

    async fn verify(
        &self,
        tokens: &Tokens,
        pinned: Option<&Identity>,
    ) -> Result<Option<Identity>, VerifyError> {
        self.life.while_alive(self.inner.verify(tokens, pinned)).await
    }

    async fn revoke(&self, tokens: Tokens) {
        self.life.while_alive(self.inner.revoke(tokens)).await;
    }
}

/// The beginning of what something prints: records are long.
struct Short(String);

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_str(text);
        if self.0.len() < 100 { Ok(()) } else { Err(fmt::Error) }
    }
}

fn short(value: &impl fmt::Debug) -> String {
    let mut short = Short(String::new());
    let _ = fmt::write(&mut short, format_args!("{value:?}"));
    short.0
}

/// Clones see one store.
#[derive(Clone)]
pub(crate) struct Distant {
    pub(crate) store: MemorySessions,
    pub(crate) life: Life,
    down: Arc<AtomicBool>,
    /// Milliseconds there, and back.
    away: Arc<AtomicU64>,
    /// Operations, but for renewals.
    pub(crate) asked: Arc<AtomicU64>,
    /// What it hears in place of what happens, if it is deaf: nothing.
    silence: Option<broadcast::Sender<Change>>,
}

impl Distant {
    pub(crate) fn new(store: &MemorySessions) -> Self {
        Self {
            store: store.clone(),
            life: Life::new(),
            down: Arc::default(),
            away: Arc::new(AtomicU64::new(1)),
            asked: Arc::default(),
            silence: None,
        }
    }

    /// One whose hints are all lost.
    pub(crate) fn deaf(store: &MemorySessions) -> Self {
        Self { silence: Some(broadcast::Sender::new(1)), ..Self::new(store) }
    }

    pub(crate) fn down(&self, down: bool) {
        self.down.store(down, SeqCst);
    }

    pub(crate) fn away(&self, millis: u64) {
        self.away.store(millis, SeqCst);
    }

    async fn reach<T: fmt::Debug>(
        &self,
        what: &str,
        id: &SessionId,
        work: impl Future<Output = Result<T, SessionStoreError>>,
    ) -> Result<T, SessionStoreError> {
        let trip = || sleep(Duration::from_millis(self.away.load(SeqCst)));
        let unreachable = || Err(SessionStoreError::new("unreachable"));
        self.asked.fetch_add(1, SeqCst);
        self.life
            .while_alive(async {
                trip().await;
                if self.down.load(SeqCst) {
                    return unreachable();
                }
                let done = work.await;
                trace::note(id.as_str(), format_args!("{what}: {}", short(&done)));
                trip().await;
                // The answer may be lost though it was done.
                if self.down.load(SeqCst) { unreachable() } else { done }
            })
            .await
    }
}

impl SessionStore for Distant {
    async fn read(
        &self,
        id: &SessionId,
        keep: Option<Duration>,
    ) -> Result<Option<Stored>, SessionStoreError> {
        self.reach("read", id, self.store.read(id, keep)).await
    }

    async fn create(
        &self,
        id: &SessionId,
        record: Vec<u8>,
        keep: Duration,
    ) -> Result<bool, SessionStoreError> {
        self.reach("create", id, self.store.create(id, record, keep)).await
    }

    async fn write(&self, id: &SessionId, write: Write) -> Result<Written, SessionStoreError> {
        self.reach("write", id, self.store.write(id, write)).await
    }

    async fn remove(&self, id: &SessionId) -> Result<Option<Stored>, SessionStoreError> {
        self.reach("remove", id, self.store.remove(id)).await
    }

    async fn lease(&self, id: &SessionId, holder: u64, life: Duration) -> Result<Leased, SessionStoreError> {
        self.reach("lease", id, self.store.lease(id, holder, life)).await
    }

    async fn renew(
        &self,
        id: &SessionId,
        fence: Fence,
        life: Duration,
        phase: Phase,
    ) -> Result<bool, SessionStoreError> {
        self.reach(&format!("renew {phase:?}"), id, self.store.renew(id, fence, life, phase)).await
    }

    async fn release(&self, id: &SessionId, fence: Fence) -> Result<(), SessionStoreError> {
        self.reach("release", id, self.store.release(id, fence)).await
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.silence.as_ref().map_or_else(|| self.store.changes(), broadcast::Sender::subscribe)
    }

    async fn pause(&self, endpoint: &Arc<str>, pause: Duration) {
        self.store.pause(endpoint, pause).await;
    }
}
