//! Proofs of possession (RFC 9449): a token that was bound to a key is worth nothing to who steals it.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use url::Url;

use super::{
    client::random_id,
    jose::{SigningKey, base64url},
};

/// The field of a proof.
pub const DPOP: HeaderName = HeaderName::from_static("dpop");
/// The field of the nonce that a server wants in the next proof.
pub const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Most servers whose nonces are kept. Default: 64.
const MOST_NONCES: usize = 64;
/// Longest nonce that is taken over. Default: 512 bytes.
const MOST_NONCE_BYTES: usize = 512;

/// A key that tokens are bound to, for as long as the process runs, and the nonces that servers want in proofs.
#[derive(Debug)]
pub struct Dpop {
    key: SigningKey,
    jwk: Json,
    nonces: Mutex<HashMap<String, String>>,
}

impl Dpop {
    /// Makes a new key.
    pub fn new() -> Self {
        let key = SigningKey::generate();
        let jwk = key.public_jwk().expect("a key on a curve has a public half to show");
        Self { key, jwk, nonces: Mutex::default() }
    }

    /// Proves possession for one question, at `now` in seconds since the Unix epoch; with `access`, for its use.
    pub fn proof(&self, method: &Method, url: &Url, now: i64, access: Option<&str>) -> HeaderValue {
        let mut bare = url.clone();
        bare.set_query(None);
        bare.set_fragment(None);
        let mut claims = json!({
            "jti": random_id(),
            "htm": method.as_str(),
            "htu": bare.as_str(),
            "iat": now,
        });
        if let Some(nonce) = self.nonces.lock().get(&origin(url)) {
            claims["nonce"] = nonce.as_str().into();
        }
        if let Some(access) = access {
            claims["ath"] = base64url(digest(&SHA256, access.as_bytes())).into();
        }
        let proof = self.key.sign("dpop+jwt", &[("jwk", self.jwk.clone())], &claims);
        HeaderValue::try_from(proof).expect("base64url is visible ASCII")
    }

    /// Takes over the nonce of an answer.
    pub fn learn(&self, url: &Url, headers: &HeaderMap) -> Nonce {
        let told = headers.get(DPOP_NONCE).and_then(|nonce| nonce.to_str().ok());
        let Some(told) = told.filter(|told| !told.is_empty() && told.len() <= MOST_NONCE_BYTES) else {
            return Nonce::Same;
        };
        let mut nonces = self.nonces.lock();
        let origin = origin(url);
        if nonces.len() >= MOST_NONCES && !nonces.contains_key(&origin) {
            nonces.clear();
        }
        match nonces.insert(origin, told.to_owned()) {
            Some(old) if old == told => Nonce::Same,
            Some(_) | None => Nonce::New,
        }
    }
}

impl Default for Dpop {
    fn default() -> Self {
        Self::new()
    }
}

/// What an answer said of nonces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonce {
    /// Nothing new.
    Same,
    /// Another one than the proof had.
    New,
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oidc::jose::{KeySet, Parts};

    #[test]
    fn a_proof_is_of_one_question_and_shows_its_key() {
        let dpop = Dpop::new();
        let url: Url = "https://idp.example/token?x=1#y".parse().unwrap();
        let proof = dpop.proof(&Method::POST, &url, 1000, Some("abc"));
        let parts = Parts::of(proof.to_str().unwrap()).unwrap();
        let keys = KeySet::read(json!({ "keys": [dpop.jwk] }).to_string().as_bytes()).unwrap();
        assert_eq!(keys.verify(&parts), Ok(()));
        let claims: Json = parts.claims().unwrap();
        assert_eq!(claims["htm"], "POST");
        assert_eq!(claims["htu"], "https://idp.example/token");
        assert_eq!(claims["iat"], 1000);
        assert_eq!(claims["ath"], "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
        let again: Json = {
            let proof = dpop.proof(&Method::POST, &url, 1000, None);
            Parts::of(proof.to_str().unwrap()).unwrap().claims().unwrap()
        };
        assert!(again["jti"] != claims["jti"] && again.get("ath").is_none() && again.get("nonce").is_none());
    }

    #[test]
    fn a_nonce_is_kept_for_the_server_that_gave_it() {
        let dpop = Dpop::new();
        let (here, there): (Url, Url) =
            ("https://a.example/token".parse().unwrap(), "https://b.example/".parse().unwrap());
        let told =
            |nonce: &'static str| HeaderMap::from_iter([(DPOP_NONCE, HeaderValue::from_static(nonce))]);
        assert_eq!(dpop.learn(&here, &told("n1")), Nonce::New);
        assert_eq!(dpop.learn(&here, &told("n1")), Nonce::Same);
        assert_eq!(dpop.learn(&here, &HeaderMap::new()), Nonce::Same);
        let nonce = |url| {
            let proof = dpop.proof(&Method::GET, url, 1, None);
            let claims: Json = Parts::of(proof.to_str().unwrap()).unwrap().claims().unwrap();
            claims.get("nonce").cloned()
        };
        assert_eq!((nonce(&here), nonce(&there)), (Some("n1".into()), None));
    }
}
