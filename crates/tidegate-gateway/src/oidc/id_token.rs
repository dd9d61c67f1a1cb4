//! ID tokens (OpenID Connect Core 1.0 §2, §3.1.3.7, §12.2): who logged in, for whom, when, and whether it is still the same.

use std::{fmt, sync::Arc, time::Duration};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{self, SHA256, SHA384, SHA512},
};
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use tidegate::{
    Secret, clock,
    token::{Identity, VerifyError},
};
use tidegate_core::Call;

use super::{
    jose::{Algorithm, Parts, base64url},
    keys::Keys,
    provider::Provider,
};

/// How far times in a token may be off, in seconds, after the provider's clock was allowed for. Default: 60.
pub(super) const LEEWAY: i64 = 60;
/// Longest wait for the keys. Default: 10 s.
const PATIENCE: Duration = Duration::from_secs(10);

/// Verifies the ID tokens of a provider.
#[derive(Debug)]
pub struct IdTokens {
    provider: Arc<Provider>,
    keys: Keys,
    algorithms: Vec<Algorithm>,
}

/// What an ID token must say.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    /// Whom it is for.
    pub client_id: &'a str,
    /// What was sent along with the user; none at a refresh, where the token mostly has none.
    pub nonce: Option<&'a str>,
    /// The access token that came with it.
    pub access: Option<&'a Secret>,
    /// Who the session belongs to, at a refresh.
    pub pinned: Option<&'a Identity>,
}

/// What a verified ID token says.
#[derive(Clone)]
pub struct Claims {
    /// Who it is.
    pub identity: Identity,
    /// When the user logged in, in seconds since the Unix epoch, if it says.
    pub auth_time: Option<i64>,
    /// When it was made, in seconds since the Unix epoch, by the provider's clock.
    pub issued_at: i64,
    /// All of its claims.
    pub all: Map<String, Json>,
}

#[derive(Deserialize)]
struct Raw {
    iss: String,
    sub: String,
    aud: Audience,
    exp: f64,
    iat: f64,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    azp: Option<String>,
    #[serde(default)]
    nonce: Option<String>,
    #[serde(default)]
    at_hash: Option<String>,
    #[serde(default)]
    auth_time: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    pub(super) fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }
}

impl IdTokens {
    /// Makes a verifier that allows these algorithms.
    pub fn new(provider: Arc<Provider>, algorithms: Vec<Algorithm>) -> Self {
        let keys = Keys::new(Arc::clone(&provider));
        Self::with_keys(provider, algorithms, keys)
    }

    /// As [`Self::new`], with keys of the provider that are kept in another way.
    pub fn with_keys(provider: Arc<Provider>, algorithms: Vec<Algorithm>, keys: Keys) -> Self {
        Self { provider, keys, algorithms }
    }

    /// Verifies a token: its signature, and all that it says of itself.
    ///
    /// # Errors
    /// [`VerifyError`]; none of them holds a part of the token.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn verify(&self, token: &Secret, expected: &Expected<'_>) -> Result<Claims, VerifyError> {
        check(&self.signed(token).await?, expected, self.issuer(), self.now())
    }

    /// A token that the provider signed, taken apart. What it says is still to be checked.
    pub(super) async fn signed<'t>(&self, token: &'t Secret) -> Result<Parts<'t>, VerifyError> {
        let call = Call::at(clock::now()).within(PATIENCE);
        let parts = Parts::of(token.expose()).map_err(|why| invalid(why.to_string()))?;
        if !self.algorithms.contains(&parts.header.algorithm) {
            return Err(invalid(format!("it is signed by {}, which is not allowed", parts.header.algorithm)));
        }
        self.keys.verify(&call, &parts).await?;
        Ok(parts)
    }

    /// Whose tokens these are.
    pub(super) fn issuer(&self) -> &str {
        self.provider.issuer()
    }

    /// The provider's time, in seconds since the Unix epoch.
    pub(super) fn now(&self) -> i64 {
        self.provider.clock.seconds()
    }
}

pub(super) fn invalid(why: impl Into<Arc<str>>) -> VerifyError {
    VerifyError::Invalid { why: why.into() }
}

/// Checks the claims of a token whose signature was verified, at `now` by the provider's clock.
fn check(parts: &Parts<'_>, expected: &Expected<'_>, issuer: &str, now: i64) -> Result<Claims, VerifyError> {
    let raw: Raw = parts.claims().map_err(|why| invalid(why.to_string()))?;
    if raw.iss != issuer && raw.iss.strip_suffix('/') != Some(issuer) {
        return Err(invalid("it is of another issuer"));
    }
    let audience = raw.aud.all();
    if !audience.iter().any(|aud| aud == expected.client_id) {
        return Err(invalid("it is not for this client"));
    }
    match &raw.azp {
        Some(azp) if azp != expected.client_id => return Err(invalid("it was issued to another client")),
        None if audience.len() > 1 => {
            return Err(invalid("it is for several, and does not say to whom it was issued"));
        }
        Some(_) | None => {}
    }
    let now = now as f64;
    let leeway = LEEWAY as f64;
    if raw.exp + leeway <= now {
        return Err(invalid("it is expired"));
    }
    if raw.nbf.is_some_and(|nbf| nbf - leeway > now) || raw.iat - leeway > now {
        return Err(invalid("it is from the future"));
    }
    let same_nonce = |wanted: &str| {
        let told = raw.nonce.as_deref().unwrap_or_default();
        verify_slices_are_equal(told.as_bytes(), wanted.as_bytes()).is_ok()
    };
    if expected.nonce.is_some_and(|wanted| !same_nonce(wanted)) {
        return Err(invalid("its nonce is not the one that was sent"));
    }
    if let (Some(told), Some(access)) = (&raw.at_hash, expected.access)
        && *told != half_hash(parts.header.algorithm, access.expose())
    {
        return Err(invalid("it came with another access token than it names"));
    }
    if raw.sub.is_empty() || raw.sub.len() > 255 {
        return Err(invalid("its sub is empty or too long"));
    }
    if let Some(pinned) = expected.pinned {
        let changed = if *pinned.issuer != *issuer {
            Some("iss")
        } else if *pinned.subject != *raw.sub {
            Some("sub")
        } else {
            None
        };
        if let Some(claim) = changed {
            return Err(VerifyError::Mismatch { claim: claim.into() });
        }
    }
    Ok(Claims {
        identity: Identity { issuer: issuer.into(), subject: raw.sub.into() },
        auth_time: raw.auth_time.map(|time| time as i64),
        issued_at: raw.iat as i64,
        all: parts.claims().map_err(|why| invalid(why.to_string()))?,
    })
}

