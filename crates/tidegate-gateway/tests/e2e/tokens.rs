//! Access tokens for upstreams, through the front door: how many grants a provider sees, and what calls see when it fails.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Response, StatusCode};

use crate::support::{
    client::{self, Answer},
    eventually,
    gateway::Gateway,
    idp::{CLIENT, Does, Idp, SECRET},
    upstream::Upstream,
};

mod bound;
mod certificates;
mod failures;
mod grants;
mod proofs;
mod provider;
mod shared;

/// An upstream that notes the `Authorization` of every call, and lets in whom the provider knows.
pub(crate) struct Guarded {
    upstream: Upstream,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Guarded {
    /// Lets in every call whose token `knows` it.
    pub(crate) async fn start(knows: impl Fn(&str) -> bool + Clone + Send + Sync + 'static) -> Self {
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&seen);
        let upstream = Upstream::start(move |request| {
            let all: Vec<_> = request.headers().get_all("authorization").iter().collect();
            let text = all.iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join(" AND ");
            let known = text.split_once(' ').is_some_and(|(_, token)| knows(token));
            noted.lock().unwrap().push(text);
            async move {
                let mut response = Response::new(client::whole(Bytes::from_static(b"served")));
                if !known {
                    *response.status_mut() = StatusCode::UNAUTHORIZED;
                    let challenge = "Bearer realm=\"orders\", error=\"invalid_token\"";
                    response.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
                }
                response
            }
        })
        .await;
        Self { upstream, seen }
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// A gateway before `upstream` whose calls carry a token of `idp`, with these further settings of it, one a line.
pub(crate) async fn gateway(upstream: &Guarded, idp: &Idp, settings: &str) -> Gateway {
    start(upstream, idp.issuer(), settings, SECRET).await
}

pub(crate) async fn start(upstream: &Guarded, issuer: &str, settings: &str, secret: &str) -> Gateway {
    Gateway::start_with(|directory| {
        std::fs::write(directory.join("secret"), format!("{secret}\n")).unwrap();
        config(upstream, issuer, settings)
    })
    .await
}

/// The configuration of [`gateway`].
pub(crate) fn config(upstream: &Guarded, issuer: &str, settings: &str) -> String {
    config_at(upstream.upstream.addr(), issuer, settings)
}

/// The same, before a service that listens at `addr`.
pub(crate) fn config_at(addr: SocketAddr, issuer: &str, settings: &str) -> String {
    let settings: String = settings.lines().map(|line| format!("    {}\n", line.trim())).collect();
    format!(
        "log: {{ level: debug }}
upstreams:
  main:
    endpoints: [\"http://{addr}\"]
    token: billing
routes:
  - upstream: main
    name: everything
tokens:
  billing:
    issuer: {issuer}
    allow_http: true
    client_id: {CLIENT}
    client_secret: {{ file: secret }}
{settings}"
    )
}

/// Gets a path `count` times at once.
pub(crate) async fn at_once(gateway: &Gateway, count: usize) -> Vec<Answer> {
    let calls =
        (0..count).map(|_| client::get_with(gateway.http(), "/", &[("authorization", "Bearer mine")]));
    futures_util::future::join_all(calls).await
}

/// Waits until the one token of the gateway is in this state.
pub(crate) async fn token_is(gateway: &Gateway, state: &str) {
    gateway.state_is(&format!("the token being {state}"), |all| all["tokens"][0]["state"] == state).await;
}

/// Looks for secrets wherever the gateway shows something.
pub(crate) async fn shows_no_secret(gateway: &mut Gateway, secrets: &[String]) {
    let mut shown = vec![("log", gateway.process().output())];
    for page in ["/metrics", "/state", "/config"] {
        for accept in ["application/json", "text/html"] {
            shown.push((page, client::get_at(gateway.admin(), page, &[("accept", accept)]).await.text()));
        }
    }
    assert!(!secrets.is_empty());
    for secret in secrets {
        for (place, text) in &shown {
            assert!(!text.contains(secret.as_str()), "a secret is in {place}");
        }
    }
}
