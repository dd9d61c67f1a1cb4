//! What a token endpoint answers.

use std::time::Duration;

use crate::Secret;

/// What a token endpoint answers (RFC 6749 §5.1). Lives are counted from when the grant was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// The access token.
    pub access: Secret,
    /// How it is presented: the `token_type`, like `Bearer` or `DPoP`.
    pub kind: Box<str>,
    /// How long the access token is good; `None` when the endpoint did not say and the token does not tell.
    pub expires_in: Option<Duration>,
    /// The refresh token that takes the old one's place; `None`: the old one stays.
    pub refresh: Option<Secret>,
    /// How long the refresh token is good, where the endpoint says so.
    pub refresh_expires_in: Option<Duration>,
    /// The ID token, not verified yet.
    pub id: Option<Secret>,
    /// The scope that was granted; `None`: what was asked for.
    pub scope: Option<Box<str>>,
}

impl Tokens {
    /// An access token presented as `Bearer`, and nothing else.
    pub fn bearer(access: impl Into<Box<str>>) -> Self {
        Self {
            access: Secret::new(access),
            kind: "Bearer".into(),
            expires_in: None,
            refresh: None,
            refresh_expires_in: None,
            id: None,
            scope: None,
        }
    }

    /// Sets how long the access token is good.
    #[must_use]
    pub const fn expires_in(mut self, life: Duration) -> Self {
        self.expires_in = Some(life);
        self
    }

    /// Sets the refresh token.
    #[must_use]
    pub fn refresh(mut self, refresh: impl Into<Box<str>>) -> Self {
        self.refresh = Some(Secret::new(refresh));
        self
    }
}

/// Who a session belongs to: what must not change over a refresh.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The issuer: `iss`.
    pub issuer: Box<str>,
    /// The user: `sub`.
    pub subject: Box<str>,
}
