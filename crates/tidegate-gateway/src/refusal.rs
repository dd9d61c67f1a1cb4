//! The gateway's own answers, rendered in one place: HTTP with problem details, gRPC with trailers only.

use std::{fmt::Write, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use tidegate_core::{By, Refused};

use crate::{
    body::ResponseBody,
    oidc::service,
    registry::{NoEndpoint, Why},
};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// When to come back after a 503 if nothing better is known. Default: 1 s.
const COME_BACK: Duration = Duration::from_secs(1);

/// Why the gateway answers for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The request can not be understood or must not be passed on; says why.
    BadRequest(&'static str),
    /// No route matches.
    NoRoute,
    /// The method is never passed on.
    Method,
    /// The request body is larger than `bounds.body_bytes`.
    TooLarge,
    /// The client was too slow in sending the body.
    SlowClient,
    /// A gate refused; the call was not sent.
    Refused(Refused),
    /// The registry tells of no endpoint; the call was not sent.
    NoEndpoint(NoEndpoint),
    /// There is no token that the call could carry; it was not sent.
    NoToken(service::Refused),
    /// No endpoint could be reached; the call was not sent.
    Unreachable(&'static str),
    /// The upstream broke off or spoke nonsense; the call may have had an effect.
    BadGateway(&'static str),
    /// The upstream did not answer in time; the call may have had an effect.
    Timeout,
    /// The call's permit went back to the fleet before it was answered; the call may have had an effect.
    LeaseLost,
}

/// How the client wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Problem details (RFC 9457).
    Http,
    /// A trailers-only gRPC response.
    Grpc,
}

impl Cause {
    /// The HTTP status of this answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowClient => StatusCode::REQUEST_TIMEOUT,
            Self::Refused(Refused { by: By::Quota, .. }) => StatusCode::TOO_MANY_REQUESTS,
            Self::NoToken(refused) => refused.status(),
            Self::Refused(Refused { by: By::Deadline, .. }) | Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Refused(_) | Self::NoEndpoint(_) | Self::Unreachable(_) | Self::LeaseLost => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::BadGateway(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// The gRPC status code of this answer.
    pub fn grpc_status(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 13,
            Self::NoRoute | Self::Method => 12,
            Self::TooLarge | Self::Refused(Refused { by: By::Quota, .. }) => 8,
            Self::SlowClient | Self::Timeout | Self::Refused(Refused { by: By::Deadline, .. }) => 4,
            Self::NoToken(refused) => refused.grpc_status(),
            Self::Refused(_)
            | Self::NoEndpoint(_)
            | Self::Unreachable(_)
            | Self::BadGateway(_)
            | Self::LeaseLost => 14,
        }
    }

    /// The short name in logs, metrics and problem documents.
    pub fn name(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad-request",
            Self::NoRoute => "no-route",
            Self::Method => "method",
            Self::TooLarge => "too-large",
            Self::SlowClient => "slow-client",
            Self::Refused(refused) => refused.by.as_str(),
            Self::NoEndpoint(NoEndpoint { why, .. }) => match why {
                Why::NotFound => "service-not-found",
                Why::Unavailable => "registry-unavailable",
                Why::Throttled => "registry-throttled",
                Why::Closed => "service-closed",
            },
            Self::NoToken(_) => "token",
            Self::Unreachable(_) => "unreachable",
            Self::BadGateway(_) => "bad-gateway",
            Self::Timeout => "timeout",
            Self::LeaseLost => "lease-lost",
        }
    }

    fn detail(&self) -> &'static str {
        match self {
            Self::BadRequest(why) | Self::Unreachable(why) | Self::BadGateway(why) => why,
            Self::NoRoute => "no route of this gateway matches the host, path, method and headers",
            Self::Method => "this gateway does not pass this method on",
            Self::NoToken(refused) => refused.detail(),
            Self::TooLarge => "the request body is larger than this gateway passes on",
            Self::SlowClient => "the request body came too slowly",
            Self::Timeout => "the upstream did not answer in time; the call may have had an effect",
            Self::LeaseLost => {
                "the store that keeps the fleet's permits does not answer; the call was cut, and may have had an effect"
            }
            Self::NoEndpoint(NoEndpoint { why, .. }) => match why {
                Why::NotFound => "the registry knows no instance of the service; the call was not sent",
                Why::Unavailable => {
                    "the registry cannot be asked where the service is, and nothing is known of it; the call was not sent"
                }
                Why::Throttled => {
                    "the registry was asked as often as it may be, and nothing is known of the service; the call was not sent"
                }
                Why::Closed => "no instance of the service takes calls; the call was not sent",
            },
            Self::Refused(refused) => match refused.by {
                By::Quota => "the limit on calls per time is reached; the call was not sent",
                By::InFlight => "too many calls are in flight; the call was not sent",
                By::QueueFull => "too many calls are in flight and waiting; the call was not sent",
                By::WaitTooLong => {
                    "too many calls are in flight and the wait would be too long; the call was not sent"
                }
                By::Breaker => "the upstream keeps failing and is given a rest; the call was not sent",
                By::Deadline => "the deadline of the call passed before it could be sent",
                By::Store => {
                    "the store of the limit does not answer, and no credit is left; the call was not sent"
                }
                By::Closed => "the gateway is shutting down; the call was not sent",
                _ => "the call was refused and not sent",
            },
        }
    }

    /// What a caller without a good token is told (RFC 6750 §3).
    fn challenge(&self) -> &'static str {
        match self {
            Self::NoToken(service::Refused { why: service::Reason::SubjectRefused, .. }) => {
                "Bearer error=\"invalid_token\""
            }
            _ => "Bearer",
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::Refused(Refused { by: By::Quota, .. }) => "Quota exceeded",
            Self::Refused(_) => "Temporarily reduced capacity",
            Self::NoEndpoint(_) => "No endpoint is known",
            _ => self.status().canonical_reason().unwrap_or("Error"),
        }
    }

    /// The problem type: those of the IETF RateLimit draft where one fits.
    fn kind(&self) -> &'static str {
        match self {
            Self::Refused(Refused { by: By::Quota, .. }) => {
                "https://iana.org/assignments/http-problem-types#quota-exceeded"
            }
            Self::Refused(_) => "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
            _ => "about:blank",
        }
    }

    /// When the client may come back: every 503 says so, whatever is known.
    fn retry_after(&self) -> Option<Duration> {
        let known = match self {
            Self::Refused(refused) => refused.retry_after,
            Self::NoEndpoint(none) => none.retry_after,
            Self::NoToken(refused) => refused.retry_after,
            _ => None,
        };
        known.or_else(|| (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(COME_BACK))
    }
}

