//! Access tokens that an upstream calls worthless: another one is asked for, and not more often than once in an interval
//! over all processes, as an upstream that says so of every token must not make the provider busy.

use tidegate_core::Instant;

use super::{SessionId, SessionStore, TokenEndpoint, refresher::Refresher};
use crate::keeper::WeakKeeper;

/// Sessions that are remembered for it at most; with more, all are forgotten, and some tokens are served on.
const MOST: usize = 10_000;

/// What became of a token that an upstream refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// It is dropped: the next call gets another one.
    Dropped,
    /// Another one had taken its place, or is asked for: try with that.
    Replaced,
    /// It stays: one was dropped a moment ago.
    Kept,
}

impl<E: TokenEndpoint, S: SessionStore> Refresher<E, S> {
    /// An upstream says that a token is worth nothing.
    pub(super) fn reject(&self, id: &SessionId, generation: u64, now: Instant) -> Rejected {
        let Some(known) = self.known(id) else { return Rejected::Replaced };
        if known.generation != generation {
            return Rejected::Replaced;
        }
        let apart = self.settings.rejected_apart;
        if known.rejected_at.is_some_and(|at| now.since(at) < apart) {
            return Rejected::Kept;
        }
        {
            let mut rejected = self.rejected.lock();
            if rejected.get(id).is_some_and(|before| *before >= generation) {
                return Rejected::Replaced;
            }
            if rejected.len() >= MOST {
                rejected.clear();
            }
            rejected.insert(id.clone(), generation);
        }
        if let Some(keeper) = self.keeper.get().and_then(WeakKeeper::upgrade) {
            keeper.clear(id);
        }
        Rejected::Dropped
    }

    /// Whether the access token of this generation was rejected here.
    pub(super) fn is_rejected(&self, id: &SessionId, generation: u64) -> bool {
        let mut rejected = self.rejected.lock();
        match rejected.get(id) {
            Some(of) if *of >= generation => true,
            Some(_) => {
                rejected.remove(id);
                false
            }
            None => false,
        }
    }
}
