//! What a reverse proxy does to a message: header fields that end at a hop, fields that say who passed it on, upgrades.

pub mod forwarded;
pub mod hop;
pub mod lookalike;
pub mod target;
pub mod upgrade;