/// Where a call stands with one limit: what the `RateLimit` fields tell (draft-ietf-httpapi-ratelimit-headers-10).
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// The fields of the limit that never change, rendered once.
    pub policy: &'a Policy,
    /// Units left now.
    pub remaining: u32,
    /// Until the whole limit is there again.
    pub reset_in: Duration,
    /// Whether this limit refused the call.
    pub violated: bool,
}

/// The name and the policy of a limit, rendered once.
#[derive(Clone, Debug)]
pub struct Policy {
    name: String,
    member: String,
}

impl Policy {
    /// Renders the policy of the limit `name`: `quota` units per `window`.
    pub fn new(name: &str, quota: u32, window: Duration) -> Self {
        let escaped: String =
            name.chars().filter(|c| (' '..='~').contains(c) && !matches!(c, '"' | '\\')).collect();
        let member = format!("\"{escaped}\";q={quota};w={}", window.as_secs().max(1));
        Self { name: escaped, member }
    }

    /// The limit's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The `RateLimit-Policy` of several limits, rendered once. None when there are none.
pub fn policies<'a>(policies: impl IntoIterator<Item = &'a Policy>) -> Option<HeaderValue> {
    let members: Vec<&str> = policies.into_iter().map(|policy| &*policy.member).collect();
    let list = HeaderValue::try_from(members.join(", ")).expect("a policy has only visible characters");
    (!members.is_empty()).then_some(list)
}

