//! How a request names its target: the origin form and `Host` of HTTP/1.1, the pseudo fields of HTTP/2.

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Uri, Version, header,
    uri::{Authority, PathAndQuery, Scheme},
};

use crate::config::HostHeader;

/// An endpoint's address as requests carry it.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    pub(super) host: HeaderValue,
    pub(super) policy: HostHeader,
}

/// Fields that have no place in HTTP/2 (RFC 9113 §8.2.2).
const CONNECTION_FIELDS: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

impl Address {
    /// Writes the target for HTTP/1.1: origin form, and exactly one `Host`.
    pub(super) fn http1<B>(&self, request: &mut Request<B>) {
        *request.version_mut() = Version::HTTP_11;
        let named = match self.policy {
            HostHeader::Endpoint => Some(self.host.clone()),
            HostHeader::Client => match request.uri().authority() {
                Some(authority) => Some(self.host_value(authority)),
                None if request.headers().contains_key(header::HOST) => None,
                None => Some(self.host.clone()),
            },
        };
        if let Some(host) = named {
            request.headers_mut().insert(header::HOST, host);
        }
        if request.uri().authority().is_some() || request.uri().scheme().is_some() {
            let path = path_of(request.uri());
            *request.uri_mut() = path.into();
        }
    }

    /// Writes the target for HTTP/2: absolute form, which becomes the pseudo fields, and no connection fields.
    pub(super) fn http2<B>(&self, request: &mut Request<B>) {
        *request.version_mut() = Version::HTTP_2;
        let host = request.headers_mut().remove(header::HOST);
        let authority = match self.policy {
            HostHeader::Endpoint => self.authority.clone(),
            HostHeader::Client => match (request.uri().authority(), host) {
                (Some(authority), _) => authority.clone(),
                (None, Some(host)) if host != self.host => {
                    Authority::try_from(host.as_bytes()).unwrap_or_else(|_| self.authority.clone())
                }
                (None, _) => self.authority.clone(),
            },
        };
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(authority);
        parts.path_and_query = Some(path_of(request.uri()));
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        let headers = request.headers_mut();
        for name in &CONNECTION_FIELDS {
            headers.remove(name);
        }
        if headers.get(header::TE).is_some_and(|value| value != "trailers") {
            headers.remove(header::TE);
        }
    }

    fn host_value(&self, authority: &Authority) -> HeaderValue {
        if *authority == self.authority {
            return self.host.clone();
        }
        HeaderValue::from_str(authority.as_str()).unwrap_or_else(|_| self.host.clone())
    }
}

fn path_of(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// Whether the message asks to leave HTTP. The request path has stripped the field from all others.
pub(super) fn upgrades(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

/// Whether the call is gRPC, which needs HTTP/2.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(policy: HostHeader) -> Address {
        Address {
            scheme: Scheme::HTTP,
            authority: Authority::from_static("10.0.0.1:9001"),
            host: HeaderValue::from_static("10.0.0.1:9001"),
            policy,
        }
    }

    fn request(uri: &str, host: Option<&'static str>) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = uri.parse().unwrap();
        if let Some(host) = host {
            request.headers_mut().insert(header::HOST, HeaderValue::from_static(host));
        }
        request
    }

    #[test]
    fn http1_gets_origin_form_and_one_host() {
        for (uri, host, policy, expected) in [
            ("/a?b=c", Some("api.example"), HostHeader::Client, "api.example"),
            ("/a?b=c", Some("api.example"), HostHeader::Endpoint, "10.0.0.1:9001"),
            ("/a?b=c", None, HostHeader::Client, "10.0.0.1:9001"),
            ("https://h2.example/a?b=c", None, HostHeader::Client, "h2.example"),
            ("https://h2.example/a?b=c", Some("spoofed"), HostHeader::Client, "h2.example"),
        ] {
            let mut request = request(uri, host);
            address(policy).http1(&mut request);
            assert_eq!(request.uri(), "/a?b=c");
            assert_eq!(request.headers()[header::HOST], expected);
            assert_eq!(request.headers().get_all(header::HOST).iter().count(), 1);
        }
    }

    #[test]
    fn http2_gets_absolute_form_and_no_connection_fields() {
        for (uri, host, policy, expected) in [
            ("/a", Some("api.example"), HostHeader::Client, "http://api.example/a"),
            ("/a", Some("api.example"), HostHeader::Endpoint, "http://10.0.0.1:9001/a"),
            ("/", None, HostHeader::Client, "http://10.0.0.1:9001/"),
            ("https://h2.example/a", Some("spoofed"), HostHeader::Client, "http://h2.example/a"),
        ] {
            let mut request = request(uri, host);
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            request.headers_mut().insert(header::TE, HeaderValue::from_static("gzip"));
            address(policy).http2(&mut request);
            assert_eq!(request.uri(), expected);
            assert!(request.headers().is_empty(), "{:?}", request.headers());
        }
    }

    #[test]
    fn te_trailers_reaches_a_grpc_server() {
        let mut request = request("/a", None);
        request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
        address(HostHeader::Client).http2(&mut request);
        assert_eq!(request.headers()[header::TE], "trailers");
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        let mut headers = HeaderMap::new();
        assert!(!is_grpc(&headers));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
        assert!(is_grpc(&headers));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        assert!(!is_grpc(&headers));
    }
}
