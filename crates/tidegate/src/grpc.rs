//! gRPC as it looks from outside: statuses in headers and trailers, time-outs, pushback, refusals. Needs only `http`.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response, header};

use crate::{By, Outcome, Refused};

/// The status of a call, in trailers or in the head of a trailers-only answer.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The status in words.
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// How long the server asks its client to wait before a retry, in milliseconds.
pub const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// How long the caller is ready to wait.
pub const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Marks an answer that a guard gave in place of the server, by the rule that refused: the call was not sent.
pub const REFUSED: HeaderName = HeaderName::from_static("tidegate-refused");

/// A gRPC status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub u8);

impl Code {
    /// It was served.
    pub const OK: Self = Self(0);
    /// Something else; also what is no status at all.
    pub const UNKNOWN: Self = Self(2);
    /// The deadline passed.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// A quota or the server's room is used up.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// The server can not be reached or is overloaded.
    pub const UNAVAILABLE: Self = Self(14);

    /// How a call that ended with this code and pushback ended, as far as gates care.
    pub const fn outcome(self, pushback: Option<Duration>) -> Outcome {
        match self {
            Self::OK => Outcome::Success,
            Self::DEADLINE_EXCEEDED | Self::RESOURCE_EXHAUSTED | Self::UNAVAILABLE => {
                Outcome::Overload { retry_after: pushback }
            }
            _ => Outcome::Ignore,
        }
    }

    /// The code of a refusal by a gate.
    pub const fn of(by: By) -> Self {
        match by {
            By::Quota => Self::RESOURCE_EXHAUSTED,
            By::Deadline => Self::DEADLINE_EXCEEDED,
            _ => Self::UNAVAILABLE,
        }
    }
}

/// Whether these are the headers of a gRPC call or answer (gRPC-Web is not).
pub fn is_grpc(headers: &HeaderMap) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    let Some(content) = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes) else { return false };
    content.len() >= TYPE.len()
        && content[..TYPE.len()].eq_ignore_ascii_case(TYPE)
        && matches!(content.get(TYPE.len()), None | Some(b'+' | b';' | b' '))
}

/// The status in `headers` or trailers, if there is one; what can not be read is [`Code::UNKNOWN`].
pub fn status(headers: &HeaderMap) -> Option<Code> {
    let status = headers.get(STATUS)?.to_str().ok().and_then(|code| code.parse().ok());
    Some(status.map_or(Code::UNKNOWN, Code))
}

/// The outcome in `headers` or trailers, if they hold a status.
pub fn outcome(headers: &HeaderMap) -> Option<Outcome> {
    status(headers).map(|code| code.outcome(pushback(headers)))
}

/// How long the server asks to wait before a retry. A negative or unreadable time means "do not retry", and says
/// nothing about when.
pub fn pushback(headers: &HeaderMap) -> Option<Duration> {
    let millis = headers.get(PUSHBACK)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(millis))
}

/// The time-out in a request's headers; `None` when there is none that can be read.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    parse_timeout(headers.get(TIMEOUT)?.to_str().ok()?)
}

