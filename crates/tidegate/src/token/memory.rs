//! Sessions in the memory of one process, and on its disk if that is wanted.

mod table;

use std::{path::Path, sync::Arc, time::Duration};

use tokio::sync::broadcast;

use self::table::{Session, Table};
use super::store::{Change, Fence, Leased, Phase, SessionStore, SessionStoreError, Stored, Write, Written};
use super::{
    Seal, SessionId,
    journal::{Journal, JournalError, OnDisk},
};
use crate::{
    Instant,
    sync::{Mutex, now},
};

/// Changes that are remembered for those who listen; who is further behind misses some.
const CHANGES: usize = 4096;

/// Sessions in the memory of one process, and on its disk if that is wanted. Clones share them.
#[derive(Clone)]
pub struct MemorySessions(Arc<Inner>);

struct Inner {
    table: Mutex<Table>,
    most: usize,
    changes: broadcast::Sender<Change>,
    journal: Option<Journal>,
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
        Self::of(Table::default(), most, None)
    }

    /// Sessions that stand in a sealed file too, so that a restart logs nobody out. Every change is on disk before it is
    /// answered. The file belongs to one process at a time. Reads it, which takes a moment: call it at the start.
    ///
    /// # Errors
    /// [`JournalError`] when the file cannot be had, or is not one of ours.
    pub fn on_disk(path: &Path, seal: Arc<dyn Seal>) -> Result<Self, JournalError> {
        let (journal, entries) = Journal::open(path, seal)?;
        let (mut table, now) = (Table::default(), now());
        for (id, entry) in entries {
            let mut session = Session::of(entry);
            table.fences = table.fences.max(session.lease.as_ref().map_or(0, |lease| lease.fence.0));
            let ends_at = session.ends_at;
            table.keep(&id, &mut session, ends_at);
            table.sessions.insert(id, session);
        }
        // Fences of leases that were given back are not on disk: a clock that goes on is above all of them.
        table.fences = table.fences.max(now.as_nanos() >> 10);
        table.forget(now);
        Ok(Self::of(table, Self::MOST, Some(journal)))
    }

    fn of(table: Table, most: usize, journal: Option<Journal>) -> Self {
        Self(Arc::new(Inner {
            table: Mutex::new(table),
            most,
            changes: broadcast::channel(CHANGES).0,
            journal,
        }))
    }

    /// Has everything in the file sealed by the key of now, in the background: after a key took another one's place, which
    /// may leave the ring once the last session that it sealed is over. Without a file nothing happens.
    pub fn seal_anew(&self) {
        if let Some(journal) = &self.0.journal {
            journal.seal_anew();
        }
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

    /// Decides on one session that is there, under the lock, and has on disk what changed before it answers.
    async fn with<R>(
        &self,
        id: &SessionId,
        now: Instant,
        decide: impl FnOnce(&mut Table, &mut Session) -> (R, Save) + Send,
    ) -> Result<Option<R>, SessionStoreError> {
        let (decided, on_disk) = {
            let table = &mut *self.0.table.lock();
            table.forget(now);
            // Out of the table while it is looked at, so that both can be changed.
            let Some((id, mut session)) = table.sessions.remove_entry(id) else { return Ok(None) };
            let (decided, save) = decide(table, &mut session);
            let on_disk = match save {
                Save::Yes => self.save(&id, Some(&mut session)),
                Save::No => None,
            };
            table.sessions.insert(id, session);
            (decided, on_disk)
        };
        written(on_disk).await?;
        Ok(Some(decided))
    }

    /// Begins to write a session to disk, under the lock, so that changes stand there in their order.
    fn save(&self, id: &SessionId, session: Option<&mut Session>) -> Option<OnDisk> {
        let journal = self.0.journal.as_ref()?;
        let entry = session.map(|session| {
            session.end_on_disk = session.ends_at;
            session.entry()
        });
        Some(journal.put(id, entry.as_ref()))
    }
}

/// Whether a change has to be on disk.
enum Save {
    Yes,
    No,
}

async fn written(on_disk: Option<OnDisk>) -> Result<(), SessionStoreError> {
    match on_disk {
        Some(on_disk) => on_disk.done().await.map_err(SessionStoreError),
        None => Ok(()),
    }
}

