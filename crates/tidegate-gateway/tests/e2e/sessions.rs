//! Browser sessions through the front door: a login, what a session is let in with, how it is kept fresh, and its end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, Response, StatusCode, header};
use url::Url;

use crate::{
    servers::Redis,
    support::{
        client::{self, Answer},
        gateway::Gateway,
        idp::{CLIENT, Idp, SECRET},
        upstream::Upstream,
    },
};

pub(crate) mod certified;
mod files;
mod limits;
mod logins;
mod logouts;
mod memory;
mod refreshes;
mod streams;

/// An upstream that notes the fields of every call.
pub(crate) struct Behind {
    upstream: Upstream,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Behind {
    pub(crate) async fn start() -> Self {
        let seen = Arc::<Mutex<Vec<HeaderMap>>>::default();
        let noted = Arc::clone(&seen);
        let upstream = Upstream::start(move |request| {
            noted.lock().unwrap().push(request.headers().clone());
            async { Response::new(client::whole("served")) }
        })
        .await;
        Self { upstream, seen }
    }

    pub(crate) fn seen(&self) -> Vec<HeaderMap> {
        self.seen.lock().unwrap().clone()
    }
}

/// A gateway whose users log in at `issuer`, with these further settings of the session, one a line.
pub(crate) async fn gateway(behind: &Behind, issuer: &str, settings: &str, store: &str) -> Gateway {
    of(|| config(behind, issuer, settings, store)).await
}

/// A gateway with this configuration, which names the files that [`config`] names.
pub(crate) async fn of(config: impl Fn() -> String) -> Gateway {
    Gateway::start_with(|directory| {
        std::fs::write(directory.join("secret"), SECRET).unwrap();
        std::fs::write(directory.join("session.key"), STANDARD.encode((1..=32).collect::<Vec<u8>>()))
            .unwrap();
        config()
    })
    .await
}

pub(crate) fn config(behind: &Behind, issuer: &str, settings: &str, store: &str) -> String {
    config_at(behind.upstream.addr(), issuer, settings, store)
}

/// The same, before a service that listens at `addr`.
pub(crate) fn config_at(addr: std::net::SocketAddr, issuer: &str, settings: &str, store: &str) -> String {
    let settings: String = settings.lines().map(|line| format!("    {}\n", line.trim())).collect();
    format!(
        "log: {{ level: debug }}
store: {store}
upstreams:
  main:
    endpoints: [\"http://{addr}\"]
    connections: {{ max: 64, connect_timeout: 60s }}
    timeout: 10m
routes:
  - upstream: main
    name: everything
    session: idp
  - upstream: main
    match: {{ path: /public }}
sessions:
  idp:
    issuer: {issuer}
    allow_http: true
    client_id: {CLIENT}
    client_secret: {{ file: secret }}
    keys: [{{ file: session.key }}]
    headers: {{ x-user: sub, x-email: email }}
    pass_token: true
{settings}"
    )
}

/// A store that may take its time on a busy machine.
pub(crate) fn patient(redis: &Redis) -> String {
    format!("{{ url: \"{}\", deadline: 2s }}", redis.url())
}

/// A browser: it keeps cookies and says what it does.
#[derive(Clone, Default)]
pub(crate) struct Browser {
    pub(crate) cookies: BTreeMap<String, String>,
}

impl Browser {
    fn cookie(&self) -> String {
        self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    /// Goes to a page.
    pub(crate) async fn goes(&mut self, gateway: &Gateway, path: &str) -> Answer {
        self.sends(gateway, "GET", path, &[("sec-fetch-mode", "navigate"), ("sec-fetch-site", "none")]).await
    }

    /// Fetches something for a page.
    pub(crate) async fn fetches(&mut self, gateway: &Gateway, path: &str) -> Answer {
        self.sends(gateway, "GET", path, &[("sec-fetch-mode", "cors"), ("sec-fetch-site", "same-origin")])
            .await
    }

    pub(crate) async fn sends(
        &mut self,
        gateway: &Gateway,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Answer {
        let mut request = client::request(method, path);
        if !self.cookies.is_empty() {
            request = request.header("cookie", self.cookie());
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let answer = client::send(gateway.http(), request.body(client::empty()).unwrap()).await;
        for cookie in answer.headers.get_all(header::SET_COOKIE) {
            let text = cookie.to_str().unwrap();
            assert!(
                text.contains("HttpOnly") && text.contains("SameSite=Lax") && text.contains("Path=/"),
                "{text}"
            );
            let (name, rest) = text.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            if text.contains("Max-Age=0;") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    /// Goes to a page and logs in at the provider, back to the page it wanted.
    pub(crate) async fn logs_in(&mut self, gateway: &Gateway, path: &str) -> Answer {
        self.logs_in_as("ann", gateway, path).await
    }

    /// The same, as this user.
    pub(crate) async fn logs_in_as(&mut self, user: &str, gateway: &Gateway, path: &str) -> Answer {
        let away = self.goes(gateway, path).await;
        assert_eq!(away.status, StatusCode::SEE_OTHER, "{}", away.text());
        let back = at_provider_as(user, &away).await;
        let landed = self.goes(gateway, &back).await;
        assert_eq!(landed.status, StatusCode::SEE_OTHER, "{}", landed.text());
        let target = landed.header("location").to_owned();
        self.goes(gateway, &target).await
    }

    /// The value of the session's cookie.
    pub(crate) fn session(&self) -> Option<&String> {
        self.cookies.get("tidegate")
    }
}

/// Logs in at the provider that an answer leads to; where that leads back to, as a path.
pub(crate) async fn at_provider(away: &Answer) -> String {
    at_provider_as("ann", away).await
}

/// The same, as this user.
pub(crate) async fn at_provider_as(user: &str, away: &Answer) -> String {
    let mut url: Url = away.header("location").parse().unwrap();
    url.query_pairs_mut().append_pair("login_hint", user);
    let addr = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap()).parse().unwrap();
    let path = &url[url::Position::BeforePath..];
    let agreed = client::get_at(addr, path, &[]).await;
    assert_eq!(agreed.status, StatusCode::FOUND);
    let back: Url = agreed.header("location").parse().unwrap();
    assert_eq!(back.host_str(), Some("gateway.test"));
    back[url::Position::BeforePath..].to_owned()
}

/// What must not be seen anywhere: what the provider gave out, and what browsers keep.
pub(crate) fn secrets(idp: &Idp, browsers: &[&Browser]) -> Vec<String> {
    let mut secrets = idp.secrets();
    secrets.extend(browsers.iter().flat_map(|browser| browser.cookies.values().cloned()));
    secrets
}