/// Adds the `RateLimit` and `RateLimit-Policy` fields for `standings`, whose policies were rendered before.
pub fn rate_limit_fields<'a>(
    headers: &mut HeaderMap,
    policies: Option<&HeaderValue>,
    standings: impl IntoIterator<Item = Standing<'a>>,
) {
    let Some(policies) = policies else { return };
    let mut list = String::with_capacity(policies.len() + 32);
    for Standing { policy, remaining, reset_in, .. } in standings {
        let comma = if list.is_empty() { "" } else { ", " };
        let _ = write!(list, "{comma}\"{}\";r={remaining};t={}", policy.name, ceil_secs(reset_in));
    }
    if let Ok(list) = HeaderValue::from_maybe_shared(Bytes::from(list)) {
        headers.insert(RATE_LIMIT_POLICY, policies.clone());
        headers.insert(RATE_LIMIT, list);
    }
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
        document["retry_after_ms"] = (after.as_nanos().div_ceil(1_000_000) as u64).into();
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

fn trailers_only(cause: &Cause) -> Response<ResponseBody> {
    let mut response = grpc_end(cause.grpc_status(), cause.detail());
    if let Some(after) = cause.retry_after() {
        let millis = after.as_nanos().div_ceil(1_000_000) as u64;
        response.headers_mut().insert(GRPC_PUSHBACK, millis.into());
    }
    response
}

/// A gRPC response whose head is also its end (gRPC over HTTP/2, "Trailers-Only").
pub(crate) fn grpc_end(status: u16, message: &'static str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, status.into());
    headers.insert(GRPC_MESSAGE, HeaderValue::from_static(message));
    response
}

/// Whole seconds, rounded up: who comes back at the second named is never too early.
fn ceil_secs(duration: Duration) -> u64 {
    duration.as_nanos().div_ceil(1_000_000_000) as u64
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn quota(after: u64) -> Cause {
        Cause::Refused(Refused::after(By::Quota, Duration::from_millis(after)))
    }

    async fn text(response: Response<ResponseBody>) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_used_up_quota_is_a_429_that_says_when_to_return() {
        let policy = Policy::new("per-client", 1000, Duration::from_secs(1));
        let standing =
            Standing { policy: &policy, remaining: 0, reset_in: Duration::from_millis(1), violated: true };
        let policies = policies([&policy]);
        let response = render(&quota(1200), Dialect::Http, "id-1", policies.as_ref(), [standing]);
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["ratelimit"], "\"per-client\";r=0;t=2", "the time of Retry-After");
        assert_eq!(response.headers()["ratelimit-policy"], "\"per-client\";q=1000;w=1");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let body: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(body["violated-policies"][0], "per-client");
        assert_eq!(body["retry_after_ms"], 1200);
        assert_eq!(body["request_id"], "id-1");
        assert_eq!(body["reason"], "quota");
    }

    #[test]
    fn several_limits_are_one_list_in_each_field() {
        let (a, b) = (
            Policy::new("per-client", 100, Duration::from_secs(1)),
            Policy::new("backend", 5000, Duration::from_secs(60)),
        );
        let standing = |policy, remaining| Standing {
            policy,
            remaining,
            reset_in: Duration::from_secs(1),
            violated: false,
        };
        let mut headers = HeaderMap::new();
        rate_limit_fields(&mut headers, None, []);
        assert!(headers.is_empty());
        let policies = policies([&a, &b]);
        rate_limit_fields(&mut headers, policies.as_ref(), [standing(&a, 99), standing(&b, 0)]);
        let lines = |name| headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(lines("ratelimit"), ["\"per-client\";r=99;t=1, \"backend\";r=0;t=1"]);
        assert_eq!(lines("ratelimit-policy"), ["\"per-client\";q=100;w=1, \"backend\";q=5000;w=60"]);
    }

    #[test]
    fn every_503_says_when_to_come_back() {
        let none = |why| Cause::NoEndpoint(NoEndpoint { why, retry_after: None });
        for cause in [
            Cause::Unreachable("x"),
            Cause::Refused(Refused::new(By::QueueFull)),
            none(Why::NotFound),
            none(Why::Closed),
        ] {
            let http = render(&cause, Dialect::Http, "id-1", None, []);
            assert_eq!(http.headers()["retry-after"], "1", "{cause:?}");
            let grpc = render(&cause, Dialect::Grpc, "id-1", None, []);
            assert_eq!(grpc.headers()["grpc-retry-pushback-ms"], "1000", "{cause:?}");
        }
        for cause in [Cause::Timeout, Cause::BadGateway("x"), Cause::Refused(Refused::new(By::Quota))] {
            let answer = render(&cause, Dialect::Http, "id-1", None, []);
            assert!(!answer.headers().contains_key("retry-after"), "{cause:?}");
        }
    }

    #[test]
    fn grpc_is_refused_in_trailers_only() {
        let response = render(&quota(250), Dialect::Grpc, "id-1", None, []);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "8");
        assert_eq!(response.headers()["grpc-retry-pushback-ms"], "250");
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert!(http_body::Body::is_end_stream(response.body()));
    }

    #[test]
    fn every_cause_has_its_status_in_both_dialects() {
        let refused = |by| Cause::Refused(Refused::new(by));
        for (cause, http, grpc) in [
            (Cause::BadRequest("x"), 400, 13),
            (Cause::NoRoute, 404, 12),
            (Cause::Method, 405, 12),
            (Cause::TooLarge, 413, 8),
            (Cause::SlowClient, 408, 4),
            (refused(By::Quota), 429, 8),
            (refused(By::QueueFull), 503, 14),
            (refused(By::Breaker), 503, 14),
            (refused(By::Deadline), 504, 4),
            (Cause::Unreachable("x"), 503, 14),
            (Cause::BadGateway("x"), 502, 14),
            (Cause::Timeout, 504, 4),
        ] {
            assert_eq!((cause.status().as_u16(), cause.grpc_status()), (http, grpc), "{cause:?}");
        }
    }

    #[test]
    fn a_limit_name_can_not_break_out_of_its_field() {
        let policy = Policy::new("a\"b\\c\nd", 1, Duration::from_secs(60));
        assert_eq!(policy.member, "\"abcd\";q=1;w=60");
    }
}
