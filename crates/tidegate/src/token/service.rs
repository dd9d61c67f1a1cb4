//! Tokens of the client itself: for calls from service to service.
//!
//! One token for each scope, audience and resource, renewed before it ends and served to its end while that fails.
//! Alone, each process has its own; processes that share a store of sessions share them: one grant for all. Nothing is used
//! up by asking, so while the store is away each process asks for itself.
//!
//! ```
//! use std::time::Duration;
//! use tidegate::{Call, clock, token::{Grant, GrantError, ServiceKey, ServiceTokens, Settings, Tokens}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let ask = |_grant: Grant, _within: Duration| async {
//!     Ok::<_, GrantError>(Tokens::bearer("for orders").expires_in(Duration::from_secs(300)))
//! };
//! let tokens = ServiceTokens::new(ask, Settings::default())?;
//! let orders = ServiceKey::default().scope("orders");
//! let token = tokens.fresh(&orders, &Call::at(clock::now()).within(Duration::from_secs(2))).await?;
//! assert_eq!(token.expose(), "for orders");
//! # Ok(()) }
//! ```

mod asks;
mod key;

use std::{num::NonZeroU32, sync::Arc};

use tidegate_core::{
    Call, Instant,
    token::{Limits, Over},
};

use super::{
    AccessToken, Exchange, Grant, InvalidSettings, MemorySessions, Rejected, SessionId, SessionStore,
    Settings, Stats, TokenCoordinator, TokenEndpoint, TokenError, Trouble,
};
use crate::Secret;

use asks::Asks;
pub use key::ServiceKey;

/// Tokens of the client itself. Clones share them.
pub struct ServiceTokens<E: TokenEndpoint, S: SessionStore = MemorySessions>(Arc<Inner<E, S>>);

struct Inner<E: TokenEndpoint, S: SessionStore> {
    endpoint: Arc<E>,
    /// Those that all processes share.
    shared: Option<TokenCoordinator<Asks<E>, S>>,
    /// This process's own: all of them, or what it has while the store is away.
    own: TokenCoordinator<Asks<E>, MemorySessions>,
}

impl<E: TokenEndpoint, S: SessionStore> Clone for ServiceTokens<E, S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Who holds a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Shared,
    Own,
}

/// Which token a call carried, for when its upstream refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64, Place);

impl ServiceToken {
    /// What tells it from others of its name.
    pub fn mark(&self) -> Mark {
        Mark(self.generation(), self.1)
    }
}

/// An access token of the client itself.
#[derive(Debug)]
pub struct ServiceToken(AccessToken, Place);

impl std::ops::Deref for ServiceToken {
    type Target = AccessToken;

    fn deref(&self) -> &AccessToken {
        &self.0
    }
}

impl<E: TokenEndpoint> ServiceTokens<E> {
    /// Makes a keeper of tokens that has none yet, of this process alone.
    ///
    /// # Errors
    /// [`InvalidSettings`], the first one that is out of range.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(endpoint: E, settings: Settings) -> Result<Self, InvalidSettings> {
        Self::with(endpoint, settings, None)
    }
}

