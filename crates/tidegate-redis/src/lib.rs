//! The room of Tidegate that knows Redis and Valkey.
//!
//! A [`StoreUrl`] says which servers, a [`Client`] keeps them connected: one server, the one that sentinels name, or a
//! cluster. Every operation has a deadline, those under way have a bound, and a server that cannot hold a ledger is
//! told by name ([`Fault`]) with what to do about it. A [`RedisLedger`] is the ledger of a fleet's limits in it, and a
//! [`RedisFleet`] the permits of a fleet's calls in flight.
//!
//! ```no_run
//! use tidegate::{Call, clock, fleet::{FleetThrottle, Rule}, throttle::{KeyHasher, Quota, Seed}};
//! use tidegate_redis::{Client, Namespace, RedisLedger, Settings};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::start(&"redis-sentinel://a:26379,b:26379/cache".parse()?, Settings::default())?;
//! client.ready().await?; // says what is wrong with the store; it may also be asked later
//! let ledger = RedisLedger::new(client, Namespace::new("prod")?);
//! let rule = Rule::of(Quota::of("1000/s".parse()?).build()?).build()?;
//! let throttle = FleetThrottle::builder("per-client", rule, ledger).build()?;
//! let alice = KeyHasher::seeded(Seed::of(b"a secret that all nodes know")).part(b"alice").finish();
//! let permit = throttle.enter(&Call::at(clock::now()), &alice).await?;
//! # drop(permit); Ok(()) }
//! ```
//!
//! # What stands in the store
//!
//! | key | what | lives for |
//! |---|---|---|
//! | `NS:epoch`; in a cluster `NS:{NS:BUCKET}:epoch` | which ledger it is, since when, and the run id of the process that wrote it | 48 h from the last use |
//! | `NS:{NS:BUCKET}:LAW:LIMIT:KEY` | one account | until forgetting it changes nothing |
//! | `NS:{NS:BUCKET}:session:ID` | a session of the token guard, with the lease of who refreshes it | until it is idle or too old |
//! | `NS:{NS:BUCKET}:leases:LIMIT` | leases of calls in flight | twice a lease |
//!
//! `BUCKET` is one of 256, by the key's hash; a key stands in the store as that hash only. Hints go over the channel
//! `NS:hints`, in a cluster of Redis 7 or newer over `NS:{NS:BUCKET}:hints` of each shard.
//!
//! # What may be lost
//!
//! A server that was emptied, restarted or replaced by a replica may have lost grants, and so each of these begins a
//! new epoch: nothing is granted for a second and a life of credit, in which all nodes tell what they saw. Afterwards
//! no more is granted than was left, but for what only nodes saw that are gone as well. Where a node has more than 128
//! accounts to tell of, the ledger waits until it has, for 30 seconds at most; a node remembers 65 536 accounts that count at a
//! time, and tells of others when it asks for them again.
//!
//! A master that is cut off and goes on taking writes beside its successor is a second ledger. Under sentinels a node stops
//! asking it as soon as fewer than half of the sentinels in the URL call it the master, or answer at all, for a heartbeat: so
//! name all of them. A cluster's node stops by itself.
//!
//! A user of the store needs the [`RIGHTS`], and keys and channels of the namespace.

#![forbid(unsafe_code)]

mod check;
mod client;
mod cluster;
mod epochs;
#[cfg(test)]
mod equality;
mod error;
mod fleet;
mod hints;
mod keys;
mod ledger;
mod link;
mod memory;
mod script;
mod sentinel;
mod server_clock;
mod sessions;
mod settings;
mod slot;
mod store_url;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;
mod tended;
mod watch;
mod wire;

pub use client::{Client, Health};
pub use error::{Fault, OLDEST, RIGHTS, StoreError};
pub use fleet::RedisFleet;
pub use keys::{InvalidNamespace, LONGEST_NAMESPACE, Namespace};
pub use ledger::RedisLedger;
pub use sessions::RedisSessions;
pub use settings::{InvalidSettings, LONGEST_HEARTBEAT, Settings};
pub use store_url::{InvalidStoreUrl, StoreUrl, Topology};
