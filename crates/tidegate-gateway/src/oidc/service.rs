//! The token that the gateway's calls of an upstream carry: granted once for all who need it, in all gateways that share a
//! store, renewed before it ends, and given up when the upstream says that it is invalid.

mod build;
mod grants;
mod print;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use tidegate::{
    Secret, clock,
    token::{self, GrantError, Mark, Rejected, ServiceTokens, SessionId, TokenError, Trouble},
};
use tidegate_core::Call;

pub use self::build::NoToken;
use self::grants::{Grants, Wanted, Whom};
use crate::{
    config::{self, GrantKind},
    oidc::{
        prove::{self, Prover},
        session::Kept,
    },
    state::{TokenPhase, TokenState},
    store::Store,
};

/// A token that calls carry. Clones of its `Arc` share it, over reloads too.
pub struct ServiceToken {
    name: Box<str>,
    config: config::Token,
    /// As they were read: a changed secret is another token.
    secrets: [Option<Secret>; 3],
    tokens: ServiceTokens<Grants, Kept>,
    wanted: Wanted,
    /// What proves possession of the key that the tokens are bound to, if they are.
    prover: Option<Arc<Prover>>,
    /// Where they are shared.
    store: Arc<Store>,
    dropped: AtomicU64,
    refused: AtomicU64,
}

/// Which token a call went with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    id: SessionId,
    mark: Mark,
}

/// Why a call has no token. It was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why, in words that hold nothing secret.
    pub why: Reason,
    /// When to come back, if that is known.
    pub retry_after: Option<Duration>,
}

/// Why a call has no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The provider cannot grant one now.
    Unavailable,
    /// The user's session can not be kept fresh now: its provider or its store does not answer.
    Session,
    /// The provider refuses the gateway itself.
    Misconfigured,
    /// None came within `max_wait`, or too many wait.
    Slow,
    /// The user's session was not told or refreshed within its `max_wait`, or too many wait.
    SessionSlow,
    /// The caller's own deadline passed.
    Deadline,
    /// The caller brought no token to exchange, or several.
    NoSubject,
    /// The provider does not take the caller's token.
    SubjectRefused,
}

impl Refused {
    /// What could not be had: a `session`, or a `token`.
    pub(crate) fn of(&self) -> &'static str {
        match self.why {
            Reason::Session | Reason::SessionSlow => "session",
            Reason::Unavailable
            | Reason::Misconfigured
            | Reason::Slow
            | Reason::Deadline
            | Reason::NoSubject
            | Reason::SubjectRefused => "token",
        }
    }

    /// The HTTP status of the refusal.
    pub(crate) fn status(&self) -> StatusCode {
        match self.why {
            Reason::NoSubject | Reason::SubjectRefused => StatusCode::UNAUTHORIZED,
            Reason::Deadline => StatusCode::GATEWAY_TIMEOUT,
            Reason::Unavailable
            | Reason::Session
            | Reason::Misconfigured
            | Reason::Slow
            | Reason::SessionSlow => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The gRPC status code of the refusal.
    pub(crate) fn grpc_status(&self) -> u16 {
        match self.why {
            Reason::NoSubject | Reason::SubjectRefused => 16,
            Reason::Deadline => 4,
            Reason::Unavailable
            | Reason::Session
            | Reason::Misconfigured
            | Reason::Slow
            | Reason::SessionSlow => 14,
        }
    }

    /// The refusal in words.
    pub(crate) fn detail(&self) -> &'static str {
        match self.why {
            Reason::Unavailable => {
                "the identity provider grants no token for the upstream now; the call was not sent"
            }
            Reason::Session => {
                "the user's session can not be kept fresh now, and goes on as soon as it can; the call was not sent"
            }
            Reason::Misconfigured => {
                "the identity provider refuses the gateway itself, which an operator has to mend; the call was not sent"
            }
            Reason::Slow => "no token for the upstream came in time; the call was not sent",
            Reason::SessionSlow => {
                "the user's session could not be refreshed in time, and goes on; retry shortly, the call was not sent"
            }
            Reason::Deadline => "the deadline of the call passed before there was a token for it",
            Reason::NoSubject => {
                "this call needs exactly one Authorization: Bearer TOKEN, to exchange for the upstream's; it was not sent"
            }
            Reason::SubjectRefused => {
                "the identity provider does not take the caller's token; the call was not sent"
            }
        }
    }
}

impl ServiceToken {
    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Puts the token into a call's fields, in place of what the client sent, if that needs no waiting.
    ///
    /// # Errors
    /// [`Refused`] when there surely is none.
    pub fn try_carry(&self, call: &Call, headers: &mut HeaderMap) -> Result<Option<Carried>, Refused> {
        let (answer, id) = match self.whom(headers)? {
            Whom::Own => {
                let Some(key) = self.wanted.own() else { return Ok(None) };
                (self.tokens.try_fresh(key, call), key.id().clone())
            }
            Whom::Caller(id, _) => (self.tokens.try_exchanged(&id, call), id),
        };
        answer.map(|answer| self.put(answer, id, headers)).transpose()
    }