impl<E: TokenEndpoint, S: SessionStore> ServiceTokens<E, S> {
    /// Makes one that shares its tokens with all processes of the same store: a grant of one is everybody's. Set
    /// [`Settings::seal`], as the tokens stand there, and [`ServiceKey::client`]. With no store it is of this process alone.
    ///
    /// # Errors
    /// [`InvalidSettings`], the first one that is out of range.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn shared(
        endpoint: E,
        settings: Settings,
        store: impl Into<Option<S>>,
    ) -> Result<Self, InvalidSettings> {
        Self::with(endpoint, settings, store.into())
    }

    fn with(endpoint: E, settings: Settings, store: Option<S>) -> Result<Self, InvalidSettings> {
        // Nothing is used up by asking: an answer that is lost is asked for again, and what paces that are the backoff and
        // the endpoint's breaker, not a cooldown that would outlast the failure.
        let tries = Limits { failures: NonZeroU32::MAX, ..settings.tries };
        let settings = Settings { reuse_grace: Some(Settings::ALWAYS), tries, ..settings };
        let endpoint = Arc::new(endpoint);
        let asks = || Asks(Arc::clone(&endpoint));
        let shared = match store {
            Some(store) => Some(TokenCoordinator::new(asks(), store, settings.clone())?),
            None => None,
        };
        let settings = Settings { seal: None, ..settings };
        let own = TokenCoordinator::new(asks(), MemorySessions::default(), settings)?;
        Ok(Self(Arc::new(Inner { endpoint, shared, own })))
    }

    /// A token that is good when it is answered. Waits at most to the call's deadline, and only when none is known.
    ///
    /// # Errors
    /// [`TokenError`]; nobody can log in here, so it is never [`TokenError::LoginNeeded`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: a grant goes on, and the next call has what it brings.
    pub async fn fresh(&self, key: &ServiceKey, call: &Call) -> Result<ServiceToken, TokenError> {
        match self.at_hand(key.id(), call) {
            Some(answer) => answer,
            None => self.ask(key.id(), call, || key.presented()).await,
        }
    }

    /// The same without waiting; `None` when only waiting would tell.
    pub fn try_fresh(&self, key: &ServiceKey, call: &Call) -> Option<Result<ServiceToken, TokenError>> {
        self.at_hand(key.id(), call)
    }

    /// A token in exchange for a caller's. `id` stands for what it is exchanged for: a hash of the caller's token, and of
    /// whatever else the exchange depends on.
    ///
    /// # Errors
    /// [`TokenError`]; [`TokenError::LoginNeeded`] when the endpoint does not take the caller's token.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: a grant goes on, and the next call has what it brings.
    pub async fn exchanged(
        &self,
        id: &SessionId,
        call: &Call,
        exchange: impl FnOnce() -> Exchange,
    ) -> Result<ServiceToken, TokenError> {
        match self.at_hand(id, call) {
            Some(answer) => answer,
            None => self.ask(id, call, || key::presented(&Grant::Exchange(Box::new(exchange())))).await,
        }
    }

    /// The same without waiting; `None` when only waiting would tell.
    pub fn try_exchanged(&self, id: &SessionId, call: &Call) -> Option<Result<ServiceToken, TokenError>> {
        self.at_hand(id, call)
    }

    /// What is known, while it is good or another one is asked for anyway.
    #[inline]
    fn at_hand(&self, id: &SessionId, call: &Call) -> Option<Result<ServiceToken, TokenError>> {
        let inner = &*self.0;
        if let Some(shared) = &inner.shared {
            match known(shared, id, call, Place::Shared) {
                Some(Err(error)) if is_of_the_store(&error) => {}
                answer => return answer,
            }
        }
        known(&inner.own, id, call, Place::Own)
    }

    #[cold]
    async fn ask(
        &self,
        id: &SessionId,
        call: &Call,
        presented: impl FnOnce() -> Secret,
    ) -> Result<ServiceToken, TokenError> {
        let inner = &*self.0;
        let presented = presented();
        if let Some(shared) = &inner.shared {
            match asked(shared, id, call, &presented, Place::Shared).await {
                Err(error) if is_of_the_store(&error) => {}
                answer => return answer,
            }
        }
        let call = Call { now: crate::sync::now(), ..*call };
        asked(&inner.own, id, &call, &presented, Place::Own).await
    }

    /// An upstream says that a token is worth nothing: 401 with `invalid_token`. It is dropped, unless another one took
    /// its place already, or one was dropped a moment ago, by any process: an upstream that refuses everything must not
    /// ask for grants. `id` is what it was asked for by, as [`ServiceKey::id`].
    pub fn rejected(&self, id: &SessionId, mark: Mark, now: Instant) -> Rejected {
        let Mark(generation, place) = mark;
        match (place, &self.0.shared) {
            (Place::Shared, Some(shared)) => shared.rejected(id, generation, now),
            (Place::Shared | Place::Own, _) => self.0.own.rejected(id, generation, now),
        }
    }

    /// The token that is known by a name, however old; begins nothing.
    pub fn peek(&self, id: &SessionId) -> Option<ServiceToken> {
        let own = || self.0.own.peek(id).map(|token| ServiceToken(token, Place::Own));
        match &self.0.shared {
            Some(shared) => shared.peek(id).map(|token| ServiceToken(token, Place::Shared)).or_else(own),
            None => own(),
        }
    }

    /// The endpoint that grants.
    pub fn endpoint(&self) -> &E {
        &self.0.endpoint
    }

    /// Counts since the beginning.
    pub fn stats(&self) -> Stats {
        let own = self.0.own.stats();
        self.0.shared.as_ref().map_or(own, |shared| shared.stats().with(&own))
    }

    /// Begins no more grants. Tokens that are good are still answered. Twice is harmless.
    pub fn close(&self) {
        self.0.own.close();
        if let Some(shared) = &self.0.shared {
            shared.close();
        }
    }
}

/// Looks without waiting, and begins nothing of which nothing is known: what it begins with is not at hand.
#[inline]
fn known<E: TokenEndpoint, S: SessionStore>(
    of: &TokenCoordinator<E, S>,
    id: &SessionId,
    call: &Call,
    place: Place,
) -> Option<Result<ServiceToken, TokenError>> {
    if let Some(Ok(token)) = of.at_hand(id, call) {
        return Some(Ok(ServiceToken(token, place)));
    }
    if !of.knows(id) {
        return None;
    }
    match of.try_fresh(id, call)? {
        Ok(token) => Some(Ok(ServiceToken(token, place))),
        // It is begun anew.
        Err(TokenError::LoginNeeded(Over::Gone)) => None,
        Err(error) => Some(Err(error)),
    }
}

async fn asked<E: TokenEndpoint, S: SessionStore>(
    of: &TokenCoordinator<E, S>,
    id: &SessionId,
    call: &Call,
    presented: &Secret,
    place: Place,
) -> Result<ServiceToken, TokenError> {
    let _open = of.open(id, || presented.clone());
    let mut answer = of.fresh(id, call).await;
    if let Err(TokenError::LoginNeeded(Over::Gone)) = answer {
        // The store lost it while nobody asked.
        of.forget(id);
        answer = of.fresh(id, call).await;
    }
    match answer {
        Ok(token) => Ok(ServiceToken(token, place)),
        Err(error) => Err(error),
    }
}

fn is_of_the_store(error: &TokenError) -> bool {
    matches!(error, TokenError::Unavailable { why: Trouble::Store(_), .. })
}
