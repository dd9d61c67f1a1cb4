//! Sessions in the memory of one process.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::sync::broadcast;

use super::SessionId;
use super::store::{
    Change, Fence, Leased, Phase, SessionStore, SessionStoreError, Stored, Under, Write, Written,
};
use crate::{
    Instant,
    sync::{Mutex, now},
};

/// Changes that are remembered for those who listen; who is further behind misses some.
const CHANGES: usize = 4096;

/// Sessions in the memory of one process. Clones share them.
#[derive(Clone)]
pub struct MemorySessions(Arc<Inner>);

struct Inner {
    table: Mutex<Table>,
    most: usize,
    changes: broadcast::Sender<Change>,
}

#[derive(Default)]
struct Table {
    sessions: HashMap<SessionId, Session>,
    /// By when they end, so that what is over is found without a look at all.
    ends: BTreeSet<(Instant, SessionId)>,
    fences: u64,
}

struct Session {
    record: Vec<u8>,
    version: u64,
    written_at: Instant,
    ends_at: Instant,
    lease: Option<Lease>,
}

struct Lease {
    holder: u64,
    fence: Fence,
    until: Instant,
    sent_at: Option<Instant>,
    /// When an earlier holder sent something and was not heard of again.
    orphaned: Option<Instant>,
}

impl Default for MemorySessions {
    fn default() -> Self {
        Self::with_room_for(Self::MOST)
    }
}

impl MemorySessions {
    /// Sessions that are held at most, unless told otherwise.
    pub const MOST: usize = 1_000_000;

    /// A store for at most `most` sessions; one more is refused.
    pub fn with_room_for(most: usize) -> Self {
        Self(Arc::new(Inner {
            table: Mutex::new(Table::default()),
            most,
            changes: broadcast::channel(CHANGES).0,
        }))
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.0.table.lock().sessions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn tell(&self, change: Change) {
        // That nobody listens is fine.
        let _ = self.0.changes.send(change);
    }

    /// Decides on one session that is there, under the lock.
    fn with<R>(
        &self,
        id: &SessionId,
        now: Instant,
        decide: impl FnOnce(&mut Table, &mut Session) -> R,
    ) -> Option<R> {
        let table = &mut *self.0.table.lock();
        table.forget(now);
        // Out of the table while it is looked at, so that both can be changed.
        let (id, mut session) = table.sessions.remove_entry(id)?;
        let decided = decide(table, &mut session);
        table.sessions.insert(id, session);
        Some(decided)
    }
}

impl Table {
    fn forget(&mut self, now: Instant) {
        while let Some((ends_at, _)) = self.ends.first()
            && *ends_at <= now
            && let Some((_, id)) = self.ends.pop_first()
        {
            self.sessions.remove(&id);
        }
    }

    fn keep(&mut self, id: &SessionId, session: &mut Session, until: Instant) {
        self.ends.remove(&(session.ends_at, id.clone()));
        self.ends.insert((until, id.clone()));
        session.ends_at = until;
    }
}

impl Session {
    fn stored(&self, now: Instant) -> Stored {
        Stored { version: self.version, age: now.since(self.written_at), record: self.record.clone() }
    }

    fn holds(&self, fence: Fence) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.fence == fence)
    }

    fn write(&mut self, write: Write, now: Instant) -> Written {
        let held = self.holds(write.fence);
        match write.under {
            Under::HolderReleasing if !held => return Written::Fenced,
            Under::HolderReleasing | Under::Anybody | Under::AnybodyReleasing => {}
        }
        if self.version != write.over {
            return Written::Conflict;
        }
        self.version += 1;
        (self.record, self.written_at) = (write.record, now);
        match write.under {
            Under::Anybody => {}
            Under::AnybodyReleasing | Under::HolderReleasing if held => self.lease = None,
            Under::AnybodyReleasing | Under::HolderReleasing => {}
        }
        Written::Done(self.version)
    }
}

