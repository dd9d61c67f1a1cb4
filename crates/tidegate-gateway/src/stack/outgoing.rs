//! What an upstream is sent.

use http::{HeaderValue, Request, header};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::{
    body::RequestBody,
    exchange::Exchange,
    proxy::{forwarded::Told, hop},
    table::Route,
    trace,
    upload::Upload,
};

/// Turns what the client sent into what the upstream is sent.
pub(super) fn outgoing(
    request: Request<Incoming>,
    host: &HeaderValue,
    route: &Route,
    told: &Told,
    trusted: bool,
    upgrade: Option<&HeaderValue>,
    exchange: &mut Exchange,
) -> Request<RequestBody> {
    let (mut parts, body) = request.into_parts();
    let headers = &mut parts.headers;
    hop::strip(headers);
    headers.remove(header::EXPECT);
    told.tell(headers, (!host.is_empty()).then_some(host), parts.version, trusted);
    headers.insert(trace::X_REQUEST_ID, exchange.request_id.clone());
    // An absolute target names the host, whatever `Host` says (RFC 9112 §3.2.2): what was routed is what is asked for.
    if !host.is_empty() {
        headers.insert(header::HOST, host.clone());
    }
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
    let body = if body.is_end_stream() {
        RequestBody::empty()
    } else {
        let (upload, progress) = Upload::new(body, route.allowance);
        exchange.upload = Some(progress);
        RequestBody::Incoming(upload)
    };
    Request::from_parts(parts, body)
}
