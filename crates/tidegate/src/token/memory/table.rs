//! The sessions themselves, and what is decided of one: equal to the script that decides in Redis.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use crate::{
    Instant,
    token::{
        SessionId,
        journal::Entry,
        store::{Fence, Leased, Stored, Under, Write, Written},
    },
};

#[derive(Default)]
pub(super) struct Table {
    pub(super) sessions: HashMap<SessionId, Session>,
    /// By when they end, so that what is over is found without a look at all.
    pub(super) ends: BTreeSet<(Instant, SessionId)>,
    pub(super) fences: u64,
}

pub(super) struct Session {
    pub(super) record: Vec<u8>,
    pub(super) version: u64,
    /// Leases of an earlier session of this name have lower numbers.
    pub(super) first: Fence,
    pub(super) written_at: Instant,
    pub(super) ends_at: Instant,
    /// The end that stands on disk.
    pub(super) end_on_disk: Instant,
    pub(super) lease: Option<Lease>,
}

pub(super) struct Lease {
    pub(super) holder: u64,
    pub(super) fence: Fence,
    pub(super) until: Instant,
    pub(super) sent_at: Option<Instant>,
    /// When an earlier holder sent something and was not heard of again.
    pub(super) orphaned: Option<Instant>,
}

impl Table {
    pub(super) fn forget(&mut self, now: Instant) {
        while let Some((ends_at, _)) = self.ends.first()
            && *ends_at <= now
            && let Some((_, id)) = self.ends.pop_first()
        {
            self.sessions.remove(&id);
        }
    }

    pub(super) fn keep(&mut self, id: &SessionId, session: &mut Session, until: Instant) {
        self.ends.remove(&(session.ends_at, id.clone()));
        self.ends.insert((until, id.clone()));
        session.ends_at = until;
    }
}

impl Session {
    pub(super) fn of(entry: Entry) -> Self {
        let [written_at, ends_at, sent_at] =
            [entry.written_at, entry.ends_at, entry.sent_at].map(Instant::from_nanos);
        // Whoever held it is gone; what it had sent, nobody knows.
        let sent_at = (entry.sent_at != 0).then_some(sent_at);
        let lease = sent_at.map(|_| Lease {
            holder: 0,
            fence: Fence(entry.fence),
            until: Instant::EPOCH,
            sent_at,
            orphaned: None,
        });
        let Entry { version, record, .. } = entry;
        Self { record, version, first: Fence(0), written_at, ends_at, end_on_disk: ends_at, lease }
    }

    pub(super) fn entry(&self) -> Entry {
        let lease = self.lease.as_ref();
        Entry {
            version: self.version,
            written_at: self.written_at.as_nanos(),
            ends_at: self.ends_at.as_nanos(),
            fence: lease.map_or(0, |lease| lease.fence.0),
            sent_at: lease.and_then(|lease| lease.sent_at).map_or(0, Instant::as_nanos),
            record: self.record.clone(),
        }
    }

    pub(super) fn stored(&self, now: Instant) -> Stored {
        Stored { version: self.version, age: now.since(self.written_at), record: self.record.clone() }
    }

    pub(super) fn holds(&self, fence: Fence) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.fence == fence)
    }

    pub(super) fn lease(&mut self, table: &mut Table, holder: u64, life: Duration, now: Instant) -> Leased {
        let mut orphan = None;
        if let Some(lease) = &mut self.lease {
            if lease.holder == holder {
                lease.until = lease.until.max(now + life);
                let (fence, orphan) = (lease.fence, lease.orphaned.map(|at| now.since(at)));
                return Leased::Taken { fence, stored: self.stored(now), orphan };
            }
            if now < lease.until {
                return Leased::Held(lease.until.since(now));
            }
            orphan = lease.sent_at;
        }
        table.fences += 1;
        let fence = Fence(table.fences);
        // What the dead holder sent stays known until the record says what became of it.
        self.lease = Some(Lease { holder, fence, until: now + life, sent_at: orphan, orphaned: orphan });
        Leased::Taken { fence, stored: self.stored(now), orphan: orphan.map(|at| now.since(at)) }
    }

    pub(super) fn write(&mut self, write: Write, now: Instant) -> Written {
        let held = self.holds(write.fence);
        if write.fence != Fence(0) && write.fence < self.first {
            return Written::Gone;
        }
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
