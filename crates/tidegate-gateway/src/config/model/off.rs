//! Values that may be turned off by the word `off`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::{ByteSize, HumanDuration};

/// The word `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Off {
    /// The only word.
    Off,
}

/// A time limit, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Timeout {
    /// No limit: written `off`.
    Off(Off),
    /// At most so long.
    After(HumanDuration),
}

impl Timeout {
    /// The limit, if there is one.
    pub fn limit(self) -> Option<Duration> {
        match self {
            Self::Off(_) => None,
            Self::After(limit) => Some(*limit),
        }
    }
}

/// A bound on bytes, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum BodyBound {
    /// No bound: written `off`.
    Off(Off),
    /// At most so many.
    Bytes(ByteSize),
}

impl BodyBound {
    /// The bound, if there is one.
    pub fn limit(self) -> Option<u64> {
        match self {
            Self::Off(_) => None,
            Self::Bytes(bytes) => Some(bytes.0),
        }
    }
}
