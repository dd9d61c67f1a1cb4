//! Who the gateway is to a provider, and how it proves that (RFC 6749 §2.3, RFC 7523, RFC 8705).

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;
use tidegate::Secret;
use url::form_urlencoded::byte_serialize;

use super::{
    jose::{InvalidKey, SigningKey, base64url},
    provider::Metadata,
};
use crate::config::ClientAuth;

/// How long an assertion is good, in seconds. Default: 60.
const ASSERTION_SECONDS: i64 = 60;
const ASSERTION_KIND: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Who the gateway is to a provider.
#[derive(Debug)]
pub struct Client {
    /// Its id.
    pub id: String,
    /// How it proves that.
    pub auth: Auth,
}

/// How a client proves who it is.
#[derive(Debug)]
pub enum Auth {
    /// By its secret, in the way that the provider's document prefers.
    Secret(Secret),
    /// By its secret in `Authorization`.
    Basic(Secret),
    /// By its secret in the form.
    Post(Secret),
    /// By an assertion that its key signs.
    Key(Box<SigningKey>),
    /// By the certificate of the connection.
    Certificate,
    /// Not at all: a public client.
    Nothing,
}

/// What a configuration gives to prove a client by.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) auth: Option<ClientAuth>,
    pub(super) secret: Option<&'a Secret>,
    pub(super) key: Option<&'a Secret>,
    pub(super) key_id: Option<&'a str>,
    pub(super) algorithm: Option<&'a str>,
    pub(super) has_certificate: bool,
}

/// Why a client can not prove who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoProof {
    /// Its key is none.
    Key(InvalidKey),
    /// There is nothing to prove it by.
    Nothing,
}

impl Given<'_> {
    /// How the client proves who it is: as `auth` says, or by what there is.
    pub(super) fn auth(&self) -> Result<Auth, NoProof> {
        let secret = || self.secret.cloned().ok_or(NoProof::Nothing);
        match self.auth {
            Some(ClientAuth::ClientSecretBasic) => secret().map(Auth::Basic),
            Some(ClientAuth::ClientSecretPost) => secret().map(Auth::Post),
            Some(ClientAuth::PrivateKeyJwt) => self.signing(),
            Some(ClientAuth::TlsClientAuth | ClientAuth::SelfSignedTlsClientAuth) => {
                if self.has_certificate {
                    Ok(Auth::Certificate)
                } else {
                    Err(NoProof::Nothing)
                }
            }
            Some(ClientAuth::None) => Ok(Auth::Nothing),
            None if self.key.is_some() => self.signing(),
            None if self.secret.is_some() => secret().map(Auth::Secret),
            None if self.has_certificate => Ok(Auth::Certificate),
            None => Err(NoProof::Nothing),
        }
    }

    fn signing(&self) -> Result<Auth, NoProof> {
        let pem = self.key.ok_or(NoProof::Nothing)?.expose().as_bytes();
        // The schema has checked the algorithm's name.
        let algorithm = self.algorithm.and_then(|text| text.parse().ok());
        let key = SigningKey::from_pem(pem, algorithm, self.key_id.map(str::to_owned));
        key.map(|key| Auth::Key(Box::new(key))).map_err(NoProof::Key)
    }
}

/// What is added to a question.
#[derive(Default)]
pub(super) struct Proof {
    pub(super) fields: Vec<(&'static str, String)>,
    pub(super) headers: HeaderMap,
}

impl Client {
    /// Proves who it is, at `now` by the provider's clock in seconds since the Unix epoch.
    pub(super) fn prove(&self, metadata: &Metadata, now: i64) -> Proof {
        match &self.auth {
            Auth::Secret(secret) if prefers_post(metadata) => self.post(secret),
            Auth::Secret(secret) | Auth::Basic(secret) => self.basic(secret),
            Auth::Post(secret) => self.post(secret),
            Auth::Key(key) => self.assertion(key, &metadata.issuer, now),
            Auth::Certificate | Auth::Nothing => {
                Proof { fields: vec![("client_id", self.id.clone())], ..Proof::default() }
            }
        }
    }

    fn basic(&self, secret: &Secret) -> Proof {
        // Both are form-encoded before they are joined (RFC 6749 §2.3.1).
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let joined = format!("{}:{}", encoded(&self.id), encoded(secret.expose()));
        let value = format!("Basic {}", STANDARD.encode(joined));
        let mut value = HeaderValue::try_from(value).expect("base64 is visible ASCII");
        value.set_sensitive(true);
        Proof { headers: HeaderMap::from_iter([(header::AUTHORIZATION, value)]), ..Proof::default() }
    }

    fn post(&self, secret: &Secret) -> Proof {
        let fields = vec![("client_id", self.id.clone()), ("client_secret", secret.expose().to_owned())];
        Proof { fields, ..Proof::default() }
    }

    fn assertion(&self, key: &SigningKey, issuer: &str, now: i64) -> Proof {
        // The issuer alone as the audience: an assertion that fits several endpoints could be passed on from one to another.
        let claims = json!({
            "iss": self.id,
            "sub": self.id,
            "aud": issuer,
            "jti": random_id(),
            "iat": now,
            "exp": now + ASSERTION_SECONDS,
        });
        let assertion = key.sign("JWT", &[], &claims);
        let fields = vec![
            ("client_id", self.id.clone()),
            ("client_assertion_type", ASSERTION_KIND.to_owned()),
            ("client_assertion", assertion),
        ];
        Proof { fields, ..Proof::default() }
    }
}

fn prefers_post(metadata: &Metadata) -> bool {
    let supported = metadata.token_endpoint_auth_methods_supported.as_deref().unwrap_or_default();
    let has = |name: &str| supported.iter().any(|method| method == name);
    has("client_secret_post") && !has("client_secret_basic")
}

/// 128 random bits as text.
///
/// # Panics
/// When the system has no randomness.
pub(super) fn random_id() -> String {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).expect("the system gives randomness");
    base64url(bytes)
}
