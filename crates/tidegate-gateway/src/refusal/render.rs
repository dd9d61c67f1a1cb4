//! How an answer of the gateway's own looks, in HTTP and in gRPC.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use tidegate::grpc;

use super::{Cause, Standing, ceil_secs, rate_limit_fields};
use crate::body::ResponseBody;

/// How the client wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Problem details (RFC 9457).
    Http,
    /// A trailers-only gRPC response.
    Grpc,
}

/// Renders one of the gateway's own answers.
pub fn render<'a>(
    cause: &Cause,
    dialect: Dialect,
    request_id: &str,
    policies: Option<&HeaderValue>,
    standings: impl IntoIterator<Item = Standing<'a>>,
) -> Response<ResponseBody> {
    let mut standings: Vec<Standing<'a>> = standings.into_iter().collect();
    // Where a response has both, they should tell the same time (draft-ietf-httpapi-ratelimit-headers-10).
    if let Some(after) = cause.retry_after() {
        standings
            .iter_mut()
            .filter(|standing| standing.violated)
            .for_each(|standing| standing.reset_in = after);
    }
    let mut response = match dialect {
        Dialect::Http => problem(cause, request_id, &standings),
        Dialect::Grpc => trailers_only(cause),
    };
    let headers = response.headers_mut();
    if let Some(after) = cause.retry_after() {
        headers.insert(header::RETRY_AFTER, ceil_secs(after).into());
    }
    if cause.status() == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(cause.challenge()));
    }
    if matches!(cause, Cause::Method) {
        headers
            .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    rate_limit_fields(headers, policies, standings);
    response
}

fn problem(cause: &Cause, request_id: &str, standings: &[Standing<'_>]) -> Response<ResponseBody> {
    let status = cause.status();
    let mut document = serde_json::json!({
        "type": cause.kind(),
        "title": cause.title(),
        "status": status.as_u16(),
        "detail": cause.detail(),
        "reason": cause.name(),
        "request_id": request_id,
    });
    let violated: Vec<&str> = standings.iter().filter(|s| s.violated).map(|s| s.policy.name()).collect();
    if !violated.is_empty() {
        document["violated-policies"] = violated.into();
    }
    if let Some(after) = cause.retry_after() {
        document["retry_after_ms"] = ceil_millis(after).into();
    }
    let mut text = document.to_string();
    text.push('\n');
    let mut response = Response::new(ResponseBody::from(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A gRPC response whose head is also its end (gRPC over HTTP/2, "Trailers-Only").
fn trailers_only(cause: &Cause) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(grpc::STATUS, cause.grpc_status().into());
    headers.insert(grpc::MESSAGE, HeaderValue::from_static(cause.detail()));
    if let Some(after) = cause.retry_after() {
        headers.insert(grpc::PUSHBACK, ceil_millis(after).into());
    }
    response
}

/// Whole milliseconds, rounded up.
fn ceil_millis(duration: Duration) -> u64 {
    duration.as_nanos().div_ceil(1_000_000) as u64
}
