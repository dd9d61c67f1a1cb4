//! Header fields that end at this hop (RFC 9110 §7.6.1).

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Removes the fields that end here: those that RFC 9110 names and those that `Connection` lists.
///
/// `TE: trailers` is kept, because gRPC needs it end to end; `Trailer` is kept, because trailers are passed on.
pub fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let listed: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .filter(|name| !ends_to_end(name))
            .collect();
        headers.remove(header::CONNECTION);
        for name in listed {
            headers.remove(name);
        }
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        HTTP2_SETTINGS,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
    if let Some(te) = headers.get(header::TE) {
        let trailers =
            te.as_bytes().split(|b| *b == b',').any(|t| t.trim_ascii().eq_ignore_ascii_case(b"trailers"));
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        } else {
            headers.remove(header::TE);
        }
    }
}

/// Removes from a trailer section what may only stand in a head (RFC 9110 §6.5.1): framing, routing, credentials, how to
/// read the content, and what this hop says of the caller. A receiver that merges trailers into the head would believe it.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    if trailers.keys().any(is_of_the_head) {
        let listed: Vec<HeaderName> = trailers.keys().filter(|name| is_of_the_head(name)).cloned().collect();
        for name in listed {
            trailers.remove(name);
        }
    }
}

fn is_of_the_head(name: &HeaderName) -> bool {
    let text = name.as_str();
    text.starts_with("x-forwarded-")
        || text.starts_with("proxy-")
        || matches!(
            text,
            "x-real-ip" | "x-request-id" | "traceparent" | "tracestate" | "keep-alive" | "http2-settings"
        )
        || [
            header::AUTHORIZATION,
            header::CACHE_CONTROL,
            header::CONNECTION,
            header::CONTENT_ENCODING,
            header::CONTENT_LENGTH,
            header::CONTENT_RANGE,
            header::CONTENT_TYPE,
            header::COOKIE,
            header::EXPECT,
            header::FORWARDED,
            header::HOST,
            header::MAX_FORWARDS,
            header::RANGE,
            header::SET_COOKIE,
            header::TE,
            header::TRAILER,
            header::TRANSFER_ENCODING,
            header::UPGRADE,
            header::VIA,
        ]
        .contains(name)
}

/// Fields that a `Connection` header may not take away, as that would change what the message means.
fn ends_to_end(name: &HeaderName) -> bool {
    [
        header::HOST,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::TE,
        header::AUTHORIZATION,
        header::COOKIE,
        header::CACHE_CONTROL,
        HeaderName::from_static("x-forwarded-for"),
        HeaderName::from_static("x-forwarded-proto"),
        HeaderName::from_static("x-forwarded-host"),
        header::FORWARDED,
    ]
    .contains(name)
}

/// Whether the message asks for an upgrade, and to what.
///
/// An upgrade to HTTP (`h2c`) or to TLS is none, which a server may always decide (RFC 9110 §7.8): requests inside such a
/// tunnel would pass no route and no guard.
pub fn upgrade(headers: &HeaderMap, version: Version) -> Option<&HeaderValue> {
    let protocol = headers.get(header::UPGRADE).filter(|_| version == Version::HTTP_11)?;
    if protocol.as_bytes().split(|b| *b == b',').any(is_http) {
        return None;
    }
    headers
        .get_all(header::CONNECTION)
        .iter()
        .any(|value| {
            value.as_bytes().split(|b| *b == b',').any(|t| t.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        })
        .then_some(protocol)
}

/// Whether a protocol, with or without a version, is HTTP or may carry it unseen.
fn is_http(protocol: &[u8]) -> bool {
    let name = protocol.split(|b| *b == b'/').next().unwrap_or_default().trim_ascii();
    [&b"h2c"[..], b"h2", b"http", b"tls"].iter().any(|http| name.eq_ignore_ascii_case(http))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(fields: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        left.sort();
        left
    }

    #[test]
    fn what_ends_at_a_hop_goes_no_further() {
        let left = stripped(&[
            ("connection", "keep-alive, X-Internal"),
            ("connection", "x-second"),
            ("keep-alive", "timeout=5"),
            ("x-internal", "1"),
            ("x-second", "1"),
            ("proxy-connection", "close"),
            ("proxy-authorization", "Basic x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("te", "gzip"),
            ("accept", "*/*"),
        ]);
        assert_eq!(left, [("accept".into(), "*/*".into())]);
    }

    #[test]
    fn te_trailers_passes_as_grpc_needs_it() {
        assert_eq!(stripped(&[("te", "gzip, Trailers")]), [("te".into(), "trailers".into())]);
        assert_eq!(stripped(&[("connection", "te"), ("te", "trailers")]), [("te".into(), "trailers".into())]);
    }

    #[test]
    fn a_connection_header_takes_no_meaning_away() {
        let left =
            stripped(&[("connection", "authorization, host, x-forwarded-for"), ("authorization", "x")]);
        assert_eq!(left, [("authorization".into(), "x".into())]);
    }

    #[test]
    fn trailers_say_nothing_that_belongs_in_the_head() {
        let mut trailers = HeaderMap::new();
        for name in
            ["host", "x-forwarded-for", "authorization", "content-length", "connection", "cookie", "via"]
        {
            trailers.append(name, HeaderValue::from_static("x"));
        }
        for name in ["grpc-status", "x-sum", "x-sum", "server-timing", "etag"] {
            trailers.append(name, HeaderValue::from_static("x"));
        }
        strip_trailers(&mut trailers);
        assert_eq!(trailers.len(), 5);
        assert!(trailers.contains_key("grpc-status") && !trailers.contains_key("host"), "{trailers:?}");
    }

    #[test]
    fn an_upgrade_needs_both_of_its_fields() {
        let mut headers = HeaderMap::new();
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        assert_eq!(upgrade(&headers, Version::HTTP_11), None);
        headers.insert("connection", HeaderValue::from_static("keep-alive, Upgrade"));
        assert_eq!(upgrade(&headers, Version::HTTP_11).unwrap(), "websocket");
        assert_eq!(upgrade(&headers, Version::HTTP_10), None);
        for http in ["h2c", "websocket, H2C", "HTTP/2.0", "http/1.1", "TLS/1.2", "h2"] {
            headers.insert("upgrade", HeaderValue::from_static(http));
            assert_eq!(upgrade(&headers, Version::HTTP_11), None, "{http}");
        }
    }
}
