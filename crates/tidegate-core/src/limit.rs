//! How large a limit should be: a law turns what was seen in a window into the next limit.

mod fixed;

pub use fixed::{Bounds, Fixed, InvalidLimit};
