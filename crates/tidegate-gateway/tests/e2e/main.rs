//! The gateway end to end: the real binary, over real sockets, before real upstreams.

#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect ends there")]

#[expect(unreachable_pub, reason = "other test programs take files of it in by their path")]
#[path = "../support/mod.rs"]
mod support;

#[path = "../../../tidegate-redis/tests/support/mod.rs"]
mod servers;

#[expect(dead_code, reason = "what these tests do not need of it")]
#[path = "../../../tidegate-etcd/tests/etcd/server.rs"]
mod server;

use servers::ports;

mod acceptance;
mod admin;
mod attacks;
mod bad_input;
mod costs;
mod fleet;
mod grpc;
mod guards;
mod harness;
mod http;
mod in_flight;
mod lifecycle;
mod memory;
mod oidc;
mod overload;
mod registry;
mod sessions;
mod setup;
mod streams;
mod tls;
pub(crate) mod tokens;
mod upgrade;
mod websocket;
