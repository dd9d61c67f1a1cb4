//! The upstream side of the proxy: which endpoint takes a call, which connection carries it, and whether a call that
//! failed surely was not sent.

mod address;
mod body;
mod connect;
mod endpoint;
mod endpoints;
mod error;
mod exchange;
mod finish;
mod http1;
mod http2;
mod members;
mod open;
mod pool;
mod queue;
mod reach;
mod replay;
mod stream;
mod sweep;
#[cfg(test)]
mod tests;
mod tls;

pub use body::UpstreamBody;
pub use endpoint::{Endpoint, Vouched};
pub(crate) use endpoints::breaker_settings;
pub use endpoints::{Upstream, Wanted, Zone};
pub use error::{SendError, SendErrorKind, Sent, Unsent, UpstreamError};
pub use finish::{Finish, Finishing, Target};
pub use http1::Decoding;
pub use pool::ConnectionStats;
pub use reach::Reach;
pub(crate) use replay::{Replay, Taken};
