//! Memory, as the gate of new logins sees it.

use serde::Serialize;

/// How short memory is.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PressureState {
    /// `none`, `high` or `critical`.
    pub level: &'static str,
    /// The same as a figure: 0, 1 or 2.
    #[serde(skip)]
    pub short: u8,
    /// Bytes in use that cannot be given back at once.
    pub used_bytes: u64,
    /// Bytes that may be used; none where nobody says.
    pub limit_bytes: Option<u64>,
    /// Percent of the last ten seconds in which a task waited for memory; none where the kernel does not tell.
    pub stalled_percent: Option<f64>,
    /// Logins that were told to come back.
    pub shed: u64,
}
