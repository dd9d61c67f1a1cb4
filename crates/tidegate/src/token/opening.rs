//! Sessions that need no login: they begin when they are asked for, with what is presented for their tokens.

use std::{collections::HashMap, sync::Arc};

use tidegate_core::{Instant, token::Tries};

use super::{
    SessionId, SessionStore, SessionStoreError, TokenEndpoint,
    record::{Granted, Record},
    refresher::Refresher,
    store::Stored,
};
use crate::{
    Secret,
    sync::{Mutex, now},
};

/// What sessions begin with, for as long as somebody asks for them.
#[derive(Default)]
pub(super) struct Openings(Mutex<HashMap<SessionId, Opening>>);

struct Opening {
    presented: Secret,
    asking: usize,
}

impl Openings {
    /// Has a session begin, if it is not there, for as long as what is returned is held.
    pub(super) fn open(self: &Arc<Self>, id: &SessionId, presented: impl FnOnce() -> Secret) -> Open {
        let mut openings = self.0.lock();
        openings.entry(id.clone()).or_insert_with(|| Opening { presented: presented(), asking: 0 }).asking +=
            1;
        Open(Arc::clone(self), id.clone())
    }

    /// Whether somebody here asks for a session that begins so.
    pub(super) fn has(&self, id: &SessionId) -> bool {
        self.0.lock().contains_key(id)
    }

    fn of(&self, id: &SessionId) -> Option<Secret> {
        self.0.lock().get(id).map(|opening| opening.presented.clone())
    }

    fn left(&self, id: &SessionId) {
        let mut openings = self.0.lock();
        if let Some(opening) = openings.get_mut(id) {
            opening.asking -= 1;
            if opening.asking == 0 {
                openings.remove(id);
            }
        }
    }
}

/// Somebody asks for a session.
pub(super) struct Open(Arc<Openings>, SessionId);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.left(&self.1);
    }
}

impl<E: TokenEndpoint, S: SessionStore> Refresher<E, S> {
    /// Begins a session that is not in the store, if that is its way; `None`: it is not.
    pub(super) async fn begin_unasked(&self, id: &SessionId) -> Result<Option<Stored>, SessionStoreError> {
        let Some(presented) = self.openings.of(id) else { return Ok(None) };
        let record = Record {
            born: fastrand::u64(..),
            generation: 1,
            // There is none yet: it was over long ago.
            access: Granted::new(&super::Tokens::bearer(""), Instant::EPOCH),
            pending: None,
            refresh: Some(presented),
            refresh_until: Instant::NEVER,
            identity: None,
            attributes: Box::default(),
            unknown_since: None,
            over: None,
            ends_at: Instant::NEVER,
            tries: Tries::default(),
            rejected_at: None,
        };
        let bytes = record.write(id, 1, self.settings.seal.as_deref(), now());
        let created = self.store.create(id, bytes, self.settings.idle).await;
        self.counters.store(created)?;
        // Ours, or that of who was quicker.
        self.counters.store(self.store.read(id, None).await)
    }
}
