//! What an upstream is sent.

use http::{HeaderValue, Request, header};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::{
    body::RequestBody,
    exchange::Exchange,
    proxy::{forwarded::Told, hop},
    trace,
    upload::{Allowance, Upload},
};

/// Turns what the client sent into what the upstream is sent.
pub(super) fn outgoing(
    request: Request<Incoming>,
    host: &HeaderValue,
    allowance: Allowance,
    told: &Told,
    exchange: &mut Exchange,
) -> Request<RequestBody> {
    let (mut parts, body) = request.into_parts();
    let headers = &mut parts.headers;
    let upgrade = hop::upgrade(headers, parts.version).cloned();
    hop::strip(headers);
    headers.remove(header::EXPECT);
    // For the fields added here and below, so that the map grows once.
    headers.reserve(8);
    told.tell(headers, (!host.is_empty()).then_some(host), parts.version, exchange.trust);
    headers.insert(trace::X_REQUEST_ID, exchange.request_id.clone());
    // An absolute target names the host, whatever `Host` says (RFC 9112 §3.2.2): what was routed is what is asked for.
    if !host.is_empty() {
        headers.insert(header::HOST, host.clone());
    }
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    let body = if body.is_end_stream() {
        RequestBody::empty()
    } else {
        let (upload, progress) = Upload::new(body, allowance);
        exchange.upload = Some(progress);
        RequestBody::Incoming(Box::new(upload))
    };
    Request::from_parts(parts, body)
}
