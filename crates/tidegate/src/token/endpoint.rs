//! Who grants tokens: an endpoint of an authorization server, or a function of yours.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use super::{Grant, Identity, Tokens};

/// Who grants tokens.
///
/// Any function `Fn(Grant, Duration) -> impl Future<Output = Result<Tokens, GrantError>>` is one that verifies nothing.
pub trait TokenEndpoint: Send + Sync + 'static {
    /// Asks for tokens, once. It does not retry and has no timeout of its own shorter than `within`: who calls it
    /// decides when to ask again, and a late answer is worth having. It is dropped after `within`.
    ///
    /// # Errors
    /// [`GrantError`], whose class decides what becomes of the session.
    fn grant(
        &self,
        grant: Grant,
        within: Duration,
    ) -> impl Future<Output = Result<Tokens, GrantError>> + Send;

    /// Whether [`verify`](Self::verify) looks at anything. If it does, what was granted is stored before and after.
    fn verifies(&self) -> bool {
        false
    }

    /// Verifies what was granted, and tells who it is for. It may be asked again for the same tokens, also by another
    /// process. Tokens without an ID token are as good as verified (OIDC Core §12.2).
    ///
    /// # Errors
    /// [`VerifyError`]. That keys cannot be fetched is never [`VerifyError::Invalid`].
    fn verify(
        &self,
        tokens: &Tokens,
        pinned: Option<&Identity>,
    ) -> impl Future<Output = Result<Option<Identity>, VerifyError>> + Send {
        let (_, pinned) = (tokens, pinned.cloned());
        async { Ok(pinned) }
    }

    /// Gives tokens back that nobody will use (RFC 7009). Best effort.
    fn revoke(&self, tokens: Tokens) -> impl Future<Output = ()> + Send {
        drop(tokens);
        async {}
    }
}

impl<F, G> TokenEndpoint for F
where
    F: Fn(Grant, Duration) -> G + Send + Sync + 'static,
    G: Future<Output = Result<Tokens, GrantError>> + Send,
{
    fn grant(
        &self,
        grant: Grant,
        within: Duration,
    ) -> impl Future<Output = Result<Tokens, GrantError>> + Send {
        self(grant, within)
    }
}

/// Why there are no tokens. No text in it holds anything of a token, a code or a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GrantError {
    /// The user has to log in again: `invalid_grant`, `interaction_required`, `login_required`, `consent_required`.
    Terminal {
        /// The endpoint's error code.
        code: Arc<str>,
    },
    /// The scope is refused: `invalid_scope`. It is asked for once more without one.
    Scope,
    /// The client is not what the endpoint expects: `invalid_client`, `unauthorized_client`, `unsupported_grant_type`,
    /// `invalid_request`, 404. Nobody's session ends for it.
    Misconfigured {
        /// The endpoint's error code, or its HTTP status.
        code: Arc<str>,
    },
    /// The endpoint answered that it cannot now: 5xx, 429, `temporarily_unavailable`, `server_error`.
    Transient {
        /// When it wants to be asked again, if it said.
        retry_after: Option<Duration>,
        /// What it said.
        why: Arc<str>,
    },
    /// It was surely not sent or not processed: DNS, connect, TLS, `REFUSED_STREAM`, a GOAWAY that left it out.
    NotSent {
        /// Why.
        why: Arc<str>,
    },
    /// It was sent, or may have been, and no answer came: timeout, reset, end of file.
    Unknown {
        /// Why.
        why: Arc<str>,
    },
    /// It was granted, and the answer cannot be read.
    Protocol {
        /// What is wrong with the answer.
        why: Arc<str>,
        /// The refresh token in it, if that could be read: the old one may be worth nothing.
        refresh: Option<crate::Secret>,
    },
}

impl GrantError {
    /// When the endpoint wants to be asked again, if it said.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Transient { retry_after, .. } => *retry_after,
            Self::Terminal { .. }
            | Self::Scope
            | Self::Misconfigured { .. }
            | Self::NotSent { .. }
            | Self::Unknown { .. }
            | Self::Protocol { .. } => None,
        }
    }

    /// The word for it in metrics and logs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Terminal { .. } => "invalid_grant",
            Self::Scope => "invalid_scope",
            Self::Misconfigured { .. } => "client_error",
            Self::Transient { .. } => "transient",
            Self::NotSent { .. } => "not_sent",
            Self::Unknown { .. } => "unknown",
            Self::Protocol { .. } => "protocol",
        }
    }
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Terminal { code } => {
                write!(f, "the token endpoint says {code}: the user has to log in again")
            }
            Self::Scope => {
                f.write_str("the token endpoint says invalid_scope; ask for what the client may have")
            }
            Self::Misconfigured { code } => write!(
                f,
                "the token endpoint says {code}; look at the client's id, its authentication and the endpoint's URL"
            ),
            Self::Transient { retry_after: Some(after), why } => {
                write!(f, "the token endpoint cannot serve now: {why}; retry after {after:?}")
            }
            Self::Transient { retry_after: None, why } => {
                write!(f, "the token endpoint cannot serve now: {why}")
            }
            Self::NotSent { why } => {
                write!(f, "the token endpoint could not be reached, nothing was sent: {why}")
            }
            Self::Unknown { why } => write!(f, "the token endpoint was asked and no answer came: {why}"),
            Self::Protocol { why, .. } => write!(f, "the token endpoint's answer cannot be read: {why}"),
        }
    }
}

impl std::error::Error for GrantError {}

/// Why tokens are not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyError {
    /// It cannot be told now: the issuer's keys cannot be fetched. It is tried again, without another grant.
    Unavailable {
        /// Why.
        why: Arc<str>,
    },
    /// The ID token is wrong.
    Invalid {
        /// What is wrong.
        why: Arc<str>,
    },
    /// The tokens are somebody else's. The session ends, and an operator should look.
    Mismatch {
        /// Which claim changed, like `sub`.
        claim: Arc<str>,
    },
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable { why } => write!(f, "the ID token cannot be verified now: {why}"),
            Self::Invalid { why } => write!(f, "the ID token is wrong: {why}"),
            Self::Mismatch { claim } => {
                write!(f, "the refreshed tokens are somebody else's: {claim} changed")
            }
        }
    }
}

impl std::error::Error for VerifyError {}
