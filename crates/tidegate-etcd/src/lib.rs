//! The room of Tidegate that knows etcd: a client of its own for the v3 protocol.

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
