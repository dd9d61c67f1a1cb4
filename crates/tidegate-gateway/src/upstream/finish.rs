//! What can be written into a request only when it is known who it goes to, and as what: over again for each attempt.

use std::{fmt, sync::Arc};

use http::{HeaderMap, Method, Request, header, uri::Authority};

use super::address::Address;

/// Finishes requests that carry it in their extensions.
#[derive(Clone)]
pub struct Finish(pub Arc<dyn Finishing>);

/// Writes what is missing.
pub trait Finishing: Send + Sync {
    /// Writes it into `headers`, for every attempt to send.
    fn finish(&self, target: &Target<'_>, headers: &mut HeaderMap);
}

/// What a request is for, as the upstream is told.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The method.
    pub method: &'a Method,
    /// The endpoint's scheme, `http` or `https`.
    pub scheme: &'a str,
    /// The host and port that the upstream is told.
    pub authority: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The host and port of the endpoint.
    pub endpoint: &'a Authority,
}

impl Address {
    /// Finishes a request whose target is written.
    pub(super) fn finish<B>(&self, request: &mut Request<B>) {
        let Some(Finish(finishing)) = request.extensions().get::<Finish>().cloned() else { return };
        let (uri, method) = (request.uri().clone(), request.method().clone());
        let host = request.headers().get(header::HOST).cloned();
        let host = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let target = Target {
            method: &method,
            scheme: self.scheme.as_str(),
            authority: uri.authority().map_or(host, Authority::as_str),
            path: uri.path(),
            endpoint: &self.authority,
        };
        finishing.finish(&target, request.headers_mut());
    }
}

impl fmt::Debug for Finish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Finish")
    }
}
