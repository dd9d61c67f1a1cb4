//! What a configuration says of the registry of services, typed.

use std::{num::NonZeroU32, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use tidegate::registry::Preservation;

use super::{
    defaults::{
        default_grace, default_max_stale, default_minimum_retry_interval, default_registry_timeout,
        default_registry_ttl,
    },
    formats::RegistryText,
    model::ClientTls,
    secret::SecretSetting,
    units::HumanDuration,
};

/// The registry of services: its URL alone, or a section.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RegistryForm {
    /// Its URL.
    #[schemars(with = "RegistryText")]
    Url(String),
    /// Its URL, and how it is kept.
    Section(Box<Registry>),
}

/// A registry of services, and how what it tells is kept.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// `etcd://[user:pass@]a:2379,b:2379/prefix/`, or `etcds` over TLS; `file:PATH`, `dns:NAME:PORT`, `srv:NAME` or
    /// `srv://SERVER/NAME`, where `{service}` in a name stands for the service.
    #[schemars(with = "RegistryText")]
    pub url: String,
    /// How registrations stand in etcd. Default: `tidegate`.
    #[serde(default)]
    pub layout: RegistryLayout,
    /// Who logs in, where the password does not stand in the URL. Default: that of the URL, or none.
    #[serde(default)]
    pub user: Option<String>,
    /// The password, by the place where it is. Default: that of the URL, or none.
    #[serde(default)]
    pub password: Option<SecretSetting>,
    /// TLS settings for `etcds`. Default: the system's roots, no client certificate.
    #[serde(default)]
    pub tls: Option<ClientTls>,
    /// How many clients of etcd the fleet has. When etcd forgets their logins, they log in again spread over the time
    /// that takes. Default: 1.
    #[serde(default)]
    pub clients: Option<NonZeroU32>,
    /// How long what was read counts as fresh where the registry tells no changes by itself. Default: 60s.
    #[serde(default = "default_registry_ttl")]
    pub ttl: HumanDuration,
    /// How long endpoints are kept that vanish in a way that looks like the registry's own trouble. Default: 30s.
    #[serde(default = "default_grace")]
    pub grace: HumanDuration,
    /// How much longer than `ttl` what is known is served while the registry is away. Default: 24h.
    #[serde(default = "default_max_stale")]
    pub max_stale: HumanDuration,
    /// The shortest time between a failed question and the next one of the same service. Default: 5s.
    #[serde(default = "default_minimum_retry_interval")]
    pub minimum_retry_interval: HumanDuration,
    /// The longest a question to the registry may take. Default: 5s.
    #[serde(default = "default_registry_timeout")]
    pub timeout: HumanDuration,
    /// The zone that this gateway runs in. Endpoints of the same zone are preferred until they are twice as busy as
    /// others, or take no calls. Default: none, and zones do not matter.
    #[serde(default)]
    pub zone: Option<String>,
    /// The directory where what is known is kept over a restart. Default: none.
    #[serde(default)]
    pub snapshot: Option<PathBuf>,
}

/// How registrations stand in etcd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RegistryLayout {
    /// Tidegate's own, below `/tidegate/services/` unless the URL says otherwise.
    #[default]
    Tidegate,
    /// That of go-micro, below `/micro/registry/` unless the URL says otherwise.
    GoMicro,
}

impl Registry {
    /// Reads either form.
    pub(super) fn of_either_form<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Self>, D::Error> {
        Ok(Option::<RegistryForm>::deserialize(from)?.map(|form| match form {
            RegistryForm::Url(url) => Self::at(url),
            RegistryForm::Section(section) => *section,
        }))
    }

    /// A registry with all else by default.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            layout: RegistryLayout::default(),
            user: None,
            password: None,
            tls: None,
            clients: None,
            ttl: default_registry_ttl(),
            grace: default_grace(),
            max_stale: default_max_stale(),
            minimum_retry_interval: default_minimum_retry_interval(),
            timeout: default_registry_timeout(),
            zone: None,
            snapshot: None,
        }
    }
}

impl Registry {
    /// How the guard over the registry is kept.
    pub(crate) fn settings(&self) -> tidegate::registry::Settings {
        let defaults = tidegate::registry::Settings::default();
        tidegate::registry::Settings {
            ttl: *self.ttl,
            minimum_retry_interval: *self.minimum_retry_interval,
            maximum_retry_interval: defaults.maximum_retry_interval.max(*self.minimum_retry_interval * 2),
            max_stale: *self.max_stale,
            preservation: Preservation {
                grace: *self.grace,
                schemes: Some(&["http", "https"]),
                ..defaults.preservation
            },
            timeout: *self.timeout,
            snapshot: self.snapshot.clone(),
            ..defaults
        }
    }
}

impl RegistryLayout {
    /// The layout as the room of etcd knows it.
    pub(crate) const fn of_etcd(self) -> tidegate_etcd::Layout {
        match self {
            Self::Tidegate => tidegate_etcd::Layout::Tidegate,
            Self::GoMicro => tidegate_etcd::Layout::GoMicro,
        }
    }
}