impl SessionStore for MemorySessions {
    async fn read(
        &self,
        id: &SessionId,
        keep: Option<Duration>,
    ) -> Result<Option<Stored>, SessionStoreError> {
        let now = now();
        self.with(id, now, |table, session| {
            let mut save = Save::No;
            if let Some(keep) = keep {
                table.keep(id, session, now + keep);
                if session.ends_at.since(session.end_on_disk) > keep / 16 {
                    save = Save::Yes;
                }
            }
            (session.stored(now), save)
        })
        .await
    }

    async fn create(
        &self,
        id: &SessionId,
        record: Vec<u8>,
        keep: Duration,
    ) -> Result<bool, SessionStoreError> {
        let now = now();
        let on_disk = {
            let table = &mut *self.0.table.lock();
            table.forget(now);
            if table.sessions.contains_key(id) {
                return Ok(false);
            }
            if table.sessions.len() >= self.0.most {
                let why = format!("it holds {} sessions, and no more; raise its bound", self.0.most);
                return Err(SessionStoreError::new(why));
            }
            let ends_at = now + keep;
            let mut session = Session {
                record,
                version: 1,
                first: Fence(table.fences + 1),
                written_at: now,
                ends_at,
                end_on_disk: ends_at,
                lease: None,
            };
            table.keep(id, &mut session, ends_at);
            let on_disk = self.save(id, Some(&mut session));
            table.sessions.insert(id.clone(), session);
            on_disk
        };
        written(on_disk).await?;
        self.tell(Change::Written { id: id.clone(), version: 1 });
        Ok(true)
    }

    async fn write(&self, id: &SessionId, write: Write) -> Result<Written, SessionStoreError> {
        let now = now();
        let written = self
            .with(id, now, |table, session| {
                let keep = write.keep;
                let written = session.write(write, now);
                match written {
                    Written::Done(_) => {
                        table.keep(id, session, now + keep);
                        (written, Save::Yes)
                    }
                    Written::Conflict | Written::Gone | Written::Fenced => (written, Save::No),
                }
            })
            .await?;
        if let Some(Written::Done(version)) = written {
            self.tell(Change::Written { id: id.clone(), version });
        }
        Ok(written.unwrap_or(Written::Gone))
    }

    async fn remove(&self, id: &SessionId) -> Result<Option<Stored>, SessionStoreError> {
        let now = now();
        let (removed, on_disk) = {
            let table = &mut *self.0.table.lock();
            table.forget(now);
            let removed = table.sessions.remove(id);
            if let Some(session) = &removed {
                table.ends.remove(&(session.ends_at, id.clone()));
            }
            (removed.map(|session| session.stored(now)), self.save(id, None))
        };
        written(on_disk).await?;
        self.tell(Change::Removed(id.clone()));
        Ok(removed)
    }

    async fn lease(&self, id: &SessionId, holder: u64, life: Duration) -> Result<Leased, SessionStoreError> {
        let now = now();
        let leased = self.with(id, now, |table, session| (session.lease(table, holder, life, now), Save::No));
        Ok(leased.await?.unwrap_or(Leased::Gone))
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
                return (false, Save::No);
            };
            lease.until = now + life;
            let mut save = Save::No;
            if phase == Phase::Sent && lease.sent_at.is_none() {
                lease.sent_at = Some(now);
                save = Save::Yes;
            }
            (true, save)
        });
        let renewed = renewed.await?.unwrap_or(false);
        if renewed && phase == Phase::Sent {
            self.tell(Change::Sent(id.clone()));
        }
        Ok(renewed)
    }

    async fn release(&self, id: &SessionId, fence: Fence) -> Result<(), SessionStoreError> {
        let released = self
            .with(id, now(), |_, session| {
                let released = session.lease.take_if(|lease| lease.fence == fence);
                match released {
                    Some(lease) if lease.sent_at.is_some() => (Some(session.version), Save::Yes),
                    Some(_) | None => (None, Save::No),
                }
            })
            .await?;
        if let Some(Some(version)) = released {
            self.tell(Change::Written { id: id.clone(), version });
        }
        Ok(())
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.0.changes.subscribe()
    }

    async fn pause(&self, endpoint: &Arc<str>, pause: Duration) {
        self.tell(Change::Pause { endpoint: endpoint.clone(), pause });
    }
}
