//! The gateway `tidegate`: a reverse proxy and sidecar that is nothing but the library composed.

#![forbid(unsafe_code)]

pub mod body;
pub mod config;
pub mod example;
pub mod flow;
pub mod key;
pub mod proxy;
pub mod refusal;
pub mod route;
