//! From a response to an outcome: by its HTTP status, or by the gRPC status at the end of its stream.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use crate::{Outcome, grpc};

/// What the head of a response tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// How the call ended, if its body comes to a regular end.
    Known(Outcome),
    /// Its trailers will tell.
    AtEnd,
}

/// Judges how calls end. It is asked only where that makes a difference: a fixed limit learns nothing from it.
pub trait Classify {
    /// Judges by the head of a response.
    fn head(&self, status: StatusCode, headers: &HeaderMap) -> Judged;

    /// Judges by the trailers what the head could not tell; there may be none.
    fn end(&self, trailers: Option<&HeaderMap>) -> Outcome;

    /// Judges a call that ended in an error of the transport, before or after its head. Default: overload.
    fn failed(&self) -> Outcome {
        Outcome::Overload { retry_after: None }
    }
}

/// The usual judgement, for plain HTTP and gRPC alike.
///
/// Overload are the statuses 429, 502, 503 and 504 (with a `Retry-After` in seconds), the gRPC codes `UNAVAILABLE`,
/// `RESOURCE_EXHAUSTED` and `DEADLINE_EXCEEDED` (with a pushback), and a transport that breaks. Other errors are the
/// application's own, and ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByStatus;

impl Classify for ByStatus {
    #[inline]
    fn head(&self, status: StatusCode, headers: &HeaderMap) -> Judged {
        match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                Judged::Known(Outcome::Overload { retry_after: retry_after(headers) })
            }
            StatusCode::OK if grpc::is_grpc(headers) => match grpc::outcome(headers) {
                Some(outcome) => Judged::Known(outcome),
                None => Judged::AtEnd,
            },
            status if status.is_client_error() || status.is_server_error() => Judged::Known(Outcome::Ignore),
            _ => Judged::Known(Outcome::Success),
        }
    }

    fn end(&self, trailers: Option<&HeaderMap>) -> Outcome {
        // A stream that ends without a status was cut off.
        trailers.and_then(grpc::outcome).unwrap_or_else(|| self.failed())
    }
}

/// `Retry-After` in its form of seconds; a date is not read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_judged_by_what_it_says_about_capacity() {
        let overload = |seconds| Outcome::Overload { retry_after: seconds };
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, "7".parse().unwrap());
        let seven = Some(Duration::from_secs(7));
        for (status, outcome) in [
            (200, Outcome::Success),
            (101, Outcome::Success),
            (304, Outcome::Success),
            (404, Outcome::Ignore),
            (500, Outcome::Ignore),
            (429, overload(seven)),
            (502, overload(seven)),
            (503, overload(seven)),
            (504, overload(seven)),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(ByStatus.head(status, &headers), Judged::Known(outcome), "{status}");
        }
        headers.insert(header::RETRY_AFTER, "Fri, 31 Dec 1999 23:59:59 GMT".parse().unwrap());
        assert_eq!(ByStatus.head(StatusCode::SERVICE_UNAVAILABLE, &headers), Judged::Known(overload(None)));
    }

    #[test]
    fn a_grpc_call_is_judged_at_its_end() {
        let mut head = HeaderMap::new();
        head.insert(header::CONTENT_TYPE, "application/grpc".parse().unwrap());
        assert_eq!(ByStatus.head(StatusCode::OK, &head), Judged::AtEnd);
        let mut trailers = HeaderMap::new();
        trailers.insert(grpc::STATUS, "0".parse().unwrap());
        assert_eq!(ByStatus.end(Some(&trailers)), Outcome::Success);
        assert_eq!(ByStatus.end(None), Outcome::Overload { retry_after: None });
        head.insert(grpc::STATUS, "5".parse().unwrap());
        assert_eq!(ByStatus.head(StatusCode::OK, &head), Judged::Known(Outcome::Ignore));
    }
}
