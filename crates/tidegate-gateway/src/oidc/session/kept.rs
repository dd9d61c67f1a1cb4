//! Where sessions are kept: this process, or the store that a fleet shares.

use std::{sync::Arc, time::Duration};

use tidegate::token::{
    Change, Fence, Leased, MemorySessions, Phase, SessionId, SessionStore, SessionStoreError, Stored, Write,
    Written,
};
use tidegate_redis::RedisSessions;
use tokio::sync::broadcast;

/// Where sessions are kept. Clones are the same place.
#[derive(Clone)]
pub enum Kept {
    /// This process: a restart forgets them.
    Memory(MemorySessions),
    /// A store.
    Redis(RedisSessions),
}

macro_rules! each {
    ($self:ident, $store:ident => $do:expr) => {
        match $self {
            Self::Memory($store) => $do,
            Self::Redis($store) => $do,
        }
    };
}

impl SessionStore for Kept {
    async fn read(
        &self,
        id: &SessionId,
        keep: Option<Duration>,
    ) -> Result<Option<Stored>, SessionStoreError> {
        each!(self, store => store.read(id, keep).await)
    }

    async fn create(
        &self,
        id: &SessionId,
        record: Vec<u8>,
        keep: Duration,
    ) -> Result<bool, SessionStoreError> {
        each!(self, store => store.create(id, record, keep).await)
    }

    async fn write(&self, id: &SessionId, write: Write) -> Result<Written, SessionStoreError> {
        each!(self, store => store.write(id, write).await)
    }

    async fn remove(&self, id: &SessionId) -> Result<Option<Stored>, SessionStoreError> {
        each!(self, store => store.remove(id).await)
    }

    async fn lease(&self, id: &SessionId, holder: u64, life: Duration) -> Result<Leased, SessionStoreError> {
        each!(self, store => store.lease(id, holder, life).await)
    }

    async fn renew(
        &self,
        id: &SessionId,
        fence: Fence,
        life: Duration,
        phase: Phase,
    ) -> Result<bool, SessionStoreError> {
        each!(self, store => store.renew(id, fence, life, phase).await)
    }

    async fn release(&self, id: &SessionId, fence: Fence) -> Result<(), SessionStoreError> {
        each!(self, store => store.release(id, fence).await)
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        each!(self, store => store.changes())
    }

    async fn pause(&self, endpoint: &Arc<str>, pause: Duration) {
        each!(self, store => store.pause(endpoint, pause).await);
    }
}
