//! One grant: sent once, waited for by callers for a while, and by itself for longer.

use std::{
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use tidegate_core::Instant;
use tokio::time::timeout;

use super::{
    Grant, GrantError, SessionStore, TokenEndpoint, Tokens,
    answer::Trouble,
    health::Asking,
    refresher::Refresher,
    run::{Early, End},
    stats::{Counters, GrantOutcome},
};
use crate::{Secret, flight::caught, sync::now};

/// What became of a grant.
pub(super) struct Asked {
    pub(super) sent_at: Instant,
    pub(super) result: Result<Tokens, GrantError>,
}

/// A grant that is out, counted.
pub(super) struct Out<'a>(&'a AtomicUsize);

impl<'a> Out<'a> {
    pub(super) fn begin(counters: &'a Counters) -> Self {
        counters.in_flight.fetch_add(1, Relaxed);
        Self(&counters.in_flight)
    }
}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl<E: TokenEndpoint, S: SessionStore> Refresher<E, S> {
    /// Asks for the tokens that follow a refresh token.
    pub(super) async fn ask(&self, refresh: Secret, asking: Asking<'_>, early: &mut Early) -> Asked {
        let _out = Out::begin(&self.counters);
        let grant = Grant::Refresh { refresh, scope: self.settings.scope.clone() };
        let asked = self.send(grant.clone(), asking, early).await;
        match (&asked.result, grant.without_scope()) {
            // Refused for its scope, it was not granted: it may be asked for once more.
            (Err(GrantError::Scope), Some(grant)) => match self.health.admit(now()) {
                Ok(asking) => self.send(grant, asking, early).await,
                Err(_) => asked,
            },
            _ => asked,
        }
    }

    async fn send(&self, grant: Grant, asking: Asking<'_>, early: &mut Early) -> Asked {
        let (sent_at, patience) = (now(), self.settings.patience());
        let limit = self.settings.limit.min(patience);
        let mut granting = pin!(caught(self.endpoint.grant(grant, patience)));
        let (answer, asking) = match timeout(limit, &mut granting).await {
            Ok(answer) => (Ok(answer), Some(asking)),
            Err(_) => {
                asking.failed();
                early.land(End::Failed(Trouble::Overdue(limit), None));
                (timeout(patience - limit, &mut granting).await, None)
            }
        };
        let result = match answer {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(GrantError::Unknown { why: panic }),
            Err(_) => {
                let why = format!("no answer within {patience:?}");
                Err(GrantError::Unknown { why: why.into() })
            }
        };
        self.learn(&result, asking).await;
        Asked { sent_at, result }
    }

    /// What an answer says of the endpoint: once for each grant, however many wait for it.
    async fn learn(&self, result: &Result<Tokens, GrantError>, asking: Option<Asking<'_>>) {
        let outcome = match (GrantOutcome::of(result), &asking) {
            (GrantOutcome::Granted, None) => GrantOutcome::Late,
            (outcome, _) => outcome,
        };
        self.counters.granted(outcome);
        match (outcome, asking) {
            (GrantOutcome::Transient | GrantOutcome::NotSent | GrantOutcome::Unknown, Some(asking)) => {
                asking.failed()
            }
            (_, Some(asking)) => asking.answered(),
            (GrantOutcome::Transient | GrantOutcome::NotSent | GrantOutcome::Unknown, None) => {}
            (_, None) => self.health.answered_late(),
        }
        if let Err(GrantError::Transient { retry_after: Some(pause), .. }) = result {
            self.rest(*pause).await;
        }
    }

    /// The endpoint wants to be left alone: here, and by all who share it.
    async fn rest(&self, pause: Duration) {
        self.health.pause(pause, now());
        self.store.pause(&self.settings.endpoint, pause).await;
    }
}
