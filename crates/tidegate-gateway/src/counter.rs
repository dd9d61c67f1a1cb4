//! One counter of a limit in the hands of an operator: what is asked of it, what it says, and why it may not be changed.

use serde::{Deserialize, Serialize};

use crate::key::Extractor;

/// The parts of a key, in the order of the limit's `key`; none for a part that calls lack.
pub type KeyParts = Vec<Option<String>>;

/// Where one counter stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CounterState {
    /// The limit.
    pub limit: String,
    /// The parts of the key.
    pub key: KeyParts,
    /// Units left; what gateways hold as credit is not counted.
    pub remaining: u64,
    /// Units there are at most.
    pub most: u64,
    /// Units that calls cost beyond what there was: paid before anything else is granted.
    pub owed: u64,
    /// Seconds until all of them are there again.
    pub reset_in_seconds: f64,
    /// Gateways that asked for credit lately; none where nothing is shared.
    pub nodes: Option<u64>,
}

/// What is done to a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Gives units, or takes them when they are negative.
    Add(i64),
    /// Gives the whole limit.
    Reset,
}

/// A counter before and after a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CounterChange {
    /// Before.
    pub before: CounterState,
    /// After.
    pub after: CounterState,
}

/// Why a counter could not be read or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CounterError {
    /// No such limit.
    #[error("there is no limit `{}`; there are: {known}", .name.escape_debug())]
    NoLimit {
        /// The name that was given.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// Too few or too many parts of a key.
    #[error("{}", wrong_parts(*.wanted, .parts, *.given))]
    Parts {
        /// How many it has.
        wanted: usize,
        /// Which; empty for a limit with one counter.
        parts: String,
        /// How many were given.
        given: usize,
    },
    /// A part that no call can have.
    #[error("`{}` is not a value of {part}; write {remedy}", .value.escape_debug())]
    Value {
        /// What was given.
        value: String,
        /// The part.
        part: Extractor,
        /// What to write.
        remedy: &'static str,
    },
    /// The counter cannot be changed for this key alone.
    #[error("{0}")]
    Shared(String),
    /// The store could not be read.
    #[error("{0}; nothing is known of the counter")]
    Store(String),
    /// The store did not say whether it did it.
    #[error("{0}; whether the counter was changed is not known: read it with tidegate limits get")]
    Unknown(String),
}

fn wrong_parts(wanted: usize, parts: &str, given: usize) -> String {
    match wanted {
        0 => format!("this limit has one counter for all calls, without a key; name no value, not {given}"),
        1 => format!("this limit counts per {parts}; name one value of it, not {given}"),
        _ => format!("this limit counts per {parts}; name {wanted} values in this order, not {given}"),
    }
}

/// The parts of a key as they may be logged: what clients keep secret is not.
pub fn masked(key: &[Extractor], parts: &KeyParts) -> String {
    let shown = key.iter().zip(parts).map(|(extractor, part)| match (extractor, part) {
        (_, None) => format!("{extractor} absent"),
        (
            Extractor::Header(_) | Extractor::Cookie(_) | Extractor::Query(_) | Extractor::Claim(_),
            Some(_),
        ) => {
            format!("{extractor}={}", tidegate::REDACTED)
        }
        (
            Extractor::Path
            | Extractor::Segment(_)
            | Extractor::Method
            | Extractor::Host
            | Extractor::ClientIp(_),
            Some(part),
        ) => format!("{extractor}={}", part.escape_debug()),
    });
    shown.collect::<Vec<_>>().join(" ")
}
