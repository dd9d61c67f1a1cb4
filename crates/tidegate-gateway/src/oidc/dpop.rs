//! Proofs of possession (RFC 9449): a token that was bound to a key is worth nothing to who steals it.

use std::{collections::HashMap, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use parking_lot::Mutex;
use serde::Serialize;
use url::Url;

use super::{
    client::random_id,
    jose::{Algorithm, SigningKey, base64url},
};

/// The field of a proof.
pub const DPOP: HeaderName = HeaderName::from_static("dpop");
/// The field of the nonce that a server wants in the next proof.
pub const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Most servers whose nonces are kept. Default: 1024.
const MOST_NONCES: usize = 1024;
/// Longest nonce that is taken over. Default: 512 bytes.
const MOST_NONCE_BYTES: usize = 512;

/// A key that tokens are bound to, and the nonces that servers want in proofs. It prints its thumbprint alone.
pub struct Dpop {
    key: SigningKey,
    /// Of every proof: it shows the key.
    header: Box<str>,
    thumbprint: Box<str>,
    nonces: Mutex<HashMap<Box<str>, Arc<str>>>,
}

/// A key that can not sign proofs. It holds nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is an RSA key, which is too slow to sign every call; make one on a curve with: openssl genpkey -algorithm EC \
     -pkeyopt ec_paramgen_curve:P-256 -out dpop.pem"
)]
pub struct NotOnACurve;

/// What a proof is for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a Method,
    /// The URL, without query and fragment.
    pub url: &'a str,
    /// The server, by which its nonces are remembered.
    pub server: &'a str,
    /// The access token that is used, if one is.
    pub access: Option<&'a str>,
}

/// A proof, and the nonce in it.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The value of [`DPOP`].
    pub field: HeaderValue,
    /// The nonce in it, if the server ever wanted one.
    pub nonce: Option<Arc<str>>,
}

#[derive(Serialize)]
struct Claims<'a> {
    jti: String,
    htm: &'a str,
    htu: &'a str,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<String>,
}

impl Dpop {
    /// Binds tokens to a key.
    ///
    /// # Errors
    /// [`NotOnACurve`].
    pub fn new(key: SigningKey) -> Result<Self, NotOnACurve> {
        let jwk = key.public_jwk().ok_or(NotOnACurve)?;
        // Its members are those of a thumbprint, in their order, without white space (RFC 7638 §3).
        let thumbprint = base64url(digest(&SHA256, jwk.to_string().as_bytes()));
        let header = key.header("dpop+jwt", &[("jwk", jwk)]);
        Ok(Self { key, header: header.into(), thumbprint: thumbprint.into(), nonces: Mutex::default() })
    }

    /// Binds tokens to a new key, which is gone with the process.
    ///
    /// # Panics
    /// When the system has no randomness.
    pub fn made() -> Self {
        Self::new(SigningKey::generate()).expect("the key is on a curve")
    }

    /// The key's name: what a token that is bound to it says in `cnf.jkt`.
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    /// Proves possession for one question, at `now` in seconds since the Unix epoch.
    pub fn proof(&self, asked: Asked<'_>, now: i64) -> Proof {
        let nonce = self.nonces.lock().get(asked.server).cloned();
        let claims = Claims {
            jti: random_id(),
            htm: asked.method.as_str(),
            htu: asked.url,
            iat: now,
            nonce: nonce.as_deref(),
            ath: asked.access.map(|access| base64url(digest(&SHA256, access.as_bytes()))),
        };
        let proof = self.key.sign_under(&self.header, &claims);
        let field = HeaderValue::try_from(proof).expect("base64url is visible ASCII");
        Proof { field, nonce }
    }

    /// Takes over the nonce that a server answered a proof with; `used` was in the proof.
    pub fn learn(&self, server: &str, used: Option<&str>, headers: &HeaderMap) -> Nonce {
        let told = headers.get(DPOP_NONCE).and_then(|nonce| nonce.to_str().ok());
        let Some(told) = told.filter(|told| !told.is_empty() && told.len() <= MOST_NONCE_BYTES) else {
            return Nonce::Same;
        };
        let mut nonces = self.nonces.lock();
        match nonces.get_mut(server) {
            Some(known) if **known == *told => {}
            Some(known) => *known = told.into(),
            None => {
                if nonces.len() >= MOST_NONCES {
                    // Servers that come and go; they tell theirs again.
                    nonces.clear();
                }
                nonces.insert(server.into(), told.into());
            }
        }
        // Not what was known: another answer may have told it meanwhile, and the proof still lacked it.
        if used == Some(told) { Nonce::Same } else { Nonce::New }
    }
}

