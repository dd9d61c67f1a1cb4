//! The operator's pages, on a listener of their own: liveness, readiness, metrics, state, configuration.

mod accept;
mod host;
mod limits;
mod page;
mod server;

use std::{net::IpAddr, sync::Arc};

use axum::{
    Router,
    extract::{Query, State as Given},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderValue, StatusCode, header,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS},
};
use serde::Deserialize;

pub(crate) use self::page::span;
pub use self::{
    host::Audience,
    server::{Admin, AdminStats},
};
use crate::{
    counter::{Change, CounterChange, CounterError, CounterState, KeyParts},
    state::{LimitState, State},
    telemetry::{Format, Telemetry},
};

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The pages, and what they show.
const PAGES: [(&str, &str); 6] = [
    ("/live", "200 while the process lives"),
    ("/ready", "200 when it takes calls, else 503 and why"),
    ("/metrics", "metrics, as Prometheus text or OpenMetrics"),
    ("/state", "every guard now, as JSON or a page"),
    ("/limits", "counters to read, adjust and reset: tidegate limits"),
    ("/config", "the running configuration, without its secrets"),
];

/// Nothing from elsewhere; styles in the page, the script from here.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// What the pages show comes from here.
pub trait AdminSource: Send + Sync + 'static {
    /// Tells whether the gateway takes calls: a configuration is loaded, it listens, and it is not draining.
    ///
    /// # Errors
    /// Why it does not, in words for people.
    fn ready(&self) -> Result<(), String>;

    /// What the gateway does now. What [`Telemetry`] counts need not be filled in.
    fn state(&self) -> State;

    /// The running configuration as YAML, without its secrets.
    fn config(&self) -> String;

    /// The limits on calls per time, by name.
    fn limits(&self) -> Vec<LimitState>;

    /// Where one counter of a limit stands.
    fn counter(&self, limit: String, key: KeyParts) -> BoxFuture<'_, Result<CounterState, CounterError>>;

    /// Changes one counter of a limit on behalf of `by`, and logs it.
    fn change(
        &self,
        limit: String,
        key: KeyParts,
        change: Change,
        by: IpAddr,
    ) -> BoxFuture<'_, Result<CounterChange, CounterError>>;
}

/// What every page has at hand.
#[derive(Clone)]
struct Desk {
    source: Arc<dyn AdminSource>,
    telemetry: Arc<Telemetry>,
}

impl Desk {
    fn state(&self) -> State {
        let mut state = self.source.state();
        state.not_ready = self.source.ready().err();
        self.telemetry.fill(&mut state);
        state
    }
}

/// The pages as a service, for those who may read them.
pub fn router(source: Arc<dyn AdminSource>, telemetry: Arc<Telemetry>, audience: Audience) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/live", get(|| async { answer(StatusCode::OK, TEXT, "live\n") }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/state", get(state))
        .route("/state.js", get(|| async { answer(StatusCode::OK, SCRIPT, page::SCRIPT) }))
        .route("/config", get(config))
        .merge(limits::routes())
        .fallback(|| async {
            answer(StatusCode::NOT_FOUND, TEXT, format!("no such page; there are:\n{}", list()))
        })
        .layer(middleware::from_fn_with_state(audience, host::guard))
        .with_state(Desk { source, telemetry })
}

async fn index(headers: HeaderMap) -> Response {
    if accept::prefers_html(accepted(&headers)) {
        answer(StatusCode::OK, HTML, page::index(&PAGES))
    } else {
        answer(StatusCode::OK, TEXT, list())
    }
}

async fn ready(Given(desk): Given<Desk>) -> Response {
    match desk.source.ready() {
        Ok(()) => answer(StatusCode::OK, TEXT, "ready\n"),
        Err(why) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {why}\n")),
    }
}

async fn metrics(Given(desk): Given<Desk>, headers: HeaderMap) -> Response {
    let format = Format::accepted(accepted(&headers));
    answer(StatusCode::OK, format.content_type(), desk.telemetry.render(desk.state(), format))
}

#[derive(Deserialize)]
struct StateQuery {
    format: Option<String>,
}

async fn state(Given(desk): Given<Desk>, Query(query): Query<StateQuery>, headers: HeaderMap) -> Response {
    let html = match query.format.as_deref() {
        None => accept::prefers_html(accepted(&headers)),
        Some("html") => true,
        Some("json") => false,
        Some(_) => return answer(StatusCode::BAD_REQUEST, TEXT, "format is json or html\n"),
    };
    let state = desk.state();
    if html {
        return answer(StatusCode::OK, HTML, page::state(&state, tidegate::clock::now()));
    }
    match serde_json::to_string_pretty(&state) {
        Ok(json) => answer(StatusCode::OK, JSON, json + "\n"),
        Err(error) => {
            answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("the state has no JSON: {error}\n"))
        }
    }
}

async fn config(Given(desk): Given<Desk>) -> Response {
    answer(StatusCode::OK, YAML, desk.source.config())
}

fn list() -> String {
    PAGES.iter().map(|(path, what)| format!("{path:<10}{what}\n")).collect()
}

fn accepted(headers: &HeaderMap) -> &str {
    headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default()
}

/// Answers that nobody may keep, guess the type of, or show inside another page.
fn answer(status: StatusCode, content_type: &'static str, body: impl Into<String>) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (VARY, HeaderValue::from_static("accept")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (status, headers, body.into()).into_response()
}

#[cfg(test)]
mod tests;
