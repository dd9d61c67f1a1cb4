//! The registry in etcd against real servers: etcd 3.4, the oldest that is supported, and 3.7.

#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect ends there")]

mod failures;
mod fleet;
mod guarded;
mod logins;
#[path = "../../../tidegate/tests/support/ports.rs"]
mod ports;
mod registrations;
mod server;
mod support;
mod tls;
mod watches;
