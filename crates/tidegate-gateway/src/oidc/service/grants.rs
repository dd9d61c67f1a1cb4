//! What is asked for with the grants of calls' tokens, and what became of them.

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use aws_lc_rs::digest::{Context, SHA256};
use http::{HeaderMap, HeaderValue, header};
use parking_lot::Mutex;
use tidegate::{
    Secret,
    token::{Exchange, Grant, GrantError, ServiceKey, SessionId, TokenEndpoint, Tokens},
};

use super::Reason;
use crate::{
    config::{self, GrantKind},
    oidc::{binding::Binding, endpoint::Endpoint},
};

/// Longest token of a caller that is exchanged. Default: 16 KiB.
const MOST_SUBJECT_BYTES: usize = 16 << 10;

/// The token endpoint, counted.
pub(super) struct Grants {
    name: Box<str>,
    endpoint: Endpoint,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    outcomes: BTreeMap<&'static str, u64>,
    /// What kind of failure the last grant was, and why; none when it was none.
    failing: Option<(&'static str, String)>,
}

impl Grants {
    pub(super) fn new(name: &str, endpoint: Endpoint) -> Self {
        Self { name: name.into(), endpoint, counts: Mutex::default() }
    }

    /// What tokens are bound to, if anything.
    pub(super) fn binding(&self) -> Option<&Binding> {
        self.endpoint.binding()
    }

    fn count(&self, outcome: &'static str, failing: Option<String>) {
        let mut counts = self.counts.lock();
        *counts.outcomes.entry(outcome).or_default() += 1;
        let was = std::mem::replace(&mut counts.failing, failing.map(|why| (outcome, why)));
        let is = counts.failing.clone();
        drop(counts);
        match (was, is) {
            (None, Some((_, why))) => tracing::warn!(token = %self.name, "no token: {why}"),
            // By kind: what a provider says may hold a number of its own each time.
            (Some((was, _)), Some((is, why))) if was != is => {
                tracing::warn!(token = %self.name, "still no token: {why}");
            }
            (Some(_), None) => tracing::info!(token = %self.name, "tokens are granted again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// What became of grants, by the word for it.
    pub(super) fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().outcomes.clone()
    }

    /// Why the last grant failed, if it did.
    pub(super) fn failing(&self) -> Option<String> {
        self.counts.lock().failing.as_ref().map(|(_, why)| why.clone())
    }

    /// How many seconds the provider's clock is ahead of ours.
    pub(super) fn clock_ahead(&self) -> i64 {
        self.endpoint.provider().clock().ahead()
    }
}

impl TokenEndpoint for Grants {
    async fn grant(&self, grant: Grant, within: Duration) -> Result<Tokens, GrantError> {
        let granted = self.endpoint.grant(grant, within).await;
        match &granted {
            Ok(_) => self.count("success", None),
            Err(error) => self.count(error.as_str(), Some(error.to_string())),
        }
        granted
    }
}

/// Whom a token is for.
pub(super) enum Whom {
    /// The client itself.
    Own,
    /// A caller, by the token it brought.
    Caller(SessionId, Secret),
}

/// What tokens of one setting are asked for with.
pub(super) struct Wanted {
    kind: GrantKind,
    scope: Option<Box<str>>,
    audience: Option<Box<str>>,
    resource: Option<Box<str>>,
    /// What tells this setting's tokens from those of others in a store that many share.
    pub(super) print: Box<str>,
    own: OnceLock<ServiceKey>,
}

impl Wanted {
    pub(super) fn new(config: &config::Token, print: Box<str>) -> Self {
        Self {
            kind: config.grant,
            scope: (!config.scope.is_empty()).then(|| config.scope.join(" ").into()),
            audience: config.audience.as_deref().map(Into::into),
            resource: config.resource.as_deref().map(Into::into),
            print,
            own: OnceLock::new(),
        }
    }

    /// The key of the client's own token, if there is one.
    pub(super) fn own(&self) -> Option<&ServiceKey> {
        let named = || {
            let mut key = ServiceKey::default().client(&self.print);
            if let Some(scope) = &self.scope {
                key = key.scope(scope);
            }
            if let Some(audience) = &self.audience {
                key = key.audience(audience);
            }
            match &self.resource {
                Some(resource) => key.resource(resource),
                None => key,
            }
        };
        (self.kind == GrantKind::ClientCredentials).then(|| self.own.get_or_init(named))
    }

    /// Whom a call's token is for.
    pub(super) fn whom(&self, headers: &HeaderMap) -> Result<Whom, Reason> {
        match self.kind {
            GrantKind::ClientCredentials => Ok(Whom::Own),
            GrantKind::TokenExchange => {
                let mut given = headers.get_all(header::AUTHORIZATION).iter();
                let (Some(given), None) = (given.next(), given.next()) else { return Err(Reason::NoSubject) };
                let token = bearer(given).ok_or(Reason::NoSubject)?;
                let mut hash = Context::new(&SHA256);
                hash.update(self.print.as_bytes());
                hash.update(b"\0");
                hash.update(token.as_bytes());
                let hash = hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
                Ok(Whom::Caller(SessionId::of_hash(&hash), Secret::new(token)))
            }
        }
    }

    /// What is asked for in exchange for a caller's token.
    pub(super) fn exchange(&self, subject: Secret) -> Exchange {
        Exchange {
            scope: self.scope.clone(),
            audience: self.audience.clone(),
            resource: self.resource.clone(),
            ..Exchange::of_access_token(subject)
        }
    }
}

/// The token of `Bearer TOKEN` (RFC 6750 §2.1).
fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim_matches(' ');
    let fits = !token.is_empty()
        && token.len() <= MOST_SUBJECT_BYTES
        && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b));
    (scheme.eq_ignore_ascii_case("bearer") && fits).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_bearer_token_is_taken_for_the_callers() {
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        assert_eq!(bearer(&value("Bearer abc.def")), Some("abc.def"));
        assert_eq!(bearer(&value("bearer  abc")), Some("abc"));
        for text in ["Basic abc", "Bearer", "Bearer ", "Bearer a b", "abc", "Bearer \"a\""] {
            assert_eq!(bearer(&value(text)), None, "{text}");
        }
    }
}
