//! What a reload cannot change: it takes effect with the next process.

use std::{net::SocketAddr, num::NonZeroUsize};

use crate::config::{Config, LogFormat, Tracing};

/// The settings that a process keeps to its end.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    http: SocketAddr,
    admin: SocketAddr,
    has_tls: bool,
    workers: Option<NonZeroUsize>,
    tracing: Tracing,
    log_format: LogFormat,
}

impl Fixed {
    /// Those of a configuration.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            http: config.listen.http,
            admin: config.listen.admin,
            has_tls: config.listen.tls.is_some(),
            workers: config.workers,
            tracing: config.tracing.clone(),
            log_format: config.log.format,
        }
    }

    /// The settings of a newer configuration that differ, by their names in the file.
    pub(crate) fn differing(&self, newer: &Config) -> Vec<&'static str> {
        let newer = Self::of(newer);
        [
            ("listen.http", self.http != newer.http),
            ("listen.admin", self.admin != newer.admin),
            ("listen.tls", self.has_tls != newer.has_tls),
            ("workers", self.workers != newer.workers),
            ("tracing", self.tracing != newer.tracing),
            ("log.format", self.log_format != newer.log_format),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::embedded;

    #[test]
    fn what_needs_a_restart_is_told_against_what_the_process_began_with() {
        let began = embedded(([127, 0, 0, 1], 1).into());
        let fixed = Fixed::of(&began);
        assert!(fixed.differing(&began).is_empty());
        let mut newer = began.clone();
        newer.drain = crate::config::HumanDuration(std::time::Duration::from_secs(1));
        assert!(fixed.differing(&newer).is_empty(), "a reload changes that");
        newer.listen.http = ([127, 0, 0, 1], 2).into();
        newer.workers = NonZeroUsize::new(7);
        newer.log.format = LogFormat::Json;
        assert_eq!(fixed.differing(&newer), ["listen.http", "workers", "log.format"]);
        assert!(fixed.differing(&began).is_empty(), "and back again");
    }
}
