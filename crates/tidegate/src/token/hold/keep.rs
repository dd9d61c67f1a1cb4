//! Storing what a hold knows, and giving its lease back: for as long as the store takes, as what was granted is nowhere else.

use std::time::Duration;

use super::Hold;
use crate::{
    sync::now,
    token::{
        SessionStore, TokenEndpoint,
        answer::Trouble,
        run::{Early, End},
        stats::count,
        store::{Under, Write, Written},
    },
};

/// The pauses between attempts to store what is known.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What became of storing a record.
pub(super) enum Kept {
    /// It stands.
    Stored,
    /// Somebody else's stands, which is later.
    Theirs,
    /// The session was logged out.
    Gone,
}

impl<E: TokenEndpoint, S: SessionStore> Hold<'_, E, S> {
    /// Stores the record, however long that takes; those who wait are told `meanwhile` once it takes long, or what is wrong
    /// with the store.
    pub(super) async fn keep(&mut self, under: Under, meanwhile: Option<&End>, early: &mut Early) -> Kept {
        let (began, mut pause) = (now(), FIRST_PAUSE);
        loop {
            match self.write(under).await {
                Ok(Some(kept)) => return kept,
                Ok(None) => continue,
                Err(trouble) => early.land(meanwhile.cloned().unwrap_or(End::Failed(trouble, None))),
            }
            if now().since(began) >= self.of.settings.idle {
                return Kept::Gone;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Writes once. `None`: it was brought up to what stands there, and is to be written again.
    async fn write(&mut self, under: Under) -> Result<Option<Kept>, Trouble> {
        let of = self.of;
        let at = now();
        let record = self.record.write(self.id, self.version + 1, of.settings.seal.as_deref(), at);
        let keep = of.settings.idle.min(self.record.ends_at.since(at)).max(Duration::from_millis(1));
        let write = Write { record, over: self.version, keep, fence: self.fence, under };
        match of.counters.store(of.store.write(self.id, write).await).map_err(Trouble::Store)? {
            Written::Done(version) => {
                (self.version, self.noted) = (version, false);
                return Ok(Some(Kept::Stored));
            }
            Written::Gone => return Ok(Some(Kept::Gone)),
            Written::Conflict | Written::Fenced => {}
        }
        count(&of.counters.conflicts);
        let asked_at = now();
        let stored = of.counters.store(of.store.read(self.id, None).await).map_err(Trouble::Store)?;
        let Some(stored) = stored else { return Ok(Some(Kept::Gone)) };
        let theirs = of.record(self.id, &stored, asked_at)?;
        self.version = stored.version;
        // Whose tokens follow those that were asked with?
        let moved = theirs.generation > self.base;
        let ours = theirs.generation == self.record.generation && theirs.refresh == self.record.refresh;
        if moved && !ours {
            (self.record, self.noted) = (theirs, false);
            return Ok(Some(Kept::Theirs));
        }
        self.record.attributes = theirs.attributes;
        Ok(None)
    }

    /// Gives the lease back, with what it told; if the store does not answer, it runs out.
    pub(super) async fn give_back(&mut self) {
        if self.noted {
            let _ = self.write(Under::HolderReleasing).await;
        } else {
            let _ = self.of.counters.store(self.of.store.release(self.id, self.fence).await);
        }
    }

    /// Gives the lease back, however long that takes.
    pub(super) async fn give_back_surely(&mut self) {
        let (began, mut pause) = (now(), FIRST_PAUSE);
        while now().since(began) < self.of.settings.idle {
            let given = if self.noted {
                matches!(self.write(Under::HolderReleasing).await, Ok(Some(_)))
            } else {
                self.of.counters.store(self.of.store.release(self.id, self.fence).await).is_ok()
            };
            if given {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
