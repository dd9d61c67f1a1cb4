//! Who checks proofs of possession as RFC 9449 §4.3 has it: for the provider of the tests, and for services behind the gateway.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard},
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value as Json, json};
use tidegate_gateway::oidc::{
    date::wall,
    jose::{KeySet, Parts, base64url},
};

use super::{client, upstream::Upstream};

/// Longest difference of the clocks, in seconds.
const SKEW: i64 = 30;

/// What a server remembers of proofs.
#[derive(Default)]
pub struct Proofs {
    seen: HashSet<String>,
    /// What it wants in proofs.
    pub nonce: Option<String>,
    /// How many seconds its clock is ahead of ours.
    pub clock_ahead: i64,
}

/// Why a proof is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoProof {
    /// There is none.
    Missing,
    /// It is wrong, in this way.
    Wrong(&'static str),
    /// It lacks the nonce.
    Nonce,
}

impl Proofs {
    /// Checks the proof of a question; the thumbprint of its key.
    pub fn check(
        &mut self,
        headers: &HeaderMap,
        method: &str,
        url: &str,
        access: Option<&str>,
    ) -> Result<String, NoProof> {
        let mut fields = headers.get_all("dpop").iter();
        let proof = match (fields.next(), fields.next()) {
            (None, _) => return Err(NoProof::Missing),
            (Some(_), Some(_)) => return Err(NoProof::Wrong("two proofs")),
            (Some(proof), None) => proof.to_str().unwrap(),
        };
        let is = |so: bool, what| if so { Ok(()) } else { Err(NoProof::Wrong(what)) };
        let header = proof.split('.').next().and_then(|header| URL_SAFE_NO_PAD.decode(header).ok());
        let header: Json = header.and_then(|header| serde_json::from_slice(&header).ok()).unwrap_or_default();
        let jwk = &header["jwk"];
        is(header["typ"] == "dpop+jwt", "typ")?;
        is(jwk.is_object() && jwk.get("d").is_none(), "jwk")?;
        let parts = Parts::of(proof).map_err(|_| NoProof::Wrong("no JWT"))?;
        let keys = KeySet::read(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
        is(keys.verify(&parts).is_ok(), "signature")?;
        let claims: Json = parts.claims().map_err(|_| NoProof::Wrong("claims"))?;
        is(claims["htm"] == method, "htm")?;
        is(claims["htu"] == url, "htu")?;
        let now = wall().as_secs() as i64 + self.clock_ahead;
        is(claims["iat"].as_i64().is_some_and(|iat| (iat - now).abs() <= SKEW), "iat")?;
        let hash = access.map(|access| base64url(digest(&SHA256, access.as_bytes())));
        is(claims.get("ath").and_then(Json::as_str) == hash.as_deref(), "ath")?;
        let id = claims["jti"].as_str().unwrap_or_default();
        is(id.len() >= 16 && self.seen.insert(id.to_owned()), "jti")?;
        match &self.nonce {
            Some(nonce) if claims["nonce"] != nonce.as_str() => Err(NoProof::Nonce),
            _ => Ok(thumbprint(jwk)),
        }
    }
}

/// The thumbprint of a public key (RFC 7638).
pub fn thumbprint(jwk: &Json) -> String {
    let member = |name: &str| jwk[name].as_str().unwrap_or_default().to_owned();
    let text = match jwk["kty"].as_str() {
        Some("EC") => {
            format!(r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#, member("crv"), member("x"), member("y"))
        }
        _ => format!(r#"{{"crv":"{}","kty":"OKP","x":"{}"}}"#, member("crv"), member("x")),
    };
    base64url(digest(&SHA256, text.as_bytes()))
}

/// A service that takes tokens with a proof of the key that they are bound to, and no others.
pub struct Resource {
    upstream: Upstream,
    state: Arc<Mutex<Seen>>,
}

/// What it saw.
#[derive(Default)]
pub struct Seen {
    /// How it checks proofs.
    pub proofs: Proofs,
    /// What it takes itself for; none: what it is called, over plain HTTP.
    pub url: Option<String>,
    /// The calls it served: their method, target, body and token.
    pub served: Vec<(String, String, Bytes, String)>,
    /// Why it refused others.
    pub refused: Vec<String>,
}

impl Resource {
    /// Starts one; `bound_to` tells the key that a token is bound to, if it is good.
    pub async fn start(bound_to: impl Fn(&str) -> Option<String> + Clone + Send + Sync + 'static) -> Self {
        let state = Arc::<Mutex<Seen>>::default();
        let noted = Arc::clone(&state);
        let upstream = Upstream::start(move |request| {
            let (noted, bound_to) = (Arc::clone(&noted), bound_to.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let mut seen = noted.lock().unwrap();
                let host = head.uri.authority().map(ToString::to_string);
                let host = host.unwrap_or_else(|| head.headers["host"].to_str().unwrap().to_owned());
                // As URLs are compared: in lower case, without the usual port (RFC 3986 §6.2).
                let host = host.strip_suffix(":80").unwrap_or(&host).to_ascii_lowercase();
                let url = seen.url.clone().unwrap_or_else(|| format!("http://{host}"));
                let url = format!("{url}{}", head.uri.path());
                let all: Vec<_> = head.headers.get_all("authorization").iter().collect();
                let carried = all.iter().map(|one| one.to_str().unwrap()).collect::<Vec<_>>().join(" AND ");
                let mut response = Response::new(client::whole("served"));
                let refusal = match carried.strip_prefix("DPoP ") {
                    None => Some("invalid_token: not bound"),
                    Some(token) => {
                        let proved =
                            seen.proofs.check(&head.headers, head.method.as_str(), &url, Some(token));
                        match (proved, bound_to(token)) {
                            (Err(NoProof::Nonce), _) => Some("use_dpop_nonce"),
                            (Err(NoProof::Missing), _) => Some("invalid_dpop_proof: missing"),
                            (Err(NoProof::Wrong(what)), _) => {
                                seen.refused.push(what.to_owned());
                                Some("invalid_dpop_proof")
                            }
                            (Ok(key), Some(bound)) if key == bound => None,
                            (Ok(_), _) => Some("invalid_token: bound to another key"),
                        }
                    }
                };
                if let Some(nonce) = &seen.proofs.nonce {
                    response.headers_mut().insert("dpop-nonce", nonce.parse().unwrap());
                }
                match refusal {
                    None => {
                        let token = carried.strip_prefix("DPoP ").unwrap_or_default().to_owned();
                        seen.served.push((head.method.to_string(), head.uri.path().to_owned(), body, token));
                    }
                    Some(why) => {
                        seen.refused.push(why.to_owned());
                        *response.status_mut() = StatusCode::UNAUTHORIZED;
                        let error = why.split(':').next().unwrap();
                        let challenge = format!("DPoP realm=\"orders\", error=\"{error}\", algs=\"ES256\"");
                        response.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
                    }
                }
                response
            }
        })
        .await;
        Self { upstream, state }
    }

    /// The server.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// What it saw, and how it checks.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.state.lock().unwrap()
    }

    /// Wants this nonce from now on.
    pub fn nonce(&self, nonce: &str) {
        self.seen().proofs.nonce = Some(nonce.to_owned());
    }
}
