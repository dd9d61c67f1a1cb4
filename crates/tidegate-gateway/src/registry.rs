//! The registry of services: opened as the configuration says, and followed for each upstream that is looked up in it.

mod open;
mod resolver;
mod standing;
mod tally;

use std::sync::Arc;

use tidegate::registry::{Registry, Settings};
use tidegate_etcd::EtcdRegistry;

pub use self::open::NoRegistry;
use self::open::open;
pub use self::standing::{NoEndpoint, Why};
pub(crate) use self::{
    open::{Files, etcd},
    resolver::Resolver,
};
use crate::{config, state::RegistryState};

/// The registry of a configuration. Clones share it; with the last one its tasks end.
#[derive(Clone)]
pub struct ServiceRegistry(Arc<Inner>);

struct Inner {
    config: config::Registry,
    /// What was in the files that the configuration names: another content is another registry.
    files: Files,
    guard: Registry,
    etcd: Option<EtcdRegistry>,
    settings: Settings,
}

impl ServiceRegistry {
    /// Opens a registry, and reads its snapshots. One that is away is no error: what is known is served.
    ///
    /// # Errors
    /// [`NoRegistry`], when an operator has to mend something.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(config: &config::Registry) -> Result<Self, NoRegistry> {
        let files = Files::read(config)?;
        let (guard, etcd) = open(config, &files)?;
        for problem in guard.problems() {
            tracing::warn!("{problem}");
        }
        Ok(Self(Arc::new(Inner { config: config.clone(), files, guard, etcd, settings: config.settings() })))
    }

    #[cfg(test)]
    fn around(config: &config::Registry, guard: Registry) -> Self {
        let settings = config.settings();
        Self(Arc::new(Inner { config: config.clone(), files: Files::default(), guard, etcd: None, settings }))
    }

    /// Whether a configuration means this very registry.
    pub fn is_of(&self, config: &config::Registry) -> bool {
        self.0.config == *config && Files::read(config).is_ok_and(|files| files == self.0.files)
    }

    /// Whether both are one.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn guard(&self) -> &Registry {
        &self.0.guard
    }

    /// The zone that this gateway runs in.
    pub(crate) fn zone(&self) -> Option<&str> {
        self.0.config.zone.as_deref()
    }

    /// How it is kept.
    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// What it is doing now, but for the services, which those who follow them know.
    pub(crate) fn state(&self) -> RegistryState {
        RegistryState::of(&self.0.guard, self.0.etcd.as_ref())
    }
}

impl std::fmt::Debug for ServiceRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ServiceRegistry").field(&self.0.guard.describe()).finish()
    }
}
