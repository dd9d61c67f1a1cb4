//! The tokens that calls of upstreams carry. Nothing of a token, a secret or a caller is in here.

use std::collections::BTreeMap;

use serde::Serialize;

/// A token of the configuration, now.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TokenState {
    /// Its name.
    pub name: String,
    /// The identity provider.
    pub issuer: String,
    /// What it is granted for: `client_credentials` or `token_exchange`.
    pub grant: &'static str,
    /// Whether there is one.
    pub state: TokenPhase,
    /// How long the one in hand is good, in seconds; none when there is none, or each caller has its own.
    pub expires_in_seconds: Option<f64>,
    /// Tokens in hand: of callers, where theirs are exchanged.
    pub keys: u64,
    /// Calls that wait for a token.
    pub waiting: u64,
    /// Grants by what became of them: `success`, or why not.
    pub grants: BTreeMap<&'static str, u64>,
    /// Tokens given up because the upstream said that they are invalid.
    pub rejected: u64,
    /// Calls refused for want of a token.
    pub refused: u64,
    /// Why the last grant failed; none when it did not.
    pub last_error: Option<String>,
    /// How many seconds the provider's clock is ahead of ours.
    pub clock_ahead_seconds: i64,
    /// The key that tokens are bound to; none where they are bearer tokens.
    pub dpop: Option<DpopState>,
}

/// A key that tokens are bound to (RFC 9449).
#[derive(Clone, Debug, Default, Serialize)]
pub struct DpopState {
    /// Its name: the thumbprint that bound tokens hold in `cnf.jkt`.
    pub thumbprint: String,
    /// Proofs of possession that upstreams refused.
    pub refused: u64,
}

/// Whether there is a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenPhase {
    /// None was needed yet, or each caller has its own.
    #[default]
    None,
    /// One is in hand.
    Fresh,
    /// One is in hand, and the last attempt to renew it failed.
    Ending,
    /// None is in hand, and the last grant failed.
    Failing,
}

impl TokenPhase {
    /// Every phase.
    pub const ALL: [Self; 4] = [Self::None, Self::Fresh, Self::Ending, Self::Failing];

    /// The name used in metrics and state.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Fresh => "fresh",
            Self::Ending => "ending",
            Self::Failing => "failing",
        }
    }
}
