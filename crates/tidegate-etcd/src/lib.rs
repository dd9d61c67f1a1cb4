//! The room of Tidegate that knows etcd: so far, which registry a URL means.

#![forbid(unsafe_code)]

mod registry_url;

pub use registry_url::{InvalidRegistryUrl, RegistryUrl};