const UNITS: [(u8, u64); 6] = [
    (b'n', 1),
    (b'u', 1000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// Reads a `grpc-timeout`: at most eight digits and a unit.
pub fn parse_timeout(text: &str) -> Option<Duration> {
    let (&unit, digits) = text.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(Duration::from_nanos(count.saturating_mul(*nanos)))
}

/// Writes a `grpc-timeout` in the finest unit that fits, rounded down so that it never promises more time.
pub fn format_timeout(timeout: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let nanos = timeout.as_nanos();
    let (unit, size) =
        UNITS.iter().find(|(_, size)| nanos / u128::from(*size) <= MOST).unwrap_or(&UNITS[UNITS.len() - 1]);
    let text = format!("{}{}", (nanos / u128::from(*size)).min(MOST), char::from(*unit));
    HeaderValue::try_from(text).expect("digits and a letter are a header value")
}

/// The head of a trailers-only answer that refuses a call, with its pushback; the call was not sent.
pub fn refusal(refused: &Refused) -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(STATUS, HeaderValue::from(u16::from(Code::of(refused.by).0)));
    headers.insert(MESSAGE, HeaderValue::from_static(message(refused.by)));
    headers.insert(REFUSED, HeaderValue::from_static(refused.by.as_str()));
    if let Some(after) = refused.retry_after {
        let millis = u64::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        headers.insert(PUSHBACK, HeaderValue::from(millis));
    }
    response
}

const fn message(by: By) -> &'static str {
    match by {
        By::Quota => "refused by quota, not sent",
        By::InFlight => "refused by in-flight, not sent",
        By::QueueFull => "refused by queue-full, not sent",
        By::WaitTooLong => "refused by wait-too-long, not sent",
        By::Breaker => "refused by breaker, not sent",
        By::Deadline => "refused by deadline, not sent",
        By::Nested => "refused by nested, not sent",
        By::Closed => "refused by closed, not sent",
        _ => "refused, not sent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn time_outs_read_as_the_protocol_writes_them() {
        for (text, nanos) in [
            ("1n", 1),
            ("250u", 250_000),
            ("99999999m", 99_999_999_000_000),
            ("5S", 5_000_000_000),
            ("2M", 120_000_000_000),
            ("1H", 3_600_000_000_000),
            ("0S", 0),
        ] {
            assert_eq!(parse_timeout(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for bad in ["", "S", "1", "1s", "-1S", "+1S", "1 S", "123456789S", "1.5S", "١S"] {
            assert_eq!(parse_timeout(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_written_time_out_fits_and_never_promises_more_time() {
        for nanos in
            [0, 1, 99_999_999, 100_000_001, 1_500_000_000, 30_000_000_000, 86_400_000_000_000, u64::MAX]
        {
            let timeout = Duration::from_nanos(nanos);
            let text = format_timeout(timeout);
            let read = parse_timeout(text.to_str().unwrap()).unwrap();
            assert!(read <= timeout && timeout - read <= timeout / 1000, "{nanos} ns as {text:?}");
        }
        assert_eq!(format_timeout(Duration::MAX), "99999999H");
    }

    #[test]
    fn only_grpc_is_grpc() {
        for (content, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
            ("application/grp", false),
        ] {
            assert_eq!(is_grpc(&headers(&[("content-type", content)])), is, "{content}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn a_status_is_a_success_an_overload_or_none_of_the_limits_business() {
        for (status, pushback, expected) in [
            ("0", None, Outcome::Success),
            ("14", None, Outcome::Overload { retry_after: None }),
            ("8", Some("250"), Outcome::Overload { retry_after: Some(Duration::from_millis(250)) }),
            ("4", Some("-1"), Outcome::Overload { retry_after: None }),
            ("5", None, Outcome::Ignore),
            ("nonsense", None, Outcome::Ignore),
        ] {
            let mut trailers = headers(&[("grpc-status", status)]);
            if let Some(pushback) = pushback {
                trailers.insert(PUSHBACK, pushback.parse().unwrap());
            }
            assert_eq!(outcome(&trailers), Some(expected), "{status}");
        }
        assert_eq!(outcome(&HeaderMap::new()), None);
    }

    #[test]
    fn a_refusal_says_that_nothing_was_sent_and_when_to_return() {
        let refused = Refused::after(By::QueueFull, Duration::from_micros(1500));
        let head = refusal(&refused);
        assert!(is_grpc(head.headers()));
        assert_eq!(status(head.headers()), Some(Code::UNAVAILABLE));
        assert_eq!(pushback(head.headers()), Some(Duration::from_millis(2)));
        assert_eq!(head.headers()[MESSAGE], "refused by queue-full, not sent");
        assert_eq!(head.headers()[REFUSED], "queue-full");
        assert_eq!(status(refusal(&Refused::new(By::Quota)).headers()), Some(Code::RESOURCE_EXHAUSTED));
    }
}
