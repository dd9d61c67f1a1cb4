//! What may go wrong towards an upstream, and above all: was the call sent?

use std::{error::Error, fmt, path::PathBuf, sync::Arc};

use crate::body::RequestBody;

/// Why an upstream could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// An endpoint is no URL that can be called.
    #[error(
        "upstream {upstream}: endpoint {endpoint:?} {why}; write http://host:port or https://host:port, nothing after it"
    )]
    Endpoint {
        /// The upstream's name.
        upstream: String,
        /// The endpoint as configured.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// There are no endpoints.
    #[error("upstream {upstream} has no endpoints; list at least one, like http://127.0.0.1:9001")]
    NoEndpoints {
        /// The upstream's name.
        upstream: String,
    },
    /// A TLS file cannot be used.
    #[error("upstream {upstream}: tls.{key} {}: {why}", path.display())]
    File {
        /// The upstream's name.
        upstream: String,
        /// The key in `tls`.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        why: String,
    },
    /// TLS settings do not go together.
    #[error("upstream {upstream}: {why}")]
    Tls {
        /// The upstream's name.
        upstream: String,
        /// What is wrong, and the remedy.
        why: String,
    },
}

/// Why a call has no response head.
#[derive(Debug)]
pub struct SendError {
    /// What happened, and whether the call was sent.
    pub kind: SendErrorKind,
    /// The request, given back when it surely was not sent and is still whole.
    pub request: Option<Box<http::Request<RequestBody>>>,
    /// The error underneath, where there is one.
    pub source: Option<Arc<dyn Error + Send + Sync>>,
}

/// Whether a failed call was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendErrorKind {
    /// Surely not processed by the upstream: it may be tried elsewhere, whatever its method.
    Unsent(Unsent),
    /// The upstream may have acted on it.
    Sent(Sent),
}

/// Why a call was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// The endpoint's name does not resolve.
    Dns,
    /// No address of the endpoint accepts a connection.
    Connect,
    /// No connection within `connections.connect_timeout`.
    ConnectTimeout,
    /// The TLS handshake failed.
    Tls,
    /// The endpoint does not speak the protocol it should.
    Protocol,
    /// All connections stayed busy until the wait was over.
    PoolTimeout,
    /// So many callers wait for a connection already that one more may not.
    PoolFull,
    /// The endpoint refused it: REFUSED_STREAM, GOAWAY, or a connection that was closing.
    Refused,
}

/// How a call failed that was sent, or may have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The connection ended before the response head.
    Closed,
    /// The endpoint reset the stream.
    Reset,
    /// The response is not HTTP.
    Protocol,
    /// The request's own body ended in an error: the client's doing, not the endpoint's.
    RequestBody,
}

impl SendError {
    pub(super) fn unsent(why: Unsent) -> Self {
        Self { kind: SendErrorKind::Unsent(why), request: None, source: None }
    }

    pub(super) fn sent(how: Sent) -> Self {
        Self { kind: SendErrorKind::Sent(how), request: None, source: None }
    }

    pub(super) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    pub(super) fn giving_back(mut self, request: Box<http::Request<RequestBody>>) -> Self {
        self.request = Some(request);
        self
    }

    /// Whether the call surely was not processed.
    pub fn is_unsent(&self) -> bool {
        matches!(self.kind, SendErrorKind::Unsent(_))
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            SendErrorKind::Unsent(Unsent::Dns) => "the endpoint's name does not resolve",
            SendErrorKind::Unsent(Unsent::Connect) => "cannot connect to the endpoint",
            SendErrorKind::Unsent(Unsent::ConnectTimeout) => "no connection within connect_timeout",
            SendErrorKind::Unsent(Unsent::Tls) => "the TLS handshake with the endpoint failed",
            SendErrorKind::Unsent(Unsent::Protocol) => "the endpoint does not speak the expected protocol",
            SendErrorKind::Unsent(Unsent::PoolTimeout) => {
                "all connections stayed busy; raise connections.max or lower in_flight.limit"
            }
            SendErrorKind::Unsent(Unsent::PoolFull) => "too many calls wait for a connection",
            SendErrorKind::Unsent(Unsent::Refused) => "the endpoint refused the call unprocessed",
            SendErrorKind::Sent(Sent::Closed) => "the connection ended before the response head",
            SendErrorKind::Sent(Sent::Reset) => "the endpoint reset the call",
            SendErrorKind::Sent(Sent::Protocol) => "the endpoint's response is not valid HTTP",
            SendErrorKind::Sent(Sent::RequestBody) => "the client's request body ended early",
        })?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error for SendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// Why no connection could be opened, shared by all who waited for it.
#[derive(Clone, Debug)]
pub(super) struct ConnectError {
    pub(super) why: Unsent,
    pub(super) source: Option<Arc<dyn Error + Send + Sync>>,
}

impl ConnectError {
    pub(super) fn new(why: Unsent, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { why, source: Some(source.into().into()) }
    }
}

impl From<Unsent> for ConnectError {
    fn from(why: Unsent) -> Self {
        Self { why, source: None }
    }
}

impl From<ConnectError> for SendError {
    fn from(error: ConnectError) -> Self {
        Self { kind: SendErrorKind::Unsent(error.why), request: None, source: error.source }
    }
}
