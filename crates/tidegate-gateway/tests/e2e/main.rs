//! The gateway end to end: the real binary, over real sockets, before real upstreams.

#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect ends there")]

#[expect(unreachable_pub, reason = "other test programs take files of it in by their path")]
#[expect(dead_code, reason = "the tests that use all of it come with the gateway")]
#[path = "../support/mod.rs"]
mod support;

mod harness;
