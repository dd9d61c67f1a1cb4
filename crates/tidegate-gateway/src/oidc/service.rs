//! The token that the gateway's calls of an upstream carry: granted once for all who need it, renewed before it ends, and
//! given up when the upstream says that it is invalid.

mod build;
mod grants;

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use tidegate::{
    Secret, clock,
    keeper::{Answer, Keeper, Kept, Refusal, Why},
    token::GrantError,
};
use tidegate_core::{Call, Instant};

pub use self::build::NoToken;
use self::grants::{Access, Grants, Subject};
use crate::{
    config::{self, GrantKind},
    state::{TokenPhase, TokenState},
};

/// A token that calls carry. Clones of its `Arc` share it, over reloads too.
pub struct ServiceToken {
    name: Box<str>,
    config: config::Token,
    /// As they were read: a changed secret is another token.
    secrets: [Option<Secret>; 2],
    keeper: Keeper<Grants>,
    /// When the last token was given up.
    dropped_at: Mutex<Option<Instant>>,
    dropped: AtomicU64,
    refused: AtomicU64,
}

/// Which token a call went with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    serial: u64,
    subject: Subject,
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
    /// The caller's own deadline passed.
    Deadline,
    /// The caller brought no token to exchange, or several.
    NoSubject,
    /// The provider does not take the caller's token.
    SubjectRefused,
}

impl Refused {
    /// The HTTP status of the refusal.
    pub(crate) fn status(&self) -> StatusCode {
        match self.why {
            Reason::NoSubject | Reason::SubjectRefused => StatusCode::UNAUTHORIZED,
            Reason::Deadline => StatusCode::GATEWAY_TIMEOUT,
            Reason::Unavailable | Reason::Session | Reason::Misconfigured | Reason::Slow => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// The gRPC status code of the refusal.
    pub(crate) fn grpc_status(&self) -> u16 {
        match self.why {
            Reason::NoSubject | Reason::SubjectRefused => 16,
            Reason::Deadline => 4,
            Reason::Unavailable | Reason::Session | Reason::Misconfigured | Reason::Slow => 14,
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
        let key = self.key(headers)?;
        match self.keeper.try_get(call, &key) {
            Some(answer) => self.put(answer, key.subject(), headers).map(Some),
            None => Ok(None),
        }
    }

    /// As [`Self::try_carry`], and waits for a grant: at most for `max_wait`, and to the call's deadline.
    ///
    /// # Errors
    /// [`Refused`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: a grant under way goes on, for those who come after.
    pub async fn carry(&self, call: &Call, headers: &mut HeaderMap) -> Result<Carried, Refused> {
        let key = self.key(headers)?;
        let patient = call.within(*self.config.max_wait);
        let mut answer = self.keeper.get(&patient, &key).await;
        if let Answer::Refused(Refusal::Cleared) = answer {
            // It was given up while it was granted: the next one is as good.
            answer = self.keeper.get(&patient, &key).await;
        }
        let own_deadline = call.deadline.is_some_and(|deadline| deadline <= clock::now());
        self.put(answer, key.subject(), headers).map_err(|refused| match refused.why {
            Reason::Slow if own_deadline => Refused { why: Reason::Deadline, ..refused },
            _ => refused,
        })
    }

    /// The upstream says that the token is invalid: the next call gets another one. Not more often than
    /// `rejected_interval`, as an upstream that says so of every token would make the provider busy for nothing.
    pub fn rejected(&self, carried: Carried) {
        let now = clock::now();
        let key = carried.subject.key();
        let current = self.keeper.peek(&key).is_some_and(|kept| kept.version() == carried.serial);
        if !current {
            return;
        }
        let mut dropped_at = self.dropped_at.lock();
        let interval = *self.config.rejected_interval;
        if dropped_at.is_some_and(|at| now < at + interval) {
            return;
        }
        *dropped_at = Some(now);
        drop(dropped_at);
        self.keeper.clear(&key);
        self.dropped.fetch_add(1, Relaxed);
        tracing::info!(token = %self.name, "the upstream says that the token is invalid; the next call gets another one");
    }

    /// Grants a token before anybody asks, and keeps it fresh, as calls would. Ends at once.
    pub fn warm(&self) {
        if let Some(key) = self.keeper.fetcher().own_key() {
            self.keeper.try_get(&Call::at(clock::now()), &key);
        }
    }

    fn key(&self, headers: &HeaderMap) -> Result<grants::Key, Refused> {
        self.keeper.fetcher().key(headers).map_err(|why| self.refuse(why, None))
    }

    fn put(
        &self,
        answer: Answer<grants::Key, Access, GrantError>,
        subject: Subject,
        headers: &mut HeaderMap,
    ) -> Result<Carried, Refused> {
        let kept: Kept<grants::Key, Access> = match answer {
            Answer::Fresh(kept) | Answer::Stale { value: kept, .. } => kept,
            Answer::Nothing { .. } => return Err(self.refuse(Reason::Unavailable, None)),
            Answer::Refused(refusal) => {
                let (why, retry_after) = reason(&refusal, self.config.grant);
                return Err(self.refuse(why, retry_after));
            }
        };
        headers.insert(header::AUTHORIZATION, kept.value.clone());
        Ok(Carried { serial: kept.version(), subject })
    }

    fn refuse(&self, why: Reason, retry_after: Option<Duration>) -> Refused {
        self.refused.fetch_add(1, Relaxed);
        Refused { why, retry_after }
    }

    /// What it is doing now. Nothing of a token is in it.
    pub fn state(&self) -> TokenState {
        let now = clock::now();
        let grants = self.keeper.fetcher();
        let kept = grants.own_key().and_then(|key| self.keeper.peek(&key));
        let life = kept.as_ref().map(|kept| kept.ends.since(now));
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
            keys: self.keeper.stats().keys as u64,
            waiting: self.keeper.stats().waiting as u64,
            grants: grants.outcomes(),
            rejected: self.dropped.load(Relaxed),
            refused: self.refused.load(Relaxed),
            last_error: failing,
            clock_ahead_seconds: grants.clock_ahead(),
        }
    }
}

/// What a refusal of the keeper means for a call.
fn reason(refusal: &Refusal<GrantError>, grant: GrantKind) -> (Reason, Option<Duration>) {
    match refusal {
        Refusal::Failing { why, retry_after } => {
            let reason = match why {
                Why::Failed(GrantError::Misconfigured { .. } | GrantError::Scope) => Reason::Misconfigured,
                // Only an exchange presents something of the caller's.
                Why::Failed(GrantError::Terminal { .. }) => match grant {
                    GrantKind::ClientCredentials => Reason::Misconfigured,
                    GrantKind::TokenExchange => Reason::SubjectRefused,
                },
                Why::Failed(_) | Why::TimedOut(_) | Why::Panicked(_) | Why::Lost => Reason::Unavailable,
            };
            (reason, Some(*retry_after))
        }
        Refusal::Throttled { retry_after } => (Reason::Unavailable, Some(*retry_after)),
        Refusal::Deadline | Refusal::Full => (Reason::Slow, None),
        Refusal::Cleared => (Reason::Unavailable, None),
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
