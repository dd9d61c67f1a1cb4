//! A limit that moves: windows of samples, and a law that answers each of them.

use std::fmt;

use super::{Law, Sample, Windows};
use crate::Instant;

/// A law with its windows.
pub struct Adaptive {
    law: Box<dyn Law + Send>,
    windows: Windows,
}

impl Adaptive {
    /// Makes a limit that follows `law`.
    pub fn new(law: impl Law + Send + 'static) -> Self {
        Self { law: Box::new(law), windows: Windows::default() }
    }

    /// The limit now.
    pub fn limit(&self) -> u32 {
        self.law.limit()
    }

    /// Learns from a call; the limit, if a window is complete.
    pub fn record(&mut self, sample: &Sample, now: Instant) -> Option<u32> {
        let window = self.windows.record(sample, now)?;
        Some(self.law.update(&window))
    }
}

impl fmt::Debug for Adaptive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adaptive").field("limit", &self.limit()).finish_non_exhaustive()
    }
}
