//! What a coordinator answers: a token that says where it is from, or why there is none and what to do about it.

use std::{fmt, sync::Arc, time::Duration};

use http::HeaderValue;
use tidegate_core::{
    Freshness, Instant, Term,
    token::{Blame, Over},
};

use super::{
    GrantError, Identity, LONGEST_PAUSE, SessionId, SessionStoreError, VerifyError, record::Record,
    seal::Unreadable,
};
use crate::{Secret, keeper::Kept};

/// An access token to present. It stays what it was while it is held; ask again for every call.
pub struct AccessToken(Kept<SessionId, Known>);

/// What is known of a session.
#[derive(Clone, Debug)]
pub(super) enum Known {
    Good(Good),
    Over(Over),
}

/// An access token that is served.
#[derive(Clone)]
pub(super) struct Good {
    /// All that is known of the session, so that a store that forgot can be told.
    pub(super) record: Arc<Record>,
    /// The version of the record in the store.
    pub(super) version: u64,
    pub(super) term: Term,
    pub(super) origin: Origin,
    pub(super) serving_out: Option<Over>,
}

impl fmt::Debug for Good {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { record, version, term, origin, serving_out } = self;
        f.debug_struct("Good")
            .field("generation", &record.generation)
            .field("version", version)
            .field("term", term)
            .field("origin", origin)
            .field("serving_out", serving_out)
            .finish_non_exhaustive()
    }
}

/// Who got a token from the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// This process asked for it.
    Granted,
    /// It stood in the store: a login, or another process asked for it.
    Shared,
    /// This process asked for it, and it could not be stored yet.
    Unstored,
}

/// Where a token is from and how good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// Who got it.
    pub origin: Origin,
    /// Fresh; or due, while another one is asked for.
    pub freshness: Freshness,
    /// How long ago it was asked for.
    pub age: Duration,
    /// Why it is the last one, if it is.
    pub last: Option<Over>,
}

impl AccessToken {
    #[inline]
    pub(super) fn new(kept: Kept<SessionId, Known>) -> Result<Self, Over> {
        match &*kept {
            Known::Good(_) => Ok(Self(kept)),
            Known::Over(over) => Err(*over),
        }
    }

    fn record(&self) -> &Record {
        &self.good().record
    }

    fn good(&self) -> &Good {
        match &*self.0 {
            Known::Good(good) => good,
            Known::Over(_) => unreachable!("only what is good is made an AccessToken"),
        }
    }

    /// The token's text. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        self.record().access.token.expose()
    }

    /// How it is presented, like `Bearer`.
    pub fn kind(&self) -> &str {
        &self.record().access.kind
    }

    /// The value of an `Authorization` header.
    pub fn authorization(&self) -> Secret {
        Secret::new(format!("{} {}", self.kind(), self.expose()))
    }

    /// The same, marked as a secret and made once for all who ask; `None`: it has characters that no field may have.
    pub fn header(&self) -> Option<HeaderValue> {
        self.record().access.header().cloned()
    }

    /// The scope that was granted, where the endpoint said it.
    pub fn scope(&self) -> Option<&str> {
        self.record().access.scope.as_deref()
    }

    /// The last ID token of the session, as a hint for its end.
    pub fn id_token(&self) -> Option<&Secret> {
        self.record().access.id.as_ref()
    }

    /// When it counts as over.
    pub fn expires_at(&self) -> Instant {
        self.good().term.dead_at
    }

    /// Who the session belongs to, if tokens are verified.
    pub fn identity(&self) -> Option<&Identity> {
        self.record().identity.as_ref()
    }

    /// What the session was begun with.
    pub fn attributes(&self) -> &str {
        &self.record().attributes
    }

    /// How often tokens were granted in this session.
    pub fn generation(&self) -> u64 {
        self.record().generation
    }

    /// Where it is from and how good it is.
    pub fn provenance(&self, now: Instant) -> Provenance {
        let Good { origin, term, serving_out, .. } = self.good();
        Provenance { origin: *origin, freshness: term.at(now), age: term.age(now), last: *serving_out }
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AccessToken").field(self.good()).finish()
    }
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenError {
    /// The user has to log in.
    LoginNeeded(Over),
    /// There is none now; the session goes on.
    Unavailable {
        /// Why.
        why: Trouble,
        /// When to come back.
        retry_after: Duration,
    },
    /// The caller's deadline passed. The grant goes on, and the next call has what it brings.
    Deadline,
    /// Too many wait, or too many sessions are being refreshed.
    Full,
}

