//! The metrics of memory, as the gate of new logins sees it.

use std::fmt;

use super::page::{BYTES, NONE, Page};
use crate::state::PressureState;

pub(super) fn encode(page: &mut Page<'_>, state: &PressureState) -> fmt::Result {
    let level = [(NONE, f64::from(state.short))];
    page.gauge("tidegate_pressure_level", "How short memory is: 0, 1 high, 2 critical", None, level)?;
    let used = [(NONE, state.used_bytes as f64)];
    page.gauge(
        "tidegate_pressure_memory_used",
        "Memory in use that cannot be given back at once",
        BYTES,
        used,
    )?;
    let limit = state.limit_bytes.map(|limit| (NONE, limit as f64));
    page.gauge("tidegate_pressure_memory_limit", "Memory that may be used", BYTES, limit)?;
    let shed = [(NONE, state.shed)];
    page.counter("tidegate_pressure_shed", "Logins that were told to come back", None, shed)
}