    /// As [`Self::try_carry`], and waits for a grant: at most for `max_wait`, and to the call's deadline.
    ///
    /// # Errors
    /// [`Refused`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: a grant under way goes on, for those who come after.
    pub async fn carry(&self, call: &Call, headers: &mut HeaderMap) -> Result<Carried, Refused> {
        let patient = call.within(*self.config.max_wait);
        let (answer, id) = match (self.whom(headers)?, self.wanted.own()) {
            (Whom::Caller(id, subject), _) => {
                let exchange = || self.wanted.exchange(subject);
                (self.tokens.exchanged(&id, &patient, exchange).await, id)
            }
            (Whom::Own, Some(key)) => (self.tokens.fresh(key, &patient).await, key.id().clone()),
            (Whom::Own, None) => return Err(self.refuse(Reason::NoSubject, None)),
        };
        let own_deadline = call.deadline.is_some_and(|deadline| deadline <= clock::now());
        self.put(answer, id, headers).map_err(|refused| match refused.why {
            Reason::Slow if own_deadline => Refused { why: Reason::Deadline, ..refused },
            _ => refused,
        })
    }

    /// Has a call that carries the token prove possession of the key that it is bound to, if it is; what the client proved goes.
    pub fn prove<B>(&self, request: &mut Request<B>) {
        prove::forget(request);
        if let Some(prover) = &self.prover {
            prover.begin(request);
        }
    }

    /// The upstream says that the token is invalid: the next call gets another one. Not more often than
    /// `rejected_interval`, as an upstream that says so of every token would make the provider busy for nothing.
    pub fn rejected(&self, carried: &Carried) {
        match self.tokens.rejected(&carried.id, carried.mark, clock::now()) {
            Rejected::Dropped => {
                self.dropped.fetch_add(1, Relaxed);
                tracing::info!(token = %self.name, "the upstream says that the token is invalid; the next call gets another one");
            }
            Rejected::Replaced | Rejected::Kept => {}
        }
    }

    /// Grants a token before anybody asks, and keeps it fresh, as calls would. Ends at once.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn warm(&self) {
        let Some(key) = self.wanted.own().cloned() else { return };
        let (tokens, wait) = (self.tokens.clone(), *self.config.max_wait);
        tokio::spawn(async move {
            // What it came to is told to the first call.
            let _ = tokens.fresh(&key, &Call::at(clock::now()).within(wait)).await;
        });
    }

    fn whom(&self, headers: &HeaderMap) -> Result<Whom, Refused> {
        self.wanted.whom(headers).map_err(|why| self.refuse(why, None))
    }

    fn put(
        &self,
        answer: Result<token::ServiceToken, TokenError>,
        id: SessionId,
        headers: &mut HeaderMap,
    ) -> Result<Carried, Refused> {
        let token = answer.map_err(|error| {
            let (why, retry_after) = reason(&error, self.config.grant);
            self.refuse(why, retry_after)
        })?;
        let value = token.header().expect("an access token that was read is visible ASCII");
        headers.insert(header::AUTHORIZATION, value);
        Ok(Carried { id, mark: token.mark() })
    }

    fn refuse(&self, why: Reason, retry_after: Option<Duration>) -> Refused {
        self.refused.fetch_add(1, Relaxed);
        Refused { why, retry_after }
    }

    /// What it is doing now. Nothing of a token is in it.
    pub fn state(&self) -> TokenState {
        let now = clock::now();
        let (grants, stats) = (self.tokens.endpoint(), self.tokens.stats());
        let kept = self.wanted.own().and_then(|key| self.tokens.peek(key.id()));
        let life = kept.as_ref().map(|token| token.expires_at().since(now));
        let failing = grants.failing();
        let phase = match (life, &failing) {
            (Some(life), None) if !life.is_zero() => TokenPhase::Fresh,
            (Some(life), Some(_)) if !life.is_zero() => TokenPhase::Ending,
            (_, Some(_)) => TokenPhase::Failing,
            (_, None) => TokenPhase::None,
        };
        TokenState {
            name: self.name.to_string(),
            issuer: self.config.issuer.clone(),
            grant: self.config.grant.as_str(),
            state: phase,
            expires_in_seconds: life.map(|life| life.as_secs_f64()),
            keys: stats.keeper.keys as u64,
            waiting: stats.keeper.waiting as u64,
            grants: grants.outcomes(),
            rejected: self.dropped.load(Relaxed),
            refused: self.refused.load(Relaxed),
            last_error: failing,
            clock_ahead_seconds: grants.clock_ahead(),
            dpop: self.prover.as_ref().map(|prover| prover.state()),
        }
    }
}

/// What it means for a call that there is no token.
fn reason(error: &TokenError, grant: GrantKind) -> (Reason, Option<Duration>) {
    match error {
        // Only an exchange presents something of the caller's.
        TokenError::LoginNeeded(_) => match grant {
            GrantKind::ClientCredentials => (Reason::Misconfigured, None),
            GrantKind::TokenExchange => (Reason::SubjectRefused, None),
        },
        TokenError::Unavailable { why, retry_after } => {
            let reason = match why {
                Trouble::Grant(GrantError::Misconfigured { .. } | GrantError::Scope) => Reason::Misconfigured,
                _ => Reason::Unavailable,
            };
            (reason, Some(*retry_after))
        }
        _ => (Reason::Slow, None),
    }
}

/// Whether an answer says that the token it was sent is invalid (RFC 6750 §3.1).
pub fn says_invalid_token(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::UNAUTHORIZED
        && headers.get_all(header::WWW_AUTHENTICATE).iter().any(|challenge: &HeaderValue| {
            let text = String::from_utf8_lossy(challenge.as_bytes());
            text.contains("error=\"invalid_token\"") || text.contains("error=invalid_token")
        })
}

impl fmt::Debug for ServiceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceToken").field("name", &self.name).finish_non_exhaustive()
    }
}
