//! A session whose lease this process holds: ask, store what was granted before anything else can go wrong, verify,
//! give the lease back.

mod keep;

use std::{sync::Arc, time::Duration};

use tidegate_core::{
    Instant,
    token::{Blame, Over},
};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use self::keep::Kept;
use super::{
    GrantError, SessionId, SessionStore, TokenEndpoint, Tokens, VerifyError,
    answer::{Origin, Trouble},
    ask::Asked,
    record::{Record, Verify},
    refresher::{Assessed, Refresher},
    run::{Early, End},
    stats::{GrantOutcome, count},
    store::{Fence, Phase, Stored, Under},
    tenure::Tenure,
};
use crate::{flight::caught, sync::now};

pub(super) struct Hold<'a, E: TokenEndpoint, S: SessionStore> {
    pub(super) of: &'a Arc<Refresher<E, S>>,
    pub(super) id: &'a SessionId,
    pub(super) fence: Fence,
    record: Record,
    /// The version the record was made from.
    version: u64,
    /// The generation that stood there when the lease was taken.
    base: u64,
    /// Whether the record says more than the store does.
    noted: bool,
}

impl<'a, E: TokenEndpoint, S: SessionStore> Hold<'a, E, S> {
    pub(super) fn new(
        of: &'a Arc<Refresher<E, S>>,
        id: &'a SessionId,
        fence: Fence,
        stored: &Stored,
        orphan: Option<Duration>,
        asked_at: Instant,
    ) -> Result<Self, Trouble> {
        let mut record = of.record(id, stored, asked_at)?;
        if let Some(ago) = orphan {
            // Whoever held the lease before sent a grant and died: nobody knows what became of it.
            count(&of.counters.orphans);
            record.unknown_since.get_or_insert(asked_at - ago);
        }
        let mut noted = orphan.is_some();
        if let Some(known) = of.known(id).filter(|known| known.follows(&record)) {
            // The store forgot: a server was replaced by one that had not heard of it. What it has is used up.
            count(&of.counters.forgotten);
            (record, noted) = ((*known).clone(), true);
        }
        let base = record.generation;
        Ok(Self { of, id, fence, record, version: stored.version, base, noted })
    }

    fn assess(&self, origin: Origin) -> Assessed {
        self.of.assess(self.id, &self.record, self.version, origin, now())
    }

    /// What is told of the record as it is now.
    fn told(&self, origin: Origin) -> End {
        match self.assess(origin) {
            Assessed::Tell(found) | Assessed::Refresh(Some(found)) | Assessed::Verify(Some(found)) => {
                End::Found(found)
            }
            Assessed::Barred(trouble) => {
                let after = trouble.retry_after(now());
                End::Failed(trouble, after)
            }
            Assessed::Refresh(None) | Assessed::Verify(None) => End::Failed(Trouble::Stillborn, None),
        }
    }

    /// Whether a grant whose answer was lost may still be repeated. The endpoint takes the same refresh token again, but
    /// not for long: whoever comes next may come too late.
    pub(super) fn is_urgent(&self) -> bool {
        self.of.settings.repeats_in_time()
            && self.record.unknown_since.is_some()
            && matches!(self.assess(Origin::Shared), Assessed::Refresh(_))
    }

