//! Tokens of the client itself: for calls from service to service.
//!
//! One token for each scope, audience and resource, renewed before it ends and served to its end while that fails.
//! Nothing is used up by asking, so processes do not need to share them.
//!
//! ```
//! use std::time::Duration;
//! use tidegate::{Call, clock, token::{Grant, GrantError, ServiceKey, ServiceTokens, ServiceSettings, Tokens}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let ask = |_grant: Grant, _within: Duration| async {
//!     Ok::<_, GrantError>(Tokens::bearer("for orders").expires_in(Duration::from_secs(300)))
//! };
//! let tokens = ServiceTokens::new(ask, ServiceSettings::default())?;
//! let orders = ServiceKey::default().scope("orders");
//! let token = tokens.fresh(&orders, &Call::at(clock::now()).within(Duration::from_secs(2))).await?;
//! assert_eq!(token.expose(), "for orders");
//! # Ok(()) }
//! ```

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tidegate_core::{Call, Instant, Lifetime, Term};
use tokio::sync::Semaphore;

use super::{
    Grant, GrantError, InvalidSettings, Settings, TokenEndpoint, Tokens,
    answer::{TokenError, Trouble},
    ask::Out,
    coordinator::refused,
    health::Health,
    record::Granted,
    stats::{Counters, GrantOutcome, Stats},
};
use crate::{
    Secret,
    keeper::{self, Answer, Failed, Fetch, Fetched, Keeper, Kept},
    sync::{Mutex, now},
};

/// What a token is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    scope: Option<Box<str>>,
    audience: Option<Box<str>>,
    resource: Option<Box<str>>,
}

impl ServiceKey {
    /// Sets the scope to ask for.
    #[must_use]
    pub fn scope(mut self, scope: &str) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Sets whom the token is for.
    #[must_use]
    pub fn audience(mut self, audience: &str) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// Sets where the token is used (RFC 8707).
    #[must_use]
    pub fn resource(mut self, resource: &str) -> Self {
        self.resource = Some(resource.into());
        self
    }

    fn grant(&self) -> Grant {
        let Self { scope, audience, resource } = self.clone();
        Grant::ClientCredentials { scope, audience, resource }
    }
}

/// How tokens of the client itself are kept.
#[derive(Clone, Debug)]
pub struct ServiceSettings {
    /// The schedule, the bounds of grants, the backoff, and how long the endpoint is left alone.
    /// Default: renewed at 80 % to 90 % of their life.
    pub tokens: Settings,
    /// The shortest time between two tokens that are dropped because an upstream refused them. Default: 30 s.
    pub rejected_apart: Duration,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self { tokens: Settings::default(), rejected_apart: Duration::from_secs(30) }
    }
}

/// Tokens of the client itself. Clones share them.
pub struct ServiceTokens<E: TokenEndpoint>(Keeper<Service<E>>);

impl<E: TokenEndpoint> Clone for ServiceTokens<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// An access token of the client itself.
pub struct ServiceToken(Kept<ServiceKey, Held>);

struct Held {
    granted: Granted,
    term: Term,
    /// Of all tokens of this process, which one.
    number: u64,
}

impl ServiceToken {
    /// The token's text. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        self.0.granted.token.expose()
    }

    /// How it is presented, like `Bearer`.
    pub fn kind(&self) -> &str {
        &self.0.granted.kind
    }

    /// The value of an `Authorization` header.
    pub fn authorization(&self) -> Secret {
        Secret::new(format!("{} {}", self.kind(), self.expose()))
    }

    /// When it counts as over.
    pub fn expires_at(&self) -> Instant {
        self.0.term.dead_at
    }

    /// How long ago it was asked for.
    pub fn age(&self, now: Instant) -> Duration {
        self.0.term.age(now)
    }
}

impl fmt::Debug for ServiceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceToken").field("number", &self.0.number).field("term", &self.0.term).finish()
    }
}

struct Service<E> {
    endpoint: E,
    settings: Settings,
    health: Health,
    slots: Arc<Semaphore>,
    counters: Counters,
    granted: AtomicU64,
    rejected_apart: Duration,
    rejected_at: Mutex<Option<Instant>>,
}

impl<E: TokenEndpoint> ServiceTokens<E> {
    /// Makes a keeper of tokens that has none yet.
    ///
    /// # Errors
    /// [`InvalidSettings`], the first one that is out of range.
    pub fn new(endpoint: E, settings: ServiceSettings) -> Result<Self, InvalidSettings> {
        let ServiceSettings { tokens: settings, rejected_apart } = settings;
        settings.check()?;
        let keeping = settings.keeper();
        let service = Service {
            endpoint,
            health: Health::new(settings.open_for),
            slots: Arc::new(Semaphore::new(settings.grants)),
            settings,
            counters: Counters::default(),
            granted: AtomicU64::new(0),
            rejected_apart,
            rejected_at: Mutex::new(None),
        };
        let keeper = Keeper::new(service, keeping)
            .expect("what a keeper is told here is in range, as the settings are");
        Ok(Self(keeper))
    }

