//! Who serves what, even while the registry is down.
//!
//! A [`Source`] is a registry as Tidegate sees it: it lists, gets, watches and registers, and it never calls an answer
//! empty when it could not ask.

mod address;
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
mod status;
pub mod testing;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

pub use address::{Address, InvalidAddress};
pub use dns::DnsSource;
pub use file::{FileSource, FileWatch};
pub use fixed::{Once, StaticSource};
pub use guard::{Registry, Subscription};
pub use instance::Instance;
pub use name::{InvalidServiceName, LONGEST_NAME, ServiceName};
pub use registration::{Gone, Registrant, Registration, Standing, registration};
pub use service::Preservation;
pub use settings::{InvalidSettings, Settings};
pub use snapshot::{Endpoint, Endpoints, LookupError, Provenance, Snapshot};
pub use source::{Change, Listing, Revision, Source, SourceError, SourceErrorKind, Update, Watch};
pub use status::{ServiceStatus, Stats};
