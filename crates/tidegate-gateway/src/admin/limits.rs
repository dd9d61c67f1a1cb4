//! Counters over HTTP: anyone who may read the pages reads them, and this machine changes them.
//!
//! A change is made on loopback only, as these pages have no login. No page of another site can make one: browsers name
//! the page that asks in `Origin` or `Sec-Fetch-Site`, and whoever sends one of these is refused; so is a body that is
//! not declared as JSON, which a form cannot do. Nor does a proxy on this machine make one for somebody elsewhere.

use std::net::SocketAddr;

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, RawQuery, Request, State as Given},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use http::{HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::{Desk, JSON, answer};
use crate::{
    counter::{Change, CounterError, KeyParts},
    key::decoded,
};

/// Most bytes of a question.
const MOST_BYTES: usize = 64 << 10;
/// What proxies add to requests.
const SENT_BY_PROXIES: [HeaderName; 3] =
    [header::FORWARDED, header::VIA, HeaderName::from_static("x-forwarded-for")];
/// What browsers add to requests, and nobody else.
const SENT_BY_BROWSERS: [HeaderName; 2] = [header::ORIGIN, HeaderName::from_static("sec-fetch-site")];

pub(super) fn routes() -> Router<Desk> {
    let changes = Router::new()
        .route("/limits/{limit}/add", post(add))
        .route("/limits/{limit}/reset", post(reset))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(middleware::from_fn(from_here));
    Router::new().route("/limits", get(all)).route("/limits/{limit}/counter", get(counter)).merge(changes)
}

/// Lets a change pass that is made on this machine, and not by a page in a browser.
async fn from_here(Extension(peer): Extension<SocketAddr>, request: Request, next: Next) -> Response {
    let json = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let json = json.is_some_and(|kind| kind.split(';').next().unwrap_or_default().trim() == JSON);
    let browser = has_one_of(&request, &SENT_BY_BROWSERS);
    let proxied = has_one_of(&request, &SENT_BY_PROXIES);
    let (status, why) = if proxied || !peer.ip().to_canonical().is_loopback() {
        (
            StatusCode::FORBIDDEN,
            "counters are changed from the gateway's own machine; run tidegate limits there",
        )
    } else if browser {
        (StatusCode::FORBIDDEN, "counters are not changed from a browser; run tidegate limits")
    } else if !json {
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, "send the change as content-type: application/json")
    } else {
        return next.run(request).await;
    };
    tracing::warn!(target: "tidegate::audit", by = %peer, path = request.uri().path(), why, "a change of a counter was refused");
    failed(status, why)
}

fn has_one_of(request: &Request, names: &[HeaderName]) -> bool {
    names.iter().any(|name| request.headers().contains_key(name))
}

async fn all(Given(desk): Given<Desk>) -> Response {
    said(&desk.source.limits())
}

/// The parts of the key are `key` parameters; one without `=` stands for a part that calls lack.
async fn counter(Given(desk): Given<Desk>, Path(limit): Path<String>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let mut key = KeyParts::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("key", value)) => match String::from_utf8(decoded(value.as_bytes()).into_owned()) {
                Ok(value) => key.push(Some(value)),
                Err(_) => return failed(StatusCode::BAD_REQUEST, "a key is not percent-encoded UTF-8"),
            },
            None if pair == "key" => key.push(None),
            _ => {
                return failed(
                    StatusCode::BAD_REQUEST,
                    "the parameters of a counter are key=VALUE, one a part",
                );
            }
        }
    }
    told(desk.source.counter(limit, key).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Add {
    #[serde(default)]
    key: KeyParts,
    units: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reset {
    #[serde(default)]
    key: KeyParts,
}

async fn add(
    Given(desk): Given<Desk>,
    Path(limit): Path<String>,
    Extension(peer): Extension<SocketAddr>,
    body: Bytes,
) -> Response {
    match serde_json::from_slice(&body) {
        Ok(Add { key, units }) => told(desk.source.change(limit, key, Change::Add(units), peer.ip()).await),
        Err(error) => wrong_body(&error, "{\"key\": [\"VALUE\"], \"units\": 100}"),
    }
}

async fn reset(
    Given(desk): Given<Desk>,
    Path(limit): Path<String>,
    Extension(peer): Extension<SocketAddr>,
    body: Bytes,
) -> Response {
    match serde_json::from_slice(&body) {
        Ok(Reset { key }) => told(desk.source.change(limit, key, Change::Reset, peer.ip()).await),
        Err(error) => wrong_body(&error, "{\"key\": [\"VALUE\"]}"),
    }
}

fn wrong_body(error: &serde_json::Error, remedy: &str) -> Response {
    failed(StatusCode::BAD_REQUEST, &format!("the body is not what is wanted: {error}; write {remedy}"))
}

fn told(result: Result<impl Serialize, CounterError>) -> Response {
    match result {
        Ok(state) => said(&state),
        Err(error) => {
            let status = match error {
                CounterError::NoLimit { .. } => StatusCode::NOT_FOUND,
                CounterError::Parts { .. } | CounterError::Value { .. } => StatusCode::BAD_REQUEST,
                CounterError::Shared(_) => StatusCode::CONFLICT,
                CounterError::Store(_) | CounterError::Unknown(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            failed(status, &error.to_string())
        }
    }
}

fn said(state: &impl Serialize) -> Response {
    match serde_json::to_string_pretty(state) {
        Ok(json) => answer(StatusCode::OK, JSON, json + "\n"),
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, &format!("it has no JSON: {error}")),
    }
}

fn failed(status: StatusCode, why: &str) -> Response {
    answer(status, JSON, format!("{}\n", serde_json::json!({ "error": why })))
}