impl TokenError {
    /// When to come back, where that is known and may help.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => Some(*retry_after),
            Self::LoginNeeded(_) | Self::Deadline | Self::Full => None,
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoginNeeded(over) => write!(f, "the session is over ({}): log in again", over.as_str()),
            Self::Unavailable { why, retry_after } => {
                write!(f, "no access token now: {why}; retry after {retry_after:?}")
            }
            Self::Deadline => f.write_str("the deadline passed before there was an access token"),
            Self::Full => f.write_str("too many wait for access tokens; retry later"),
        }
    }
}

impl std::error::Error for TokenError {}

/// What keeps a token from being refreshed. Nothing in it is of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// The store could not be asked, so that nobody knows who refreshes.
    Store(SessionStoreError),
    /// What stands in the store cannot be read.
    Record(Unreadable),
    /// The endpoint did not grant.
    Grant(GrantError),
    /// It granted an access token that was over when it came.
    Stillborn,
    /// The endpoint is left alone after failures, or because it asked for that.
    Resting {
        /// Until when, as far as is known.
        until: Instant,
    },
    /// Too many grants of this session failed.
    Cooling {
        /// Until when.
        until: Instant,
        /// Whose failures they were; those of the endpoint alone are forgiven when it answers anybody.
        blame: Blame,
    },
    /// A grant is out for longer than one may take. What it brings is taken.
    Overdue(Duration),
    /// New tokens are there and not verified.
    Unverified(VerifyError),
    /// The coordinator is shut down.
    Closed,
    /// The grant's task ended without an answer.
    Lost(Arc<str>),
}

impl Trouble {
    /// Why the endpoint did not grant, without what it sent along.
    pub(super) fn grant(error: &GrantError) -> Self {
        Self::Grant(match error {
            GrantError::Protocol { why, .. } => GrantError::Protocol { why: why.clone(), refresh: None },
            other => other.clone(),
        })
    }

    /// Whether nothing was asked.
    pub(super) const fn is_unasked(&self) -> bool {
        matches!(self, Self::Resting { .. } | Self::Cooling { .. })
    }

    /// When to come back, as far as the trouble tells.
    pub(super) fn retry_after(&self, now: Instant) -> Option<Duration> {
        match self {
            Self::Resting { until } | Self::Cooling { until, .. } => Some(until.since(now)),
            Self::Grant(error) => error.retry_after().map(|after| after.min(LONGEST_PAUSE)),
            Self::Store(_)
            | Self::Record(_)
            | Self::Stillborn
            | Self::Overdue(_)
            | Self::Unverified(_)
            | Self::Closed
            | Self::Lost(_) => None,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Record(unreadable) => unreadable.fmt(f),
            Self::Grant(error) => error.fmt(f),
            Self::Stillborn => f.write_str("the access token was over when it came"),
            Self::Resting { .. } => f.write_str("the token endpoint is left alone for a while"),
            Self::Cooling { .. } => f.write_str("too many grants of this session failed"),
            Self::Overdue(limit) => write!(f, "the token endpoint did not answer within {limit:?}"),
            Self::Unverified(error) => error.fmt(f),
            Self::Closed => f.write_str("the coordinator is shut down"),
            Self::Lost(why) => write!(f, "the grant ended without an answer: {why}"),
        }
    }
}
