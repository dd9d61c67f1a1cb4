//! What becomes of a session's access token: serve it, get another one, verify what was granted, or log in again.
//!
//! ```text
//!             due                    granted
//!   Fresh ──────────▶ Due ─▶ granting ──────▶ Fresh
//!     ▲                │        │ failed: served to its end, tried again after a pause
//!     │                │        │ over:   served to its end, then Over
//!     │ granted        ▼        ▼
//!     └───────────── Expired ─▶ granting; nothing to serve meanwhile
//!
//!   any ── logged out, somebody else's tokens ──▶ Over, at once and for good
//! ```
//!
//! A token that is good is never traded for a grant that failed, and a refresh token that may have been used up is not
//! sent again, unless the endpoint allows it for a grace.

mod lead;
mod plan;
mod tries;

pub use lead::{InvalidSchedule, LONGEST_LEAD, Lead, SHORTEST_LIFE, Schedule};
pub use plan::{Over, Plan, Standing};
pub use tries::{Blame, InvalidTries, Limits, Tries};
