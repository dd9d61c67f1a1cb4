//! What a token of the client itself is for, and how that is written where it stands.

use std::hash::BuildHasher as _;

use serde::{Deserialize, Serialize};

use crate::{
    Secret,
    token::{Exchange, Grant, SessionId},
};

/// What a token is for. It has a name, by which processes that share a store share the token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    client: Option<Box<str>>,
    scope: Option<Box<str>>,
    audience: Option<Box<str>>,
    resource: Option<Box<str>>,
    id: SessionId,
}

impl Default for ServiceKey {
    fn default() -> Self {
        let id = SessionId::new("service").expect("these are letters");
        Self { client: None, scope: None, audience: None, resource: None, id }.named()
    }
}

impl ServiceKey {
    /// Sets whose token it is, where several clients share a store: like the issuer and the client's id.
    #[must_use]
    pub fn client(mut self, client: &str) -> Self {
        self.client = Some(client.into());
        self.named()
    }

    /// Sets the scope to ask for.
    #[must_use]
    pub fn scope(mut self, scope: &str) -> Self {
        self.scope = Some(scope.into());
        self.named()
    }

    /// Sets whom the token is for.
    #[must_use]
    pub fn audience(mut self, audience: &str) -> Self {
        self.audience = Some(audience.into());
        self.named()
    }

    /// Sets where the token is used (RFC 8707).
    #[must_use]
    pub fn resource(mut self, resource: &str) -> Self {
        self.resource = Some(resource.into());
        self.named()
    }

    /// What it is known by in a store.
    pub const fn id(&self) -> &SessionId {
        &self.id
    }

    /// Names it by 128 bits of a hash that every process makes the same. What is hashed is the program's own, never
    /// what callers bring.
    fn named(mut self) -> Self {
        let all = (&self.client, &self.scope, &self.audience, &self.resource);
        let half = |seed: u64| foldhash::quality::FixedState::with_seed(seed).hash_one(all);
        let name = format!("service:{:016x}{:016x}", half(0x7469_6465), half(0x6761_7465));
        self.id = SessionId::new(&name).expect("these are letters, digits and a colon");
        self
    }

    pub(super) fn presented(&self) -> Secret {
        let Self { scope, audience, resource, .. } = self.clone();
        presented(&Grant::ClientCredentials { scope, audience, resource })
    }
}

/// What stands in a record in place of a refresh token: what is asked for with every grant.
#[derive(Serialize, Deserialize)]
struct Text {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    audience: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exchange: Option<ExchangeText>,
}

#[derive(Serialize, Deserialize)]
struct ExchangeText {
    subject: Box<str>,
    subject_kind: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    actor: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    actor_kind: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wanted_kind: Option<Box<str>>,
}

/// Writes a grant that uses nothing up.
pub(super) fn presented(grant: &Grant) -> Secret {
    let text = match grant.clone() {
        Grant::ClientCredentials { scope, audience, resource } => {
            Text { scope, audience, resource, exchange: None }
        }
        Grant::Exchange(exchange) => {
            let Exchange { subject, subject_kind, actor, actor_kind, wanted_kind, scope, audience, resource } =
                *exchange;
            let text = |secret: Secret| secret.expose().into();
            let (subject, actor) = (text(subject), actor.map(text));
            let exchange = ExchangeText { subject, subject_kind, actor, actor_kind, wanted_kind };
            Text { scope, audience, resource, exchange: Some(exchange) }
        }
        Grant::Refresh { .. } => unreachable!("a refresh token is presented as it is"),
    };
    Secret::new(serde_json::to_string(&text).expect("texts make JSON"))
}

/// Reads what [`presented`] wrote.
pub(super) fn wanted(presented: &Secret) -> Option<Grant> {
    let Text { scope, audience, resource, exchange } = serde_json::from_str(presented.expose()).ok()?;
    Some(match exchange {
        None => Grant::ClientCredentials { scope, audience, resource },
        Some(ExchangeText { subject, subject_kind, actor, actor_kind, wanted_kind }) => {
            Grant::Exchange(Box::new(Exchange {
                subject: Secret::new(subject),
                subject_kind,
                actor: actor.map(Secret::new),
                actor_kind,
                wanted_kind,
                scope,
                audience,
                resource,
            }))
        }
    })
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_read_as_it_was_written() {
        let exchange = Exchange {
            actor: Some(Secret::new("act\"or")),
            audience: Some("orders".into()),
            ..Exchange::of_access_token(Secret::new("subject"))
        };
        let scope = Some("a b".into());
        for grant in [
            Grant::ClientCredentials { scope, audience: None, resource: Some("https://api".into()) },
            Grant::Exchange(Box::new(exchange)),
        ] {
            assert_eq!(wanted(&presented(&grant)), Some(grant));
        }
        assert_eq!(wanted(&Secret::new("rt-1")), None);
    }

    #[test]
    fn a_key_is_named_alike_everywhere_and_no_other_is() {
        let keys = [
            ServiceKey::default(),
            ServiceKey::default().client("orders"),
            ServiceKey::default().scope("orders"),
            ServiceKey::default().audience("orders"),
            ServiceKey::default().resource("orders"),
            ServiceKey::default().scope("orders").audience("orders"),
        ];
        let names: std::collections::HashSet<_> = keys.iter().map(|key| key.id().as_str()).collect();
        assert_eq!(names.len(), keys.len());
        // What stands in stores must be found by the next version.
        let name = ServiceKey::default().scope("orders").id().as_str().to_owned();
        assert_eq!(name, ServiceKey::default().scope("orders").id().as_str());
    }
}
