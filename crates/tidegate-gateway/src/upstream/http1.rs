//! HTTP/1.1 to endpoints, spoken in the caller's own task.
//!
//! A call writes its request to the socket and reads the response from it: no task per connection, no channel between. The
//! framing of a request is written from what its body is, never from what its fields say, and a response whose framing
//! is ambiguous is refused (RFC 9112 §6.3), so that no two ends of a connection disagree about where a message ends.

mod body;
mod connection;
mod decode;
mod decoding;
mod encode;
mod upgrade;

pub(super) use body::Http1Body;
pub(super) use connection::{Boxed, Connection, Failed};
pub use decoding::Decoding;
pub(super) use upgrade::send as send_upgrade;
