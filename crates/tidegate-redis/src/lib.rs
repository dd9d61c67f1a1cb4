//! The room of Tidegate that knows Redis and Valkey: so far, which server a store's URL means.

#![forbid(unsafe_code)]

mod store_url;

pub use store_url::{InvalidStoreUrl, StoreUrl, Topology};
