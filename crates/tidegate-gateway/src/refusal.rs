//! The gateway's own answers: why it answers for itself, and what each reason says.

mod rate_limit;
mod render;

use std::time::Duration;

use http::StatusCode;
use tidegate_core::{By, Outcome, Refused};

pub use self::{
    rate_limit::{Policy, Standing, policies, rate_limit_fields},
    render::{Dialect, render},
};
use crate::{
    oidc::service,
    registry::{NoEndpoint, Why},
};

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

    /// What it says of the upstream that was, or was not, called.
    pub(crate) const fn outcome(&self) -> Outcome {
        match self {
            Self::BadGateway(_) => Outcome::Overload { retry_after: None },
            Self::Timeout => Outcome::Abandoned,
            Self::TooLarge | Self::SlowClient | Self::LeaseLost => Outcome::Ignore,
            Self::BadRequest(_)
            | Self::NoRoute
            | Self::Method
            | Self::NoToken(_)
            | Self::Refused(_)
            | Self::NoEndpoint(_)
            | Self::Unreachable(_) => Outcome::Unsent,
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

/// Whole seconds, rounded up: who comes back at the second named is never too early.
fn ceil_secs(duration: Duration) -> u64 {
    duration.as_nanos().div_ceil(1_000_000_000) as u64
}

#[cfg(test)]
mod tests;
