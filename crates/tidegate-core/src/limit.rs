//! How large a limit should be: a law turns what was seen in a window into the next limit.

mod adaptive;
mod aimd;
mod baseline;
mod fixed;
mod gradient;
mod pursuit;
mod vegas;
mod window;

pub use adaptive::Adaptive;
pub use aimd::Aimd;
pub use fixed::{Bounds, Fixed, InvalidLimit};
pub use gradient::Gradient;
pub use vegas::Vegas;
pub use window::{Sample, Window, Windows};

/// Decides the next limit from a window of calls. It keeps within its bounds, and is asked once a window.
pub trait Law {
    /// The limit now.
    fn limit(&self) -> u32;

    /// Learns from a window, and gives the next limit.
    fn update(&mut self, window: &Window) -> u32;
}
