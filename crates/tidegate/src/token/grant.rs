//! What a token endpoint is asked for.

use crate::Secret;

/// What a token endpoint is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Grant {
    /// New tokens for a refresh token (RFC 6749 §6).
    Refresh {
        /// The refresh token. It may be worth nothing once it was sent.
        refresh: Secret,
        /// The scope to ask for, no wider than the first one. `None`: as it was.
        scope: Option<Box<str>>,
    },
    /// A token for the client itself (RFC 6749 §4.4).
    ClientCredentials {
        /// The scope to ask for.
        scope: Option<Box<str>>,
        /// Whom the token is for.
        audience: Option<Box<str>>,
        /// Where the token is used (RFC 8707).
        resource: Option<Box<str>>,
    },
    /// A token in exchange for another one (RFC 8693).
    Exchange(Box<Exchange>),
}

/// The fields of a token exchange (RFC 8693 §2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The token of whom the new one is about.
    pub subject: Secret,
    /// What kind of token `subject` is: a URN.
    pub subject_kind: Box<str>,
    /// The token of who acts for the subject.
    pub actor: Option<Secret>,
    /// What kind of token `actor` is: a URN.
    pub actor_kind: Option<Box<str>>,
    /// What kind of token is asked for: a URN.
    pub wanted_kind: Option<Box<str>>,
    /// The scope to ask for.
    pub scope: Option<Box<str>>,
    /// Whom the token is for.
    pub audience: Option<Box<str>>,
    /// Where the token is used (RFC 8707).
    pub resource: Option<Box<str>>,
}

impl Exchange {
    /// The URN of an access token (RFC 8693 §3).
    pub const ACCESS_TOKEN: &'static str = "urn:ietf:params:oauth:token-type:access_token";

    /// Asks for a token in place of an access token, and nothing else.
    pub fn of_access_token(subject: Secret) -> Self {
        Self {
            subject,
            subject_kind: Self::ACCESS_TOKEN.into(),
            actor: None,
            actor_kind: None,
            wanted_kind: None,
            scope: None,
            audience: None,
            resource: None,
        }
    }
}

impl Grant {
    /// Asks for new tokens for a refresh token, with the scope as it was.
    pub const fn refresh(refresh: Secret) -> Self {
        Self::Refresh { refresh, scope: None }
    }

    /// Whether asking twice is harmless: nothing is used up by it.
    pub const fn is_repeatable(&self) -> bool {
        match self {
            Self::Refresh { .. } => false,
            Self::ClientCredentials { .. } | Self::Exchange(_) => true,
        }
    }

    /// The same without a scope, if it has one.
    #[must_use]
    pub fn without_scope(self) -> Option<Self> {
        match self {
            Self::Refresh { refresh, scope: Some(_) } => Some(Self::Refresh { refresh, scope: None }),
            Self::ClientCredentials { scope: Some(_), audience, resource } => {
                Some(Self::ClientCredentials { scope: None, audience, resource })
            }
            Self::Exchange(exchange) if exchange.scope.is_some() => {
                Some(Self::Exchange(Box::new(Exchange { scope: None, ..*exchange })))
            }
            Self::Refresh { .. } | Self::ClientCredentials { .. } | Self::Exchange(_) => None,
        }
    }
}
