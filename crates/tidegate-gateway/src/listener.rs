//! The listener: takes connections, speaks HTTP/1 and HTTP/2 with them within bounds, and hands each request to a
//! [`Handler`]. What it decides: what is HTTP and what is not, how long a client may take, and how it all ends.

mod accept;
mod conn;
mod framing;
mod io;
mod limits;
mod peer;
mod service;
mod slow;
mod stats;
mod stop;
mod tls;

use std::{future::Future, sync::Arc};

use http::{Request, Response};
use hyper::body::Incoming;

pub use accept::{BindError, Drained, Listener, Settings};
pub use limits::{Limits, LiveLimits};
pub use peer::{Peer, TlsInfo};
pub use stats::ListenerStats;
pub use tls::{LiveTls, TlsError};

use crate::body::ResponseBody;

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Dropped when the client goes away before the answer is there.
    fn call(
        &self,
        request: Request<Incoming>,
        peer: &Arc<Peer>,
    ) -> impl Future<Output = Response<ResponseBody>> + Send;
}

#[cfg(test)]
mod tests;