    /// A token that is good when it is answered. Waits at most to the call's deadline, and only when none is known.
    ///
    /// # Errors
    /// [`TokenError`]; nobody can log in here, so it is never [`TokenError::LoginNeeded`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: a grant goes on, and the next call has what it brings.
    pub async fn fresh(&self, key: &ServiceKey, call: &Call) -> Result<ServiceToken, TokenError> {
        match self.0.get(call, key).await {
            Answer::Fresh(kept) | Answer::Stale { value: kept, .. } => Ok(ServiceToken(kept)),
            Answer::Nothing { .. } => Err(refused(keeper::Refusal::Cleared)),
            Answer::Refused(refusal) => Err(refused(refusal)),
        }
    }

    /// An upstream says that a token is worth nothing: 401 with `invalid_token`. It is dropped, unless another one took
    /// its place already, or one was dropped a moment ago: an upstream that refuses everything must not ask for grants.
    pub fn rejected(&self, key: &ServiceKey, token: &ServiceToken, now: Instant) -> Rejected {
        let service = self.0.fetcher();
        if self.0.peek(key).is_none_or(|held| held.number != token.0.number) {
            return Rejected::Replaced;
        }
        let mut rejected_at = service.rejected_at.lock();
        if rejected_at.is_some_and(|at| now.since(at) < service.rejected_apart) {
            return Rejected::Kept;
        }
        *rejected_at = Some(now);
        drop(rejected_at);
        self.0.clear(key);
        Rejected::Dropped
    }

    /// Counts since the beginning.
    pub fn stats(&self) -> Stats {
        let service = self.0.fetcher();
        let keeper = self.0.stats();
        let (reach, paused_until) = (service.health.reach(), service.health.paused_until());
        service.counters.stats(0, reach, paused_until, keeper)
    }

    /// Begins no more grants. Tokens that are good are still answered. Twice is harmless.
    pub fn close(&self) {
        let service = self.0.fetcher();
        service.slots.close();
    }
}

/// What became of a token that an upstream refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// It is dropped: the next call gets another one.
    Dropped,
    /// Another one had taken its place: try with that.
    Replaced,
    /// It stays: one was dropped a moment ago.
    Kept,
}

impl<E: TokenEndpoint> Service<E> {
    async fn ask(&self, key: &ServiceKey) -> Result<(Tokens, Instant), (Trouble, Option<Duration>)> {
        let closed = |_| (Trouble::Closed, None);
        let _slot = Arc::clone(&self.slots).acquire_owned().await.map_err(closed)?;
        let sent_at = now();
        let resting = |until: Instant| (Trouble::Resting { until }, Some(until.since(sent_at)));
        let asking = self.health.admit(sent_at).map_err(resting)?;
        let _out = Out::begin(&self.counters);
        let limit = self.settings.limit;
        let granting = crate::flight::caught(self.endpoint.grant(key.grant(), limit));
        let result = match tokio::time::timeout(limit, granting).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(GrantError::Unknown { why: panic }),
            Err(_) => Err(GrantError::Unknown { why: format!("no answer within {limit:?}").into() }),
        };
        let outcome = GrantOutcome::of(&result);
        self.counters.granted(outcome);
        match outcome {
            GrantOutcome::Transient | GrantOutcome::NotSent | GrantOutcome::Unknown => asking.failed(),
            _ => asking.answered(),
        }
        let asked = match &result {
            Err(GrantError::Transient { retry_after, .. }) => *retry_after,
            _ => None,
        };
        if let Some(pause) = asked {
            self.health.pause(pause, now());
        }
        match result {
            Ok(tokens) => Ok((tokens, sent_at)),
            Err(error) => Err((Trouble::Grant(error.to_string().into()), asked)),
        }
    }
}

impl<E: TokenEndpoint> Fetch for Service<E> {
    type Key = ServiceKey;
    type Value = Held;
    type Error = Trouble;

    async fn fetch(&self, key: &ServiceKey) -> Result<Fetched<Held>, Failed<Trouble>> {
        let started = now();
        let (tokens, sent_at) = match self.ask(key).await {
            Ok(granted) => granted,
            Err((error, retry_after)) => return Err(Failed { retry_after, ..Failed::key(error) }),
        };
        let dice = tidegate_core::Dice(fastrand::u32(..));
        let term = self.settings.schedule.term(sent_at, tokens.expires_in, dice);
        let lifetime = Lifetime {
            fresh: term.due_at.since(started),
            spread: Duration::ZERO,
            valid: term.dead_at.since(started),
            stale: Duration::ZERO,
        };
        let number = self.granted.fetch_add(1, Relaxed);
        Ok(Fetched::value(Held { granted: Granted::new(&tokens, sent_at), term, number }).lifetime(lifetime))
    }
}
