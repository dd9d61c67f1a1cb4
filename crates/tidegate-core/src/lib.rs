//! The decisions of Tidegate.
//!
//! Nothing here reads a clock, does IO, spawns, logs or rolls dice: `now` is an argument and an answer is an
//! enum, so that every decision can be tested in a table, proved with properties and run on virtual time.

#![forbid(unsafe_code)]

pub mod breaker;
pub mod budget;
mod call;
pub mod gate;
mod instant;
pub mod limit;
mod outcome;
mod rate;
mod refused;
mod sliding;

pub use call::{Call, Priority};
pub use instant::{Instant, nanos};
pub use outcome::Outcome;
pub use rate::{InvalidRate, MAX_PERIOD, Rate};
pub use refused::{By, Refused};
