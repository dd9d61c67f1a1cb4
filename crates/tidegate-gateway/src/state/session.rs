//! Browser sessions. Nothing of a session, a user or a token is in here.

use std::collections::BTreeMap;

use serde::Serialize;

use super::DpopState;

/// The sessions of one client of a provider, now.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SessionsState {
    /// Their name.
    pub name: String,
    /// The identity provider.
    pub issuer: String,
    /// Where they are kept: `memory`, `file`, or the `store` that a fleet shares.
    pub kept: &'static str,
    /// Whether the provider's token endpoint answers: `up`, `down`, `probing`, or `paused` as it asked for.
    pub provider: &'static str,
    /// For how many seconds more it asked to be left alone; none when it did not.
    pub paused_seconds: Option<f64>,
    /// Sessions in this process's memory.
    pub sessions: u64,
    /// Calls that wait for tokens.
    pub waiting: u64,
    /// Refreshes under way.
    pub in_flight: u64,
    /// Sessions that wait for their turn, for another process, or for a grant.
    pub queued: u64,
    /// Refreshes that were held back: the provider is left alone, or the session cools down after failures.
    pub held_back: u64,
    /// Refreshes by what became of them.
    pub refreshes: BTreeMap<&'static str, u64>,
    /// Refreshes that another process made.
    pub shared: u64,
    /// Sessions that ended other than by a logout.
    pub over: u64,
    /// Refreshes that brought somebody else's tokens: an operator should look.
    pub mismatches: u64,
    /// Tokens that came for a session that had ended meanwhile, and were given back.
    pub revoked: u64,
    /// Operations of the store that failed.
    pub store_failures: u64,
    /// Whether the last one failed.
    pub store_failing: bool,
    /// Logins and logouts by what became of them.
    pub logins: BTreeMap<&'static str, u64>,
    /// The key that tokens are bound to; none where they are bearer tokens.
    pub dpop: Option<DpopState>,
}
