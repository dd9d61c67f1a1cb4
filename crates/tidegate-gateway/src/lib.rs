//! The gateway `tidegate`: a reverse proxy and sidecar that is nothing but the library composed.

#![forbid(unsafe_code)]

pub mod access_log;
pub mod admin;
pub mod body;
pub mod cli;
pub mod config;
pub mod cost;
pub mod counter;
pub mod example;
pub mod exchange;
pub mod flow;
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod handover;
mod in_flight;
pub mod key;
mod limit;
pub mod listener;
pub mod logging;
mod memory;
pub mod oidc;
pub mod open_files;
pub mod operate;
#[cfg(test)]
#[path = "../../tidegate/tests/support/ports.rs"]
mod ports;
mod pressure;
pub mod proxy;
pub mod record;
pub mod refusal;
pub mod register;
pub mod registry;
mod restart;
pub mod route;
pub mod serve;
pub mod signals;
pub mod simulate;
mod stack;
pub mod state;
pub mod store;
mod tab;
mod table;
pub mod telemetry;
mod text_table;
pub mod trace;
pub mod upload;
pub mod upstream;
pub mod workers;
