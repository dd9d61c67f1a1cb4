//! Streams of a session: an event stream or a WebSocket lives for as long as the session does. While it lives the session is
//! used.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tidegate::{
    clock,
    token::{SessionId, TokenError},
};
use tidegate_core::{Call, Instant};
use tokio::task::AbortHandle;

use super::{Session, User};

/// How often a stream looks whether its session is still good: it ends at most so long after that is known here.
/// Default: 1 s.
const EVERY: Duration = Duration::from_secs(1);

/// Whether the session of a stream is still good.
pub struct Watched {
    session: Arc<Session>,
    id: SessionId,
    next: Instant,
    over: Arc<AtomicBool>,
    looking: Option<AbortHandle>,
}

impl Session {
    /// Watches the session of a stream that begins.
    pub fn watch(self: &Arc<Self>, id: SessionId) -> Watched {
        let over = Arc::<AtomicBool>::default();
        Watched { session: Arc::clone(self), id, next: clock::now() + EVERY, over, looking: None }
    }
}

impl User {
    /// The session that it came by.
    pub fn session(&self) -> &SessionId {
        &self.id
    }
}

impl Watched {
    /// Whether the session is over: its user logged out, the provider ended it, it became too old, or a refresh brought
    /// somebody else's tokens. What cannot be told now, as a store or a provider is away, ends nothing.
    pub fn is_over(&mut self, now: Instant) -> bool {
        if now >= self.next {
            self.next = now + EVERY;
            match self.session.coordinator.try_fresh(&self.id, &Call::at(now)) {
                Some(Err(TokenError::LoginNeeded(_))) => self.over.store(true, Relaxed),
                Some(_) => {}
                None => self.look(now),
            }
        }
        self.over.load(Relaxed)
    }

    /// Looks for what only waiting tells, one look at a time.
    fn look(&mut self, now: Instant) {
        if self.looking.as_ref().is_some_and(|looking| !looking.is_finished()) {
            return;
        }
        let (session, id, over) = (Arc::clone(&self.session), self.id.clone(), Arc::clone(&self.over));
        let call = Call::at(now).within(*session.config.max_wait);
        let looking = tokio::spawn(async move {
            if let Err(TokenError::LoginNeeded(_)) = session.coordinator.fresh(&id, &call).await {
                over.store(true, Relaxed);
            }
        });
        self.looking = Some(looking.abort_handle());
    }

    /// Returns when the session is over.
    ///
    /// # Cancel safety
    /// Dropping the future ends the watching.
    pub async fn over(mut self) {
        while !self.is_over(clock::now()) {
            tokio::time::sleep(EVERY).await;
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(looking) = &self.looking {
            looking.abort();
        }
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("session", &self.session)
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}
