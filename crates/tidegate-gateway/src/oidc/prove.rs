//! Proofs of possession for calls of upstreams (RFC 9449 §7): each attempt has one of its own, for what it asks of whom, and
//! with the nonce that the upstream wants.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use parking_lot::Mutex;

use super::{
    date::ProviderClock,
    dpop::{Asked, DPOP, DPOP_NONCE, Dpop, Nonce},
};
use crate::{
    state::DpopState,
    upstream::{Finish, Finishing, Target},
};

/// Proves possession of one key in the calls of upstreams.
#[derive(Debug)]
pub struct Prover {
    dpop: Arc<Dpop>,
    clock: Arc<ProviderClock>,
    /// What upstreams take themselves for, without a slash at its end; none: as they are spoken to.
    url: Option<Box<str>>,
    /// Proofs that an upstream refused.
    refused: AtomicU64,
    /// Whether one was refused since one was taken.
    refusing: AtomicBool,
}

/// The proofs of one call.
pub struct Proving {
    prover: Arc<Prover>,
    last: Mutex<Option<Last>>,
}

/// The last proof.
struct Last {
    server: String,
    nonce: Option<Arc<str>>,
}

/// What an answer means for proofs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The call was acted on, or refused for another reason.
    Done,
    /// It was not acted on, as its proof lacked the nonce that is known now.
    Again,
}

impl Prover {
    /// Makes one; proofs are timed by `clock`.
    pub fn new(dpop: Arc<Dpop>, clock: Arc<ProviderClock>, url: Option<&str>) -> Self {
        Self {
            dpop,
            clock,
            url: url.map(|url| url.trim_end_matches('/').into()),
            refused: AtomicU64::default(),
            refusing: AtomicBool::default(),
        }
    }

    /// What it did. A thumbprint is the name of a key, and no secret.
    pub fn state(&self) -> DpopState {
        DpopState { thumbprint: self.dpop.thumbprint().to_owned(), refused: self.refused.load(Relaxed) }
    }

    /// Counts what became of a proof, and tells the operator of the first in a row that is refused.
    fn count(&self, status: StatusCode, headers: &HeaderMap) {
        if says(status, headers, "invalid_dpop_proof") {
            self.refused.fetch_add(1, Relaxed);
            if !self.refusing.swap(true, Relaxed) {
                tracing::warn!(
                    key = self.dpop.thumbprint(),
                    "an upstream refuses proofs of possession; look at its clock, and name it with dpop.url as it names itself"
                );
            }
        } else if status != StatusCode::UNAUTHORIZED && self.refusing.load(Relaxed) {
            self.refusing.store(false, Relaxed);
        }
    }

    /// Has every attempt of a call prove possession, if the token that it carries is bound to a key. What the client sent of
    /// proofs goes: it proves nothing of our token.
    pub fn begin<B>(self: &Arc<Self>, request: &mut Request<B>) {
        if access(request.headers()).is_some() {
            let proving = Arc::new(Proving { prover: Arc::clone(self), last: Mutex::default() });
            request.extensions_mut().insert(Arc::clone(&proving));
            request.extensions_mut().insert(Finish(proving));
        }
    }
}

/// Takes out of a request what a client sent of proofs, and what others would have proved: it carries a token of ours now.
pub fn forget<B>(request: &mut Request<B>) {
    request.headers_mut().remove(DPOP);
    request.extensions_mut().remove::<Finish>();
    request.extensions_mut().remove::<Arc<Proving>>();
}

/// The access token of `DPoP TOKEN`.
fn access(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("DPoP ")
}

impl Proving {
    /// The proofs of a call, if it has any.
    pub fn of<B>(request: &Request<B>) -> Option<Arc<Self>> {
        request.extensions().get::<Arc<Self>>().cloned()
    }

    /// Learns from an answer, and takes out of it what is ours.
    pub fn heard(&self, status: StatusCode, headers: &mut HeaderMap) -> Heard {
        let last = self.last.lock();
        let Some(last) = &*last else { return Heard::Done };
        let nonce = self.prover.dpop.learn(&last.server, last.nonce.as_deref(), headers);
        headers.remove(DPOP_NONCE);
        self.prover.count(status, headers);
        if nonce == Nonce::New && says(status, headers, "use_dpop_nonce") {
            Heard::Again
        } else {
            Heard::Done
        }
    }
}

impl Finishing for Proving {
    fn finish(&self, target: &Target<'_>, headers: &mut HeaderMap) {
        let Some(access) = access(headers) else { return };
        let url = match &self.prover.url {
            Some(url) => format!("{url}{}", target.path),
            None => {
                let (scheme, host) = (target.scheme, host(target.scheme, target.authority));
                format!("{scheme}://{host}{}", target.path)
            }
        };
        // By the endpoint and not by the host that is named: that one may be the client's choice.
        let server = format!("{}://{}", target.scheme, target.endpoint);
        let asked = Asked { method: target.method, url: &url, server: &server, access: Some(access) };
        let proof = self.prover.dpop.proof(asked, self.prover.clock.seconds());
        *self.last.lock() = Some(Last { server, nonce: proof.nonce });
        headers.insert(DPOP, proof.field);
    }
}

