//! What grants the tokens of calls, and counts what became of it.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, HeaderValue, header};
use parking_lot::Mutex;
use tidegate::{
    Secret, clock,
    keeper::{Failed, Fetch, Fetched},
    token::{Exchange, Grant, GrantError, TokenEndpoint as _},
};
use tidegate_core::{Instant, Lifetime};

use super::Reason;
use crate::{
    config::{self, GrantKind},
    oidc::endpoint::Endpoint,
};

/// A token is not used in the last part of its life, which is a twentieth of it, at most this: it has a way to go, and
/// clocks differ. Default: 10 s.
const MOST_MARGIN: Duration = Duration::from_secs(10);
/// A token that is said to live shorter is taken to live so long. Default: 1 s.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);
/// Longest token of a caller that is exchanged. Default: 16 KiB.
const MOST_SUBJECT_BYTES: usize = 16 << 10;

/// Grants tokens.
pub(super) struct Grants {
    name: Box<str>,
    endpoint: Endpoint,
    config: config::Token,
    scope: Option<Box<str>>,
    serial: AtomicU64,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    outcomes: BTreeMap<&'static str, u64>,
    /// Why the last grant failed; none when it did not.
    failing: Option<String>,
}

/// A token that was granted.
pub(super) struct Access {
    /// As a call carries it.
    pub(super) value: HeaderValue,
    /// When it is worth nothing any more.
    pub(super) ends: Instant,
}

/// Whom a token is for.
#[derive(Clone, Debug)]
pub(super) enum Key {
    /// The client itself.
    Own,
    /// A caller, by the token it brought.
    Caller(Subject, Secret),
    /// A caller whose token is not at hand: to look, and never to grant.
    Known(Subject),
}

/// What stands for a caller: nothing, for the client itself; the hash of its token else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject(Option<[u8; 32]>);

impl Subject {
    pub(super) const fn key(self) -> Key {
        match self.0 {
            None => Key::Own,
            Some(_) => Key::Known(self),
        }
    }
}

impl Key {
    pub(super) const fn subject(&self) -> Subject {
        match self {
            Self::Own => Subject(None),
            Self::Caller(subject, _) | Self::Known(subject) => *subject,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.subject() == other.subject()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.subject().hash(state);
    }
}

impl Grants {
    pub(super) fn new(name: &str, endpoint: Endpoint, config: config::Token) -> Self {
        let scope = (!config.scope.is_empty()).then(|| config.scope.join(" ").into());
        Self {
            name: name.into(),
            endpoint,
            scope,
            config,
            serial: AtomicU64::new(1),
            counts: Mutex::default(),
        }
    }

    /// The key of the client's own token, if there is one.
    pub(super) fn own_key(&self) -> Option<Key> {
        (self.config.grant == GrantKind::ClientCredentials).then_some(Key::Own)
    }

    /// The key for a call.
    pub(super) fn key(&self, headers: &HeaderMap) -> Result<Key, Reason> {
        match self.config.grant {
            GrantKind::ClientCredentials => Ok(Key::Own),
            GrantKind::TokenExchange => {
                let mut given = headers.get_all(header::AUTHORIZATION).iter();
                let (Some(given), None) = (given.next(), given.next()) else { return Err(Reason::NoSubject) };
                let token = bearer(given).ok_or(Reason::NoSubject)?;
                let hash = digest(&SHA256, token.as_bytes());
                let hash = hash.as_ref().try_into().expect("SHA-256 has 32 bytes");
                Ok(Key::Caller(Subject(Some(hash)), Secret::new(token)))
            }
        }
    }

    fn grant(&self, key: &Key) -> Result<Grant, GrantError> {
        let (scope, audience, resource) = (
            self.scope.clone(),
            self.config.audience.as_deref().map(Into::into),
            self.config.resource.as_deref().map(Into::into),
        );
        match key {
            Key::Own => Ok(Grant::ClientCredentials { scope, audience, resource }),
            Key::Caller(_, subject) => {
                let exchange = Exchange::of_access_token(subject.clone());
                Ok(Grant::Exchange(Box::new(Exchange { scope, audience, resource, ..exchange })))
            }
            Key::Known(_) => Err(GrantError::NotSent { why: "the caller's token is not at hand".into() }),
        }
    }

    /// How long a token is worth something that was just granted for `life`.
    fn lifetime(&self, life: Duration) -> (Lifetime, Duration) {
        let life = life.max(SHORTEST_LIFE);
        let valid = life - (life / 20).min(MOST_MARGIN);
        let before = u32::from(self.config.refresh_before.0);
        // A tenth of its life is drawn at random, so that gateways that started together do not ask together.
        let fresh = (life * (100 - before) / 100).min(valid);
        (Lifetime { fresh, spread: (life / 10).min(fresh / 2), valid, stale: Duration::ZERO }, life)
    }

    fn count(&self, outcome: &'static str, failing: Option<String>) {
        let mut counts = self.counts.lock();
        *counts.outcomes.entry(outcome).or_default() += 1;
        let was = std::mem::replace(&mut counts.failing, failing);
        let is = counts.failing.clone();
        drop(counts);
        match (was, is) {
            (None, Some(why)) => tracing::warn!(token = %self.name, "no token: {why}"),
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
        self.counts.lock().failing.clone()
    }

    /// How many seconds the provider's clock is ahead of ours.
    pub(super) fn clock_ahead(&self) -> i64 {
        self.endpoint.provider().clock().ahead()
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

impl Fetch for Grants {
    type Key = Key;
    type Value = Access;
    type Error = GrantError;

    async fn fetch(&self, key: &Key) -> Result<Fetched<Access>, Failed<GrantError>> {
        let grant = self.grant(key).map_err(Failed::key)?;
        let sent_at = clock::now();
        let granted = self.endpoint.grant(grant, *self.config.timeout).await;
        let tokens = match granted {
            Ok(tokens) => tokens,
            Err(error) => {
                self.count(error.as_str(), Some(error.to_string()));
                return Err(failed(error));
            }
        };
        let mut value = HeaderValue::try_from(format!("{} {}", tokens.kind, tokens.access.expose()))
            .expect("an access token that was read is visible ASCII");
        value.set_sensitive(true);
        let (lifetime, life) = self.lifetime(tokens.expires_in.unwrap_or(*self.config.default_life));
        self.count("success", None);
        let access = Access { value, ends: sent_at + life };
        let serial = self.serial.fetch_add(1, Relaxed);
        Ok(Fetched::value(access).lifetime(lifetime).version(serial))
    }
}

/// Whose fault a failed grant is: the provider's, or that of what was asked for.
fn failed(error: GrantError) -> Failed<GrantError> {
    match &error {
        GrantError::Transient { retry_after, .. } => {
            Failed { retry_after: *retry_after, ..Failed::source(error) }
        }
        GrantError::NotSent { .. } | GrantError::Unknown { .. } => Failed::source(error),
        _ => Failed::key(error),
    }
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
