//! The gateway `tidegate`: a reverse proxy and sidecar that is nothing but the library composed.

#![forbid(unsafe_code)]

pub mod access_log;
pub mod body;
pub mod config;
pub mod state;
pub mod telemetry;
