//! Browser sessions. Nothing of a session, a user or a token is in here.

use std::collections::BTreeMap;

use serde::Serialize;

/// The sessions of one client of a provider, now.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SessionsState {
    /// Their name.
    pub name: String,
    /// The identity provider.
    pub issuer: String,
    /// Sessions in this process's memory.
    pub sessions: u64,
    /// Calls that wait for tokens.
    pub waiting: u64,
    /// Refreshes under way.
    pub in_flight: u64,
    /// Refreshes by what became of them.
    pub refreshes: BTreeMap<&'static str, u64>,
    /// Refreshes that another process made.
    pub shared: u64,
    /// Sessions that ended other than by a logout.
    pub over: u64,
    /// Refreshes that brought somebody else's tokens: an operator should look.
    pub mismatches: u64,
    /// Operations of the store that failed.
    pub store_failures: u64,
    /// Whether the last one failed.
    pub store_failing: bool,
    /// Logins and logouts by what became of them.
    pub logins: BTreeMap<&'static str, u64>,
}
