//! Who serves what, even while the registry is down.
//!
//! A [`Source`] is a registry as Tidegate sees it: it lists, gets, watches and registers, and it never calls an answer
//! empty when it could not ask. A [`Registry`] is the guard over one: it answers from what it knows, says how good that
//! is, and never takes the source's trouble for the truth.
//!
//! | the source | a lookup answers |
//! |---|---|
//! | tells every change | [`Provenance::Live`], and nobody polls |
//! | cannot be watched | [`Provenance::Fresh`], read again before the `ttl` ends, apart from other processes |
//! | is slow, hangs or is down | [`Provenance::Stale`] with the age, at once; the source is asked less and less often |
//! | was down since the start | [`Provenance::Snapshot`], from disk |
//! | loses all endpoints at once | the same endpoints, as suspects, until it confirms that after the grace |
//! | says there is none | [`LookupError::NotFound`] |
//! | could not be asked | [`LookupError::Unavailable`], with a time to come back |
//!
//! ```
//! use tidegate::{Call, clock, registry::{Instance, Registry, Settings, StaticSource}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let orders = "orders".parse()?;
//! let source = StaticSource::new([Instance::new(Clone::clone(&orders), "orders-7", "10.0.0.7:9001".parse()?)]);
//! let registry = Registry::new(source, Settings::default())?;
//! let found = registry.lookup(&Call::at(clock::now()), &orders).await?;
//! assert_eq!(found.endpoints[0].instance.address.port(), 9001);
//! # Ok(()) }
//! ```
//!
//! [`Registry::watch`] follows a service as snapshots, and [`Subscription::changes`] as endpoints that come and go, which
//! feeds a balancer. [`Registry::register`] keeps an instance registered.

mod address;
mod changes;
mod disk;
mod dns;
mod entry;
mod erased;
mod file;
mod fixed;
mod follow;
mod guard;
mod instance;
mod name;
mod registration;
mod service;
mod settings;
mod snapshot;
mod source;
#[cfg(feature = "srv")]
mod srv;
mod status;
pub mod testing;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

pub use address::{Address, InvalidAddress};
pub use changes::{Changes, EndpointChange};
pub use dns::DnsSource;
pub use file::{FileSource, FileWatch};
pub use fixed::{Once, StaticSource};
pub use guard::{Registry, Subscription};
pub use instance::Instance;
pub use name::{InvalidServiceName, LONGEST_NAME, ServiceName};
pub use registration::{Gone, Registrant, Registration, Standing, registration};
pub use service::Preservation;
pub use settings::{InvalidSettings, Settings};
pub use snapshot::{Doubt, Endpoint, Endpoints, LookupError, Provenance, Snapshot};
pub use source::{Change, Listing, Revision, Source, SourceError, SourceErrorKind, Update, Watch};
#[cfg(feature = "srv")]
pub use srv::SrvSource;
pub use status::{ServiceStatus, Stats};
