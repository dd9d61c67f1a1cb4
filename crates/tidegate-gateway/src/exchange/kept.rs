//! What the log and the trace need of a request head, kept while the call goes on.

use http::{HeaderValue, Method, Request, Uri, Version, header};

/// A request head, as far as it is told of.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) scheme: &'static str,
    pub(super) method: Method,
    pub(super) version: Version,
    uri: Uri,
    host: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
}

impl Kept {
    pub(super) fn of<B>(request: &Request<B>, scheme: &'static str) -> Self {
        let headers = request.headers();
        Self {
            scheme,
            method: request.method().clone(),
            version: request.version(),
            uri: request.uri().clone(),
            host: headers.get(header::HOST).cloned(),
            referer: headers.get(header::REFERER).cloned(),
            user_agent: headers.get(header::USER_AGENT).cloned(),
        }
    }

    /// Forgets the query.
    pub(super) fn hide_query(&mut self) {
        let path = self.uri.path().parse();
        self.uri = path.unwrap_or_else(|_| Uri::from_static("/"));
    }

    pub(super) fn target(&self) -> &str {
        self.uri.path_and_query().map_or("/", |target| target.as_str())
    }

    /// HTTP/2 names the host in the target, which also counts where both name one.
    pub(super) fn host(&self) -> Option<&[u8]> {
        let authority = self.uri.authority().map(|authority| authority.as_str().as_bytes());
        authority.or(self.host.as_ref().map(HeaderValue::as_bytes))
    }

    pub(super) fn referer(&self) -> Option<&[u8]> {
        self.referer.as_ref().map(HeaderValue::as_bytes)
    }

    pub(super) fn user_agent(&self) -> Option<&[u8]> {
        self.user_agent.as_ref().map(HeaderValue::as_bytes)
    }
}
