//! The room of Tidegate that knows Redis and Valkey.
//!
//! A [`StoreUrl`] says which servers, a [`Client`] keeps them connected: one server, the one that sentinels name, or a
//! cluster. Every operation has a deadline, those under way have a bound, and a server that cannot hold a ledger is
//! told by name ([`Fault`]) with what to do about it. A [`RedisLedger`] is the ledger of a fleet's
//! limits in it, and a [`RedisFleet`] the permits of a fleet's calls in flight.

#![forbid(unsafe_code)]

mod check;
mod client;
mod cluster;
mod epochs;
mod error;
mod fleet;
mod hints;
mod keys;
mod ledger;
mod link;
mod memory;
mod script;
mod sentinel;
mod settings;
mod slot;
mod store_url;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;
mod watch;
mod wire;

pub use client::{Client, Health};
pub use error::{Fault, OLDEST, StoreError};
pub use fleet::RedisFleet;
pub use keys::{InvalidNamespace, LONGEST_NAMESPACE, Namespace};
pub use ledger::RedisLedger;
pub use settings::{InvalidSettings, LONGEST_HEARTBEAT, Settings};
pub use store_url::{InvalidStoreUrl, StoreUrl, Topology};
