//! The gateway's own answers to browsers: where to go, or why not.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use url::Url;

use super::denied::is_navigation;
use crate::body::ResponseBody;

/// Sends a browser elsewhere.
pub(super) fn redirect(url: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let url = HeaderValue::try_from(url).unwrap_or_else(|_| HeaderValue::from_static("/"));
    response.headers_mut().insert(header::LOCATION, url);
    uncached(response)
}

/// What a problem was told as, for a page that says the same.
#[derive(Clone)]
struct Problem {
    reason: String,
    detail: String,
}

/// Says in words that a program can read why there is nothing else.
pub(super) fn problem(status: StatusCode, reason: &str, detail: &str) -> Response<ResponseBody> {
    let document = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": detail,
        "reason": reason,
    });
    let mut response = Response::new(ResponseBody::from(bytes::Bytes::from(format!("{document}\n"))));
    *response.status_mut() = status;
    response.extensions_mut().insert(Problem { reason: reason.to_owned(), detail: detail.to_owned() });
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if status == StatusCode::UNAUTHORIZED {
        // No scheme that a browser would ask a password for.
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    uncached(response)
}

/// Makes a page of a problem, where somebody looks at it: in words, and with a way on.
pub(super) fn for_people(
    mut response: Response<ResponseBody>,
    asked: &HeaderMap,
    logout: &str,
) -> Response<ResponseBody> {
    let accept = asked.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    // Whatever its method: here nothing is lost on the way.
    let is_looked_at = is_navigation(&Method::GET, asked) && accept.contains("text/html");
    let Some(Problem { reason, detail }) = response.extensions_mut().remove::<Problem>() else {
        return response;
    };
    if !is_looked_at {
        return response;
    }
    let title = response.status().canonical_reason().unwrap_or("Error");
    let (to, on) = if reason == "not-allowed" { (logout, "Log out") } else { ("/", "Begin again") };
    let (detail, to) = (escaped(&detail), escaped(to));
    let text = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{title}</title>\n\
         <h1>{title}</h1>\n<p>{detail}.</p>\n<p><a href=\"{to}\">{on}</a></p>\n<p><small>{reason}</small></p>\n"
    );
    *response.body_mut() = ResponseBody::from(bytes::Bytes::from(text));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"),
        // The address of this page may hold a code.
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// Says to a provider that what it wanted ended is over (OpenID Connect Back-Channel Logout 1.0 §2.8).
pub(super) fn done() -> Response<ResponseBody> {
    uncached(Response::new(ResponseBody::empty()))
}

/// Says to a provider that nothing was ended, and why.
pub(super) fn not_done(error: &str, why: &str) -> Response<ResponseBody> {
    let document = serde_json::json!({ "error": error, "error_description": why });
    let mut response = Response::new(ResponseBody::from(bytes::Bytes::from(format!("{document}\n"))));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    uncached(response)
}

/// An empty page for a frame of the provider's, which may stand on any site: there is nothing in it to be clicked on.
pub(super) fn frame() -> Response<ResponseBody> {
    let text = bytes::Bytes::from_static(b"<!doctype html><title>Logged out</title>\n");
    let mut response = Response::new(ResponseBody::from(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
    uncached(response)
}

fn uncached(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Says when to come back, in whole seconds.
pub(super) fn retry_after(
    mut response: Response<ResponseBody>,
    after: Option<Duration>,
) -> Response<ResponseBody> {
    if let Some(after) = after {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        response.headers_mut().insert(header::RETRY_AFTER, seconds.max(1).into());
    }
    response
}

/// Adds a cookie.
pub(super) fn with(mut response: Response<ResponseBody>, cookie: HeaderValue) -> Response<ResponseBody> {
    response.headers_mut().append(header::SET_COOKIE, cookie);
    response
}

/// Where a user logs out at the provider (OpenID Connect RP-Initiated Logout 1.0).
pub(super) fn end_session(endpoint: &Url, client_id: &str, id_token: Option<&str>, back: &str) -> Url {
    let mut url = endpoint.clone();
    {
        let mut pairs = url.query_pairs_mut();
        pairs.append_pair("client_id", client_id).append_pair("post_logout_redirect_uri", back);
        if let Some(id_token) = id_token {
            pairs.append_pair("id_token_hint", id_token);
        }
    }
    url
}
