//! The gateway's own answers to browsers: where to go, or why not.

use http::{HeaderValue, Response, StatusCode, header};
use url::Url;

use crate::body::ResponseBody;

/// Sends a browser elsewhere.
pub(super) fn redirect(url: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let url = HeaderValue::try_from(url).unwrap_or_else(|_| HeaderValue::from_static("/"));
    response.headers_mut().insert(header::LOCATION, url);
    uncached(response)
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