/// A host as URLs have it: in lower case, and without the port that the scheme means anyway.
fn host(scheme: &str, authority: &str) -> String {
    let usual = if scheme == "https" { ":443" } else { ":80" };
    authority.strip_suffix(usual).unwrap_or(authority).to_ascii_lowercase()
}

/// Whether an answer refuses a call with this error (RFC 9449 §7.1 and §9).
pub(super) fn says(status: StatusCode, headers: &HeaderMap, error: &str) -> bool {
    status == StatusCode::UNAUTHORIZED
        && headers.get_all(header::WWW_AUTHENTICATE).iter().any(|challenge: &HeaderValue| {
            let text = String::from_utf8_lossy(challenge.as_bytes());
            text.split("error=").skip(1).any(|told| {
                let told = told.strip_prefix('"').unwrap_or(told);
                told.strip_prefix(error)
                    .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
            })
        })
}

#[cfg(test)]
mod tests {
    use http::{Method, uri::Authority};
    use serde_json::Value as Json;

    use super::*;
    use crate::oidc::jose::Parts;

    fn prover(url: Option<&str>) -> Arc<Prover> {
        Arc::new(Prover::new(Arc::new(Dpop::made()), Arc::default(), url))
    }

    /// The claims of the proof in a call of `authority` and `path`, with this `Authorization`.
    fn proof(prover: &Arc<Prover>, scheme: &str, authority: &str, path: &str, carried: &str) -> Option<Json> {
        let mut request = Request::builder()
            .header("authorization", carried)
            .header("dpop", "the client's")
            .header("dpop", "another of the client's")
            .body(())
            .unwrap();
        forget(&mut request);
        prover.begin(&mut request);
        let proving = Proving::of(&request)?;
        let endpoint = Authority::from_static("10.0.0.1:9001");
        let target = Target { method: &Method::PUT, scheme, authority, path, endpoint: &endpoint };
        proving.finish(&target, request.headers_mut());
        let mut fields = request.headers().get_all(DPOP).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else { panic!("not one proof") };
        Some(Parts::of(field.to_str().unwrap()).unwrap().claims().unwrap())
    }

    #[test]
    fn a_proof_names_what_the_upstream_is_told_or_takes_itself_for() {
        let (here, known) = (prover(None), prover(Some("https://api.example/v1/")));
        for (prover, scheme, authority, path, htu) in [
            (&here, "http", "orders.internal:9001", "/a/b", "http://orders.internal:9001/a/b"),
            (&here, "https", "Orders.Example:443", "/", "https://orders.example/"),
            (&here, "http", "orders:80", "/", "http://orders/"),
            (&here, "https", "orders:80", "/", "https://orders:80/"),
            (&known, "http", "10.0.0.1:9001", "/a", "https://api.example/v1/a"),
        ] {
            let claims = proof(prover, scheme, authority, path, "DPoP abc").unwrap();
            assert_eq!((&claims["htu"], &claims["htm"]), (&htu.into(), &"PUT".into()));
            assert_eq!(claims["ath"], "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
        }
    }

    #[test]
    fn a_token_that_is_bound_to_nothing_goes_without_a_proof() {
        assert_eq!(proof(&prover(None), "http", "h", "/", "Bearer abc"), None);
    }

    #[test]
    fn only_an_answer_that_wants_a_nonce_and_tells_one_is_asked_again() {
        let prover = prover(None);
        let mut request = Request::builder().header("authorization", "DPoP abc").body(()).unwrap();
        prover.begin(&mut request);
        let proving = Proving::of(&request).unwrap();
        let endpoint = Authority::from_static("h");
        let mut heard = |status: u16, challenge: &str, nonce: Option<&str>| {
            let target = Target {
                method: &Method::GET,
                scheme: "http",
                authority: "h",
                path: "/",
                endpoint: &endpoint,
            };
            proving.finish(&target, request.headers_mut());
            let mut headers = HeaderMap::new();
            headers.insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
            headers.extend(nonce.map(|nonce| (DPOP_NONCE, nonce.parse().unwrap())));
            let heard = proving.heard(StatusCode::from_u16(status).unwrap(), &mut headers);
            assert!(!headers.contains_key(DPOP_NONCE), "it is the gateway's");
            heard
        };
        const WANTS: &str = "DPoP realm=\"x\", error=\"use_dpop_nonce\"";
        assert_eq!(heard(401, WANTS, None), Heard::Done, "it does not say which");
        assert_eq!(heard(401, WANTS, Some("n1")), Heard::Again);
        assert_eq!(heard(401, WANTS, Some("n1")), Heard::Done, "the proof had it");
        assert_eq!(heard(200, WANTS, Some("n2")), Heard::Done);
        assert_eq!(heard(401, "DPoP error=\"invalid_token\"", Some("n3")), Heard::Done);
        assert_eq!(heard(401, WANTS, Some("n4")), Heard::Again);
        assert_eq!(heard(401, "DPoP error=use_dpop_nonces", Some("n5")), Heard::Done);
        heard(401, "Bearer, DPoP algs=\"ES256\", error=\"invalid_dpop_proof\"", None);
        assert_eq!(prover.state().refused, 1);
    }
}
