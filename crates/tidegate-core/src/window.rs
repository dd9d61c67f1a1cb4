//! Limits on a count within a window of time: aligned to the clock, or wherever one looks.

mod fixed;
mod sliding;

pub use fixed::Fixed;
pub(crate) use sliding::Grain;
pub use sliding::Sliding;