impl SessionStore for MemorySessions {
    async fn read(
        &self,
        id: &SessionId,
        keep: Option<Duration>,
    ) -> Result<Option<Stored>, SessionStoreError> {
        let now = now();
        Ok(self.with(id, now, |table, session| {
            if let Some(keep) = keep {
                table.keep(id, session, now + keep);
            }
            session.stored(now)
        }))
    }

    async fn create(
        &self,
        id: &SessionId,
        record: Vec<u8>,
        keep: Duration,
    ) -> Result<bool, SessionStoreError> {
        let now = now();
        let table = &mut *self.0.table.lock();
        table.forget(now);
        if table.sessions.contains_key(id) {
            return Ok(false);
        }
        if table.sessions.len() >= self.0.most {
            return Err(SessionStoreError::new(format!(
                "it holds {} sessions, and no more; raise its bound",
                self.0.most
            )));
        }
        let mut session = Session { record, version: 1, written_at: now, ends_at: now + keep, lease: None };
        table.keep(id, &mut session, now + keep);
        table.sessions.insert(id.clone(), session);
        Ok(true)
    }

    async fn write(&self, id: &SessionId, write: Write) -> Result<Written, SessionStoreError> {
        let now = now();
        let written = self.with(id, now, |table, session| {
            let keep = write.keep;
            let written = session.write(write, now);
            if let Written::Done(_) = written {
                table.keep(id, session, now + keep);
            }
            written
        });
        if let Some(Written::Done(version)) = written {
            self.tell(Change::Written { id: id.clone(), version });
        }
        Ok(written.unwrap_or(Written::Gone))
    }

    async fn remove(&self, id: &SessionId) -> Result<bool, SessionStoreError> {
        let removed = {
            let table = &mut *self.0.table.lock();
            table.forget(now());
            let removed = table.sessions.remove(id);
            if let Some(session) = &removed {
                table.ends.remove(&(session.ends_at, id.clone()));
            }
            removed.is_some()
        };
        self.tell(Change::Removed(id.clone()));
        Ok(removed)
    }

    async fn lease(&self, id: &SessionId, holder: u64, life: Duration) -> Result<Leased, SessionStoreError> {
        let now = now();
        let leased = self.with(id, now, |table, session| {
            let mut orphan = None;
            if let Some(lease) = &mut session.lease {
                if lease.holder == holder {
                    lease.until = lease.until.max(now + life);
                    let (fence, orphan) = (lease.fence, lease.orphaned.map(|at| now.since(at)));
                    return Leased::Taken { fence, stored: session.stored(now), orphan };
                }
                if now < lease.until {
                    return Leased::Held(lease.until.since(now));
                }
                orphan = lease.sent_at;
            }
            table.fences += 1;
            let fence = Fence(table.fences);
            // What the dead holder sent stays known until the record says what became of it.
            session.lease =
                Some(Lease { holder, fence, until: now + life, sent_at: orphan, orphaned: orphan });
            Leased::Taken { fence, stored: session.stored(now), orphan: orphan.map(|at| now.since(at)) }
        });
        Ok(leased.unwrap_or(Leased::Gone))
    }

    async fn renew(
        &self,
        id: &SessionId,
        fence: Fence,
        life: Duration,
        phase: Phase,
    ) -> Result<bool, SessionStoreError> {
        let now = now();
        let renewed = self.with(id, now, |_, session| {
            let Some(lease) = session.lease.as_mut().filter(|lease| lease.fence == fence) else {
                return false;
            };
            lease.until = now + life;
            if phase == Phase::Sent {
                lease.sent_at.get_or_insert(now);
            }
            true
        });
        Ok(renewed.unwrap_or(false))
    }

    async fn release(&self, id: &SessionId, fence: Fence) -> Result<(), SessionStoreError> {
        self.with(id, now(), |_, session| {
            if session.holds(fence) {
                session.lease = None;
            }
        });
        Ok(())
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.0.changes.subscribe()
    }

    async fn pause(&self, endpoint: &Arc<str>, pause: Duration) {
        self.tell(Change::Pause { endpoint: endpoint.clone(), pause });
    }
}