    /// Refreshes the session, if that is still due. `None`: it is to be tried anew, because the lease was lost before
    /// anything was sent, or what was verified is over by now.
    pub(super) async fn refresh(&mut self, slot: OwnedSemaphorePermit, early: &mut Early) -> Option<End> {
        match self.assess(Origin::Shared) {
            Assessed::Tell(found) => {
                self.give_back().await;
                count(&self.of.counters.shared);
                return Some(End::Found(found));
            }
            Assessed::Barred(trouble) => {
                self.give_back().await;
                let after = trouble.retry_after(now());
                return Some(End::Failed(trouble, after));
            }
            Assessed::Verify(_) => {
                drop(slot);
                let _tenure = Tenure::begin(self.of, self.id, self.fence);
                return self.verify(early).await;
            }
            Assessed::Refresh(_) => {}
        }
        let Some(refresh) = self.record.refresh.clone() else {
            self.give_back().await;
            return Some(self.told(Origin::Shared));
        };
        let asking = match self.of.health.admit(now()) {
            Ok(asking) => asking,
            Err(until) => {
                self.give_back().await;
                count(&self.of.counters.held_back);
                return Some(End::Failed(Trouble::Resting { until }, Some(until.since(now()))));
            }
        };
        let life = self.of.settings.lease;
        match self.of.counters.store(self.of.store.renew(self.id, self.fence, life, Phase::Sent).await) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                drop((asking, slot));
                // The store may have noted that a grant was sent, and none was: that must not stay.
                early.land(End::Failed(Trouble::Store(error.clone()), None));
                self.give_back_surely().await;
                return Some(End::Failed(Trouble::Store(error), None));
            }
        }
        let tenure = Tenure::begin(self.of, self.id, self.fence);
        let asked = self.of.ask(refresh, asking, early).await;
        drop(slot);
        let end = self.settle(asked, early).await;
        drop(tenure);
        Some(end)
    }

    async fn settle(&mut self, asked: Asked, early: &mut Early) -> End {
        let Asked { sent_at, result } = asked;
        let error = match result {
            Ok(tokens) => return self.granted(tokens, sent_at, early).await,
            Err(error) => error,
        };
        let said = End::Failed(Trouble::grant(&error), error.retry_after());
        let mut got = None;
        let (limits, now) = (self.of.settings.tries, now());
        let failed = |record: &mut Record, blame| record.tries = record.tries.failed(blame, &limits, now);
        match error {
            GrantError::Terminal { .. } => return self.refused(early).await,
            GrantError::NotSent { .. } => {
                early.land(said.clone());
                self.give_back_surely().await;
                return said;
            }
            GrantError::Scope | GrantError::Misconfigured { .. } => failed(&mut self.record, Blame::Session),
            GrantError::Transient { .. } => failed(&mut self.record, Blame::Endpoint),
            GrantError::Unknown { .. } => {
                failed(&mut self.record, Blame::Endpoint);
                self.record.unknown_since.get_or_insert(sent_at);
            }
            GrantError::Protocol { refresh, .. } => {
                failed(&mut self.record, Blame::Session);
                match refresh {
                    // Granted, and the rest of the answer is lost: the next grant takes the new refresh token.
                    Some(refresh) => {
                        got = Some(Tokens { refresh: Some(refresh.clone()), ..Tokens::bearer("") });
                        self.record.refresh = Some(refresh);
                        self.record.refresh_until = Instant::NEVER;
                        self.record.unknown_since = None;
                        self.record.generation += 1;
                    }
                    None => {
                        self.record.unknown_since.get_or_insert(sent_at);
                    }
                }
            }
        }
        if self.of.settings.repeats_always() {
            self.record.unknown_since = None;
        }
        match self.keep(Under::AnybodyReleasing, Some(&said), early).await {
            Kept::Stored if self.record.unknown_since.is_some() => match self.assess(Origin::Shared) {
                Assessed::Tell(found) => End::Found(found),
                Assessed::Refresh(_) | Assessed::Verify(_) | Assessed::Barred(_) => said,
            },
            Kept::Stored => said,
            Kept::Theirs => self.told(Origin::Shared),
            Kept::Gone => match got {
                Some(tokens) => self.revoke(tokens, self.gone(), early).await,
                None => self.gone(),
            },
        }
    }

    /// New tokens: stored first, verified after.
    async fn granted(&mut self, tokens: Tokens, sent_at: Instant, early: &mut Early) -> End {
        let verifies = self.of.endpoint.verifies();
        if self.of.is_rejected(self.id, self.base) {
            self.record.rejected_at = Some(sent_at);
        }
        let verify = if verifies { Verify::Later } else { Verify::No };
        self.record.take(&tokens, sent_at, verify);
        let (under, meanwhile) = if verifies {
            (Under::Anybody, None)
        } else {
            (Under::AnybodyReleasing, Some(self.told(Origin::Unstored)))
        };
        match self.keep(under, meanwhile.as_ref(), early).await {
            Kept::Stored if verifies => match self.verify(early).await {
                Some(end) => end,
                None => self.told(Origin::Granted),
            },
            Kept::Stored => self.told(Origin::Granted),
            Kept::Theirs => {
                self.give_back().await;
                self.told(Origin::Shared)
            }
            Kept::Gone => {
                // Logged out meanwhile: what was got is given up, so that nobody can use it.
                self.revoke(tokens, self.gone(), early).await
            }
        }
    }

    /// Verifies what was granted. `None`: it is over by now, and its successor is to be asked for.
    async fn verify(&mut self, early: &mut Early) -> Option<End> {
        let Some(pending) = self.record.pending.clone() else { return Some(self.told(Origin::Shared)) };
        let tokens = Tokens {
            access: pending.token.clone(),
            kind: pending.kind.clone(),
            expires_in: pending.life,
            refresh: self.record.refresh.clone(),
            refresh_expires_in: None,
            id: pending.id.clone(),
            scope: pending.scope.clone(),
        };
        let limit = self.of.settings.limit;
        let verifying = self.of.endpoint.verify(&tokens, self.record.identity.as_ref());
        let verified = match timeout(limit, caught(verifying)).await {
            Ok(Ok(verified)) => verified,
            Ok(Err(panic)) => Err(VerifyError::Unavailable { why: panic }),
            Err(_) => Err(VerifyError::Unavailable { why: format!("it took longer than {limit:?}").into() }),
        };
        let error = match verified {
            Ok(identity) => {
                self.record.identity = identity.or(self.record.identity.take());
                self.record.accept(pending);
                let meanwhile = self.told(Origin::Unstored);
                return match self.keep(Under::AnybodyReleasing, Some(&meanwhile), early).await {
                    Kept::Stored if matches!(self.assess(Origin::Granted), Assessed::Refresh(None)) => None,
                    Kept::Stored => Some(self.told(Origin::Granted)),
                    Kept::Theirs => Some(self.told(Origin::Shared)),
                    Kept::Gone => Some(self.revoke(tokens, self.gone(), early).await),
                };
            }
            Err(error) => error,
        };
        let failed = End::Failed(Trouble::Unverified(error.clone()), None);
        match error {
            VerifyError::Unavailable { .. } => {
                self.give_back().await;
                return Some(failed);
            }
            VerifyError::Invalid { .. } => {
                self.of.counters.granted(GrantOutcome::Protocol);
                self.record.pending = None;
                self.record.tries = self.record.tries.failed(Blame::Session, &self.of.settings.tries, now());
            }
            VerifyError::Mismatch { .. } => {
                count(&self.of.counters.mismatches);
                (self.record.pending, self.record.refresh) = (None, None);
                self.record.over = Some(Over::Mismatch);
            }
        }
        let mismatch = self.record.over.is_some();
        Some(match self.keep(Under::AnybodyReleasing, Some(&failed), early).await {
            Kept::Stored if mismatch => self.revoke(tokens, self.told(Origin::Granted), early).await,
            Kept::Stored => failed,
            Kept::Theirs => self.told(Origin::Shared),
            Kept::Gone => self.gone(),
        })
    }

    /// The endpoint takes the refresh token for worth nothing: so it is, unless the session has another one by now.
    async fn refused(&mut self, early: &mut Early) -> End {
        self.record.over = Some(Over::Refused);
        let meanwhile = self.told(Origin::Shared);
        match self.keep(Under::AnybodyReleasing, Some(&meanwhile), early).await {
            Kept::Stored => {
                count(&self.of.counters.over);
                self.told(Origin::Shared)
            }
            Kept::Theirs => self.told(Origin::Shared),
            Kept::Gone => self.gone(),
        }
    }

    fn gone(&self) -> End {
        End::Found(self.of.gone())
    }

    /// Gives up tokens that must not be used. Nobody waits for that.
    async fn revoke(&self, tokens: Tokens, end: End, early: &mut Early) -> End {
        early.land(end.clone());
        count(&self.of.counters.revoked);
        let _ = timeout(self.of.settings.limit, caught(self.of.endpoint.revoke(tokens))).await;
        end
    }
}
