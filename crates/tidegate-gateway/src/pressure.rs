//! New logins while memory is short: what is under way and who is in goes on, who wants to come in waits.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tidegate::{Pressure as Guard, pressure::Level};
use tidegate_core::{Call, Priority, Refused};

use crate::{
    config::{self, PressureSetting},
    state::PressureState,
    table::BuildError,
};

/// Whether memory is short, and how many logins were held off for it.
#[derive(Debug)]
pub(crate) struct Pressure {
    guard: Guard,
    config: config::Pressure,
    shed: AtomicU64,
}

/// What a login asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// To begin: a user is sent to the provider.
    First,
    /// To be completed: the user came back.
    Last,
}

impl Pressure {
    /// Watches memory as configured, or as it is watched already.
    pub(crate) fn build(
        config: &PressureSetting,
        running: Option<&Arc<Self>>,
    ) -> Result<Option<Arc<Self>>, BuildError> {
        let PressureSetting::On(config) = config else { return Ok(None) };
        if let Some(running) = running.filter(|running| running.config == *config) {
            return Ok(Some(Arc::clone(running)));
        }
        let guard = Guard::watch(config.settings()).map_err(|why| BuildError::value("pressure", why))?;
        Ok(Some(Arc::new(Self { guard, config: config.clone(), shed: AtomicU64::new(0) })))
    }

    /// Whether a login may go on.
    ///
    /// # Errors
    /// [`Refused`], with when to come back.
    pub(crate) fn admit(&self, step: Step, call: &Call) -> Result<(), Refused> {
        let priority = match step {
            Step::First => Priority::Sheddable,
            Step::Last => Priority::Normal,
        };
        self.guard.admit(&Call { priority, ..*call }).inspect_err(|_| {
            self.shed.fetch_add(1, Relaxed);
        })
    }

    /// How short it is.
    pub(crate) fn state(&self) -> PressureState {
        let reading = self.guard.reading().unwrap_or_default();
        PressureState {
            level: self.guard.level().as_str(),
            short: match self.guard.level() {
                Level::None => 0,
                Level::High => 1,
                Level::Critical => 2,
            },
            used_bytes: reading.used,
            limit_bytes: reading.limit,
            stalled_percent: reading.stalled.map(|hundredths| f64::from(hundredths) / 100.0),
            shed: self.shed.load(Relaxed),
        }
    }
}
