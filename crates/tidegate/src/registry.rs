//! Who serves what, even while the registry is down.
//!
//! A [`Source`] is a registry as Tidegate sees it: it lists, gets, watches and registers, and it never calls an answer
//! empty when it could not ask.

mod address;
mod instance;
mod name;
mod registration;
mod source;

pub use address::{Address, InvalidAddress};
pub use instance::Instance;
pub use name::{InvalidServiceName, LONGEST_NAME, ServiceName};
pub use registration::{Gone, Registrant, Registration, Standing, registration};
pub use source::{Change, Listing, Revision, Source, SourceError, SourceErrorKind, Update, Watch};
