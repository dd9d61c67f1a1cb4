//! From a configuration to a registry: its source, its identity, and what may be wrong with them.

use std::{
    io,
    path::{Path, PathBuf},
};

use tidegate::{
    Credentials, Secret,
    registry::{DnsSource, FileSource, InvalidSettings, Registry, Settings, Source, SourceError, SrvSource},
};
use tidegate_etcd::{EtcdRegistry, InvalidRegistryUrl, Layout, LeaseSettings, RegistryUrl, Tls};

use crate::config::{self, NoSecret, services_of_file};

/// Why there is no registry. No variant prints a password.
#[derive(Debug, thiserror::Error)]
pub enum NoRegistry {
    /// Its URL.
    #[error("registry: {0}")]
    Url(#[from] InvalidRegistryUrl),
    /// Its password.
    #[error("registry.password: {0}")]
    Password(#[from] NoSecret),
    /// A file of its TLS settings.
    #[error("registry.tls.{key}: {} can not be read: {why}", .path.display())]
    File {
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// How etcd is reached.
    #[error("registry: {0}")]
    Etcd(#[from] tidegate_etcd::Error),
    /// How names are resolved.
    #[error("registry: {0}")]
    Names(#[from] SourceError),
    /// How it is kept.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
}

/// What is in the files, and the variables, that a registry's configuration names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    password: Option<Secret>,
    roots: Option<String>,
    cert: Option<String>,
    key: Option<Secret>,
}

impl Files {
    pub(crate) fn read(config: &config::Registry) -> Result<Self, NoRegistry> {
        let password = config.password.as_ref();
        let password = password.map(|password| password.read(Path::new(""))).transpose()?;
        let Some(tls) = &config.tls else { return Ok(Self { password, ..Self::default() }) };
        let read = |key: &'static str, path: &Option<PathBuf>| {
            let Some(path) = path else { return Ok(None) };
            let wrong = |why| NoRegistry::File { key, path: path.clone(), why };
            std::fs::read_to_string(path).map(Some).map_err(wrong)
        };
        Ok(Self {
            password,
            roots: read("roots", &tls.roots)?,
            cert: read("cert", &tls.cert)?,
            key: read("key", &tls.key)?.map(Secret::new),
        })
    }
}

/// Opens the registry that a configuration describes.
pub(super) fn open(
    config: &config::Registry,
    files: &Files,
) -> Result<(Registry, Option<EtcdRegistry>), NoRegistry> {
    let settings = config.settings();
    let url: RegistryUrl = config.url.parse()?;
    let guard = match &url {
        RegistryUrl::Etcd { .. } => {
            let etcd = etcd(config, files, LeaseSettings::default())?;
            return Ok((guard(etcd.clone(), settings)?, Some(etcd)));
        }
        // What the library reads by itself may be larger.
        RegistryUrl::File(path) if path.extension().is_some_and(|extension| extension == "json") => {
            guard(FileSource::new(path), settings)?
        }
        RegistryUrl::File(path) => guard(FileSource::parsed_by(path, services_of_file), settings)?,
        RegistryUrl::Dns(server) => guard(DnsSource::new(server.host.as_str(), server.port), settings)?,
        RegistryUrl::Srv { name, servers } if servers.is_empty() => {
            guard(SrvSource::new(name.as_str())?, settings)?
        }
        RegistryUrl::Srv { name, servers } => {
            guard(SrvSource::at(name.as_str(), servers.iter().copied())?, settings)?
        }
    };
    Ok((guard, None))
}

fn guard(source: impl Source, settings: Settings) -> Result<Registry, InvalidSettings> {
    Registry::new(source, settings)
}

/// The etcd that a configuration describes, with registrations that live as `lease` says.
pub(crate) fn etcd(
    config: &config::Registry,
    files: &Files,
    lease: LeaseSettings,
) -> Result<EtcdRegistry, NoRegistry> {
    let url: RegistryUrl = config.url.parse()?;
    let mut settings = tidegate_etcd::Settings::of(&url)?.call_timeout(*config.timeout);
    if let (Some(user), Some(password)) = (&config.user, &files.password) {
        settings = settings.credentials(Credentials { user: user.clone(), password: password.clone() });
    }
    if let Some(clients) = config.clients {
        settings = settings.fleet(clients.get().into());
    }
    if let Some(tls) = &config.tls {
        let mut with = Tls::new();
        if let Some(roots) = &files.roots {
            with = with.authority(roots.as_str());
        }
        if let (Some(cert), Some(key)) = (&files.cert, &files.key) {
            with = with.identity(cert.as_str(), key.clone());
        }
        if let Some(name) = &tls.server_name {
            with = with.name(name.as_str());
        }
        settings = settings.tls(with);
    }
    let layout: Layout = config.layout.of_etcd();
    Ok(EtcdRegistry::new(settings.build()?, &url, layout, lease)?)
}