/// The left half of a hash, with the hash of the signature's algorithm (§3.1.3.6).
fn half_hash(algorithm: Algorithm, text: &str) -> String {
    let hash = match algorithm {
        Algorithm::Rs256 | Algorithm::Ps256 | Algorithm::Es256 => &SHA256,
        Algorithm::Rs384 | Algorithm::Ps384 | Algorithm::Es384 => &SHA384,
        Algorithm::Rs512 | Algorithm::Ps512 | Algorithm::EdDsa => &SHA512,
    };
    let hash = digest::digest(hash, text.as_bytes());
    base64url(&hash.as_ref()[..hash.as_ref().len() / 2])
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oidc::jose::SigningKey;

    const NOW: i64 = 1_800_000_000;

    fn checked(change: Json, expected: &Expected<'_>) -> Result<Claims, VerifyError> {
        let mut claims = json!({
            "iss": "https://idp.example", "sub": "ann", "aud": "web", "exp": NOW + 300, "iat": NOW, "nonce": "n",
        });
        for (name, value) in change.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        let token = SigningKey::generate().sign("JWT", &[], &claims);
        check(&Parts::of(&token).unwrap(), expected, "https://idp.example", NOW)
    }

    const EXPECTED: Expected<'_> =
        Expected { client_id: "web", nonce: Some("n"), access: None, pinned: None };

    #[test]
    fn a_token_for_us_is_taken() {
        for change in [
            json!({}),
            json!({ "aud": ["web"] }),
            json!({ "aud": ["web", "api"], "azp": "web" }),
            json!({ "exp": NOW - 30 }),
            json!({ "iat": NOW + 30, "nbf": NOW + 30 }),
            json!({ "exp": f64::from(i32::MAX) + 0.5 }),
        ] {
            let claims = checked(change.clone(), &EXPECTED).unwrap_or_else(|why| panic!("{change}: {why}"));
            assert_eq!(&*claims.identity.subject, "ann");
        }
    }

    #[test]
    fn a_token_that_is_not_for_us_or_not_for_now_is_refused() {
        for (change, why) in [
            (json!({ "iss": "https://other.example" }), "another issuer"),
            (json!({ "aud": "api" }), "not for this client"),
            (json!({ "aud": [] }), "not for this client"),
            (json!({ "aud": ["web", "api"] }), "does not say to whom"),
            (json!({ "azp": "api" }), "another client"),
            (json!({ "exp": NOW - 61 }), "expired"),
            (json!({ "exp": null }), "not JSON of the expected kind"),
            (json!({ "iat": NOW + 61 }), "future"),
            (json!({ "nbf": NOW + 61 }), "future"),
            (json!({ "nonce": "other" }), "nonce"),
            (json!({ "nonce": null }), "nonce"),
            (json!({ "sub": "" }), "sub is empty"),
        ] {
            let refused = checked(change.clone(), &EXPECTED).unwrap_err().to_string();
            assert!(refused.contains(why), "{change}: {refused}");
        }
    }

    #[test]
    fn a_refreshed_token_must_be_of_the_same_user_and_needs_no_nonce() {
        let pinned = Identity { issuer: "https://idp.example".into(), subject: "ann".into() };
        let expected = Expected { nonce: None, pinned: Some(&pinned), ..EXPECTED };
        assert!(checked(json!({ "nonce": null }), &expected).is_ok());
        let other = checked(json!({ "sub": "bob" }), &expected).unwrap_err();
        assert_eq!(other, VerifyError::Mismatch { claim: "sub".into() });
    }

    #[test]
    fn an_access_token_is_the_one_that_the_id_token_names() {
        // OpenID Connect Core's own example: RS256 would be the same, as the hash is that of ES256.
        let access = Secret::new("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y");
        let expected = Expected { access: Some(&access), ..EXPECTED };
        assert!(checked(json!({ "at_hash": "77QmUPtjPfzWtF2AnpK9RQ" }), &expected).is_ok());
        assert!(checked(json!({}), &expected).is_ok(), "it need not name one");
        let other = Secret::new("other");
        let expected = Expected { access: Some(&other), ..EXPECTED };
        assert!(checked(json!({ "at_hash": "77QmUPtjPfzWtF2AnpK9RQ" }), &expected).is_err());
    }
}
