//! Guards that keep a shared dependency alive, as plain async functions and as `tower` layers over `http` types.

#![forbid(unsafe_code)]

pub mod clock;
mod gate;

pub use gate::{Gate, Permit};
pub use tidegate_core::{By, Call, Instant, Outcome, Priority, Rate, Refused};
