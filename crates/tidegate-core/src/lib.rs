//! The decisions of Tidegate.
//!
//! Nothing here reads a clock, does IO, spawns, logs or rolls dice: `now` is an argument and an answer is an
//! enum, so that every decision can be tested in a table, proved with properties and run on virtual time.

#![forbid(unsafe_code)]

pub mod breaker;
pub mod budget;
mod call;
pub mod gate;
mod gcra;
mod instant;
pub mod lease;
pub mod limit;
mod outcome;
mod quota;
mod rate;
mod refused;
pub mod share;
mod sliding;
mod window;

pub use call::{Call, Priority};
pub use gcra::Gcra;
pub use instant::{Instant, nanos};
pub use outcome::Outcome;
pub use quota::{Algorithm, Counter, Decision, Grant, InvalidQuota, Quota, QuotaBuilder, Standing};
pub use rate::{InvalidRate, MAX_PERIOD, Rate};
pub use refused::{By, Refused};
pub use window::{Fixed, Sliding};
