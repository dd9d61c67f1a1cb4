//! The room of Tidegate that knows etcd: a registry in etcd v3, over a client of its own, for versions 3.4 to 3.7.
//!
//! | type | what it is |
//! |---|---|
//! | [`EtcdRegistry`] | a [`Source`](tidegate::registry::Source): lists, gets, watches, registers |
//! | [`RegistryUrl`] | which registry a URL means |
//! | [`Settings`], [`Client`] | how etcd is reached: members, TLS, user and password, deadlines |
//! | [`LoginBudget`] | how many logins a process may send |
//! | [`LeaseSettings`] | how long registrations outlive their process, and how fast they come back |
//! | [`Layout`] | how registrations stand in etcd: Tidegate's own keys, or go-micro's |
//!
//! What etcd is spared, compared with a client that logs in for every stream and renews every key for itself: one login
//! in the life of a process, and again only when etcd says that the token is not valid; one lease and one stream for all
//! of its registrations; one reading for each watch, however often it is cut off.

#![forbid(unsafe_code)]

mod client;
mod error;
mod history;
mod kv;
mod layout;
mod lease;
mod login;
mod members;
mod pace;
#[doc(hidden)]
pub mod proto;
mod registry;
mod registry_url;
mod settings;
mod stats;
mod watch;

pub use client::Client;
pub use error::{Error, ErrorKind};
pub use layout::{InvalidLayout, Layout};
pub use lease::LeaseSettings;
pub use pace::LoginBudget;
pub use registry::{EtcdRegistry, EtcdWatch};
pub use registry_url::{InvalidRegistryUrl, RegistryUrl};
pub use settings::{Settings, Tls};
pub use stats::Stats;
