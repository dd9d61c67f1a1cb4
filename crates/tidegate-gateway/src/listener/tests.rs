//! The listener over real sockets.

mod drain;
mod http1;
mod http2;
mod memory;
mod slow;
mod smuggling;
mod support;
mod tls;
