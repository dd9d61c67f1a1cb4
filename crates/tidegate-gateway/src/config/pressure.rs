//! What a configuration says of memory running short, typed.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate::pressure::{Limits, Settings};

use super::{
    defaults::{
        default_critical, default_high, default_pressure_every, default_root, default_stalled_critical,
        default_stalled_high,
    },
    formats::PercentText,
    model::Off,
    token::Percent,
    units::HumanDuration,
};

/// Whether new logins are held off while memory is short.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum PressureSetting {
    /// Never: written `off`.
    Off(Off),
    /// From these marks on.
    On(Pressure),
}

/// From where on memory is short.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pressure {
    /// The part of the memory limit in use from which on no login begins. Default: 85%.
    #[serde(default = "default_high")]
    #[schemars(with = "PercentText")]
    pub high: Percent,
    /// The part from which on logins that have begun wait as well. Default: 95%.
    #[serde(default = "default_critical")]
    #[schemars(with = "PercentText")]
    pub critical: Percent,
    /// The part of time that tasks wait for memory (PSI) from which on no login begins. Default: 20%.
    #[serde(default = "default_stalled_high")]
    #[schemars(with = "PercentText")]
    pub stalled_high: Percent,
    /// The part of time from which on logins that have begun wait as well. Default: 60%.
    #[serde(default = "default_stalled_critical")]
    #[schemars(with = "PercentText")]
    pub stalled_critical: Percent,
    /// How often memory is looked at. Default: 1s.
    #[serde(default = "default_pressure_every")]
    pub every: HumanDuration,
    /// Where the kernel's files are: `proc` and `sys/fs/cgroup` below it. Default: /.
    #[serde(default = "default_root")]
    pub root: PathBuf,
}

impl Pressure {
    /// How memory is watched.
    pub fn settings(&self) -> Settings {
        let marks = Limits {
            high: self.high.0.into(),
            critical: self.critical.0.into(),
            stalled_high: self.stalled_high.0.into(),
            stalled_critical: self.stalled_critical.0.into(),
            ..Limits::default()
        };
        Settings { limits: marks, every: *self.every, root: self.root.clone() }
    }
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            high: default_high(),
            critical: default_critical(),
            stalled_high: default_stalled_high(),
            stalled_critical: default_stalled_critical(),
            every: default_pressure_every(),
            root: default_root(),
        }
    }
}

impl Default for PressureSetting {
    fn default() -> Self {
        Self::On(Pressure::default())
    }
}