/// A URL as proofs name it, and its server.
pub(super) fn bare(url: &Url) -> (String, String) {
    let mut bare = url.clone();
    bare.set_query(None);
    bare.set_fragment(None);
    (bare.into(), url.origin().ascii_serialization())
}

/// What an answer said of nonces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonce {
    /// Nothing, or what the proof had.
    Same,
    /// Another one than the proof had.
    New,
}

impl std::fmt::Debug for Dpop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dpop({})", self.thumbprint)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::oidc::jose::{KeySet, Parts};

    fn asked<'a>(server: &'a str, access: Option<&'a str>) -> Asked<'a> {
        Asked { method: &Method::POST, url: "https://idp.example/token", server, access }
    }

    fn claims(proof: &Proof) -> Json {
        Parts::of(proof.field.to_str().unwrap()).unwrap().claims().unwrap()
    }

    #[test]
    fn a_proof_is_of_one_question_and_shows_its_key() {
        let dpop = Dpop::made();
        let proof = dpop.proof(asked("idp", Some("abc")), 1000);
        let parts = Parts::of(proof.field.to_str().unwrap()).unwrap();
        let jwk = dpop.key.public_jwk().unwrap();
        let keys = KeySet::read(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
        assert_eq!(keys.verify(&parts), Ok(()));
        let first = claims(&proof);
        assert_eq!((&first["htm"], &first["htu"]), (&"POST".into(), &"https://idp.example/token".into()));
        assert_eq!(first["iat"], 1000);
        assert_eq!(first["ath"], "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
        let again = claims(&dpop.proof(asked("idp", None), 1000));
        assert!(again["jti"] != first["jti"] && again.get("ath").is_none() && again.get("nonce").is_none());
    }

    #[test]
    fn a_url_is_named_without_its_query_and_fragment() {
        let (url, server) = bare(&"https://idp.example:443/token?x=1#y".parse().unwrap());
        assert_eq!((url.as_str(), server.as_str()), ("https://idp.example/token", "https://idp.example"));
    }

    #[test]
    fn a_thumbprint_is_that_of_the_standard() {
        // RFC 7638 has one of an RSA key only; this is the hash of the members of a P-256 key, in their order.
        let dpop = Dpop::made();
        let jwk = dpop.key.public_jwk().unwrap();
        let (x, y) = (jwk["x"].as_str().unwrap(), jwk["y"].as_str().unwrap());
        let text = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        assert_eq!(dpop.thumbprint(), base64url(digest(&SHA256, text.as_bytes())));
        assert_eq!(format!("{dpop:?}"), format!("Dpop({})", dpop.thumbprint()));
    }

    #[test]
    fn a_nonce_is_kept_for_the_server_that_gave_it() {
        let dpop = Dpop::made();
        let told =
            |nonce: &'static str| HeaderMap::from_iter([(DPOP_NONCE, HeaderValue::from_static(nonce))]);
        assert_eq!(dpop.learn("here", None, &told("n1")), Nonce::New);
        assert_eq!(dpop.learn("here", Some("n1"), &told("n1")), Nonce::Same);
        assert_eq!(dpop.learn("here", Some("n1"), &HeaderMap::new()), Nonce::Same);
        let nonce = |server| dpop.proof(asked(server, None), 1).nonce;
        assert_eq!((nonce("here").as_deref(), nonce("there").as_deref()), (Some("n1"), None));
        assert_eq!(claims(&dpop.proof(asked("here", None), 1))["nonce"], "n1");
    }

    #[test]
    fn a_proof_that_lacked_a_nonce_goes_again_though_another_answer_told_it_first() {
        let dpop = Dpop::made();
        let told = HeaderMap::from_iter([(DPOP_NONCE, HeaderValue::from_static("n1"))]);
        let (first, second) = (dpop.proof(asked("idp", None), 1), dpop.proof(asked("idp", None), 1));
        assert_eq!(dpop.learn("idp", first.nonce.as_deref(), &told), Nonce::New);
        assert_eq!(dpop.learn("idp", second.nonce.as_deref(), &told), Nonce::New);
    }

    #[test]
    fn the_nonces_of_so_many_servers_take_so_much_memory_and_no_more() {
        let dpop = Dpop::made();
        let told = HeaderMap::from_iter([(DPOP_NONCE, HeaderValue::from_static("n"))]);
        for server in 0..3 * MOST_NONCES {
            dpop.learn(&server.to_string(), None, &told);
        }
        assert!(dpop.nonces.lock().len() <= MOST_NONCES);
        let long = HeaderValue::try_from("n".repeat(MOST_NONCE_BYTES + 1)).unwrap();
        let too_long = HeaderMap::from_iter([(DPOP_NONCE, long)]);
        assert_eq!(dpop.learn("long", None, &too_long), Nonce::Same);
    }
}
