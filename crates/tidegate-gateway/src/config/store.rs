//! What a configuration says of the store of counters, typed.

use std::{num::NonZeroU32, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    defaults::{default_store, default_store_deadline, default_store_in_flight},
    formats::StoreText,
    secret::SecretSetting,
    units::HumanDuration,
};

/// The URL of the store that is this process.
pub(super) const MEMORY: &str = "memory://";

/// The store of counters: its URL alone, or a section.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum StoreForm {
    /// Its URL.
    #[schemars(with = "StoreText")]
    Url(String),
    /// Its URL, and how it is used.
    Section(StoreSection),
}

/// A store of counters and how it is used.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreSection {
    /// `memory://`, `redis://[user:pass@]host:6379/0`, `redis-cluster://a:7000,b:7000` or
    /// `redis-sentinel://host:26379/NAME`; with `rediss` for `redis`, over TLS. Default: `memory://`, this process alone.
    #[serde(default = "default_store")]
    #[schemars(with = "StoreText")]
    pub url: String,
    /// Who logs in, where the password does not stand in the URL. Default: the server's default user.
    #[serde(default)]
    pub user: Option<String>,
    /// The password, by the place where it is. Default: that of the URL, or none.
    #[serde(default)]
    pub password: Option<SecretSetting>,
    /// What keys are hashed with, by the place where it is; 16 bytes or more, the same for all gateways that share
    /// limits. Default: the namespace.
    #[serde(default)]
    pub key_secret: Option<SecretSetting>,
    /// TLS settings for `rediss`. Default: the system's roots.
    #[serde(default)]
    pub tls: Option<StoreTls>,
    /// Longest wait for an answer of the store. Default: 50ms.
    #[serde(default = "default_store_deadline")]
    pub deadline: HumanDuration,
    /// Most questions to the store under way at once. Default: 1024.
    #[serde(default = "default_store_in_flight")]
    pub in_flight: NonZeroU32,
}

/// A store of counters and how it is used.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(from = "StoreForm")]
pub struct Store {
    /// Where it is.
    pub url: String,
    /// Who logs in.
    pub user: Option<String>,
    /// The password, by the place where it is.
    pub password: Option<SecretSetting>,
    /// What keys are hashed with, by the place where it is.
    pub key_secret: Option<SecretSetting>,
    /// TLS settings.
    pub tls: Option<StoreTls>,
    /// Longest wait for an answer.
    pub deadline: HumanDuration,
    /// Most questions under way at once.
    pub in_flight: NonZeroU32,
}

/// TLS towards the store.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreTls {
    /// Roots to trust instead of the system's, PEM.
    #[serde(default)]
    pub roots: Option<PathBuf>,
}

impl Default for Store {
    fn default() -> Self {
        StoreForm::Url(default_store()).into()
    }
}

impl From<StoreForm> for Store {
    fn from(form: StoreForm) -> Self {
        match form {
            StoreForm::Url(url) => Self {
                url,
                user: None,
                password: None,
                key_secret: None,
                tls: None,
                deadline: default_store_deadline(),
                in_flight: default_store_in_flight(),
            },
            StoreForm::Section(StoreSection {
                url,
                user,
                password,
                key_secret,
                tls,
                deadline,
                in_flight,
            }) => Self { url, user, password, key_secret, tls, deadline, in_flight },
        }
    }
}

impl Store {
    /// Whether counters live in this process alone.
    pub fn is_memory(&self) -> bool {
        self.url == MEMORY
    }
}
