//! The upstream side against real servers over real sockets.

mod connecting;
mod framing;
mod http1;
mod http2;
mod picking;
mod pool;
mod refusals;
mod reuse;
mod server;
mod tls;
