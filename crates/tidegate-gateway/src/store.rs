//! Where counters live: this process, or a store that a fleet shares, connected and watched.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use tidegate::{
    Credentials, Secret,
    fleet::{FleetBuilder, FleetThrottle, LocalLedger, Rule},
    redacted_url,
    throttle::{KeyHasher, Seed},
    token::MemorySessions,
};
use tidegate_redis::{
    Client, Health, InvalidNamespace, InvalidSettings, InvalidStoreUrl, Namespace, RedisLedger,
    RedisSessions, Settings, StoreError, StoreUrl,
};

use crate::{
    config::{self, NoSecret, SecretSetting},
    in_flight::FleetPermits,
    oidc::session::Kept,
    state::{StorePhase, StoreServerState, StoreState},
};

/// Longest wait for a store at the start: after it, the store counts as away. Default: 3 s.
const FIRST_WAIT: Duration = Duration::from_secs(3);
/// The shortest secret that keys are hashed with, in bytes: nobody tries them all.
const SHORTEST_KEY_SECRET: usize = 16;

/// Where counters live.
#[derive(Debug)]
pub struct Store {
    kind: Kind,
    config: config::Store,
    namespace: String,
    secrets: Secrets,
    /// Browser sessions in it, once they are asked for.
    sessions: OnceLock<Kept>,
}

enum Kind {
    Memory(LocalLedger),
    Redis { ledger: RedisLedger, seed: Seed },
}

/// Secrets as they were read: with another one it is another store.
#[derive(Debug, Default, PartialEq)]
struct Secrets {
    password: Option<Secret>,
    /// What keys are hashed with.
    key: Option<Secret>,
}

/// Why there is no store. No variant prints a password.
#[derive(Debug, thiserror::Error)]
pub enum NoStore {
    /// Its URL.
    #[error("store: {0}")]
    Url(#[from] InvalidStoreUrl),
    /// The prefix of its keys.
    #[error("namespace: {0}")]
    Namespace(#[from] InvalidNamespace),
    /// Its password.
    #[error("store.password: {0}")]
    Password(NoSecret),
    /// What its keys are hashed with.
    #[error("store.key_secret: {0}")]
    KeySecret(NoSecret),
    /// What its keys are hashed with can be guessed.
    #[error(
        "store.key_secret: it has {bytes} bytes, and whoever tries them all can aim at counters of others; make one of \
         {SHORTEST_KEY_SECRET} or more, as by: openssl rand -base64 32"
    )]
    ShortKeySecret {
        /// So many it has.
        bytes: usize,
    },
    /// The roots to trust.
    #[error("store.tls.roots: {} can not be read: {why}", .path.display())]
    Roots {
        /// Their file.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// How it is used.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    /// It is there, and cannot hold counters or does not let us in.
    #[error("{0}")]
    Unfit(StoreError),
}

impl Store {
    /// Connects to the store of a configuration. One that is merely away is connected to later; what its limits do
    /// until then is their own policy.
    ///
    /// # Errors
    /// [`NoStore`], when an operator has to mend something.
    ///
    /// # Cancel safety
    /// Dropping it closes what was opened.
    pub async fn open(config: &config::Store, namespace: &str) -> Result<Self, NoStore> {
        let (kind, secrets) = if config.is_memory() {
            (Kind::Memory(LocalLedger::new()), Secrets::default())
        } else {
            let secrets = Secrets::read(config)?;
            (redis(config, namespace, &secrets).await?, secrets)
        };
        Ok(Self {
            kind,
            config: config.clone(),
            namespace: namespace.to_owned(),
            secrets,
            sessions: OnceLock::new(),
        })
    }

    /// Whether a configuration means this very store.
    pub fn is_of(&self, config: &config::Store, namespace: &str) -> bool {
        let same_secrets = || Secrets::read(config).is_ok_and(|secrets| secrets == self.secrets);
        self.config == *config && (config.is_memory() || self.namespace == namespace && same_secrets())
    }

    /// Whether processes share it.
    pub(crate) const fn is_shared(&self) -> bool {
        matches!(self.kind, Kind::Redis { .. })
    }

    /// Begins a key: one that means the same in every process where they share counters.
    pub(crate) fn hasher(&self) -> KeyHasher {
        match &self.kind {
            Kind::Memory(_) => KeyHasher::new(),
            Kind::Redis { seed, .. } => KeyHasher::seeded(*seed),
        }
    }

    /// Begins the throttle of a limit whose accounts are kept here.
    pub(crate) fn throttle(&self, limit: &str, rule: Rule) -> FleetBuilder {
        let builder = match &self.kind {
            Kind::Memory(ledger) => FleetThrottle::builder(limit, rule, ledger.clone()),
            Kind::Redis { ledger, .. } => FleetThrottle::builder(limit, rule, ledger.clone()),
        };
        builder.patience(*self.config.deadline).max_asks(self.config.in_flight)
    }

    /// `limit` permits of an upstream, for calls in flight from all gateways that share this store.
    pub(crate) fn permits(&self, upstream: &str, limit: u32) -> FleetPermits {
        match &self.kind {
            Kind::Memory(_) => FleetPermits::local(limit),
            Kind::Redis { ledger, .. } => FleetPermits::shared(ledger, upstream, limit),
        }
    }

    /// The browser sessions that are kept here.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn sessions(&self) -> Kept {
        let sessions = self.sessions.get_or_init(|| match &self.kind {
            Kind::Memory(_) => Kept::Memory(MemorySessions::default()),
            Kind::Redis { ledger, .. } => {
                Kept::Redis(RedisSessions::new(ledger.client().clone(), ledger.namespace().clone()))
            }
        });
        sessions.clone()
    }

    /// What it is doing now.
    pub fn state(&self) -> StoreState {
        let state = StoreState {
            url: redacted_url(&self.config.url).into_owned(),
            namespace: self.namespace.clone(),
            ..StoreState::default()
        };
        match &self.kind {
            Kind::Memory(_) => state,
            Kind::Redis { ledger, .. } => {
                let client = ledger.client();
                let health = client.health();
                StoreState {
                    state: phase(&health),
                    in_flight: client.in_flight() as u64,
                    max_in_flight: client.settings().in_flight as u64,
                    servers: health.iter().map(server_state).collect(),
                    ..state
                }
            }
        }
    }
}

async fn redis(config: &config::Store, namespace: &str, secrets: &Secrets) -> Result<Kind, NoStore> {
    let mut url: StoreUrl = config.url.parse()?;
    if let Some(password) = &secrets.password {
        let user = config.user.clone().unwrap_or_default();
        url.credentials = Some(Credentials { user, password: password.clone() });
    }
    let roots = config.tls.as_ref().and_then(|tls| tls.roots.as_ref());
    let read = |path: &PathBuf| std::fs::read(path).map_err(|why| NoStore::Roots { path: path.clone(), why });
    let settings = Settings {
        deadline: *config.deadline,
        in_flight: config.in_flight.get() as usize,
        authorities: roots.map(read).transpose()?,
        ..Settings::default()
    };
    let keys = Namespace::new(namespace)?;
    let client = Client::start(&url, settings)?;
    match tokio::time::timeout(FIRST_WAIT, client.ready()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) if error.fault().is_some() => return Err(NoStore::Unfit(error)),
        // Why, the client says when it finds out.
        Ok(Err(_)) | Err(_) => {
            tracing::warn!(store = %url, "the store is away: until it is there, limits do what on_store_failure says");
        }
    }
    // Never another one: counters are found by it.
    let seed = Seed::of(secrets.key.as_ref().map_or(namespace, Secret::expose).as_bytes());
    Ok(Kind::Redis { ledger: RedisLedger::new(client, keys), seed })
}

impl Secrets {
    fn read(config: &config::Store) -> Result<Self, NoStore> {
        let read = |setting: &Option<SecretSetting>| {
            setting.as_ref().map(|setting| setting.read(Path::new(""))).transpose()
        };
        let password = read(&config.password).map_err(NoStore::Password)?;
        let key = read(&config.key_secret).map_err(NoStore::KeySecret)?;
        key.as_ref().map(long_enough).transpose()?;
        Ok(Self { password, key })
    }
}

/// Checks that nobody can guess what keys are hashed with.
///
/// # Errors
/// [`NoStore::ShortKeySecret`].
pub(crate) fn long_enough(key_secret: &Secret) -> Result<(), NoStore> {
    match key_secret.expose().len() {
        bytes if bytes < SHORTEST_KEY_SECRET => Err(NoStore::ShortKeySecret { bytes }),
        _ => Ok(()),
    }
}

fn phase(health: &[Health]) -> StorePhase {
    let any = |is: fn(&Health) -> bool| health.iter().any(is);
    if any(|health| matches!(health, Health::Down(_))) {
        let some = any(|health| matches!(health, Health::Up { .. }));
        if some { StorePhase::PartlyAway } else { StorePhase::Away }
    } else if any(|health| matches!(health, Health::Connecting)) {
        StorePhase::Connecting
    } else {
        StorePhase::Up
    }
}

fn server_state(health: &Health) -> StoreServerState {
    match health {
        Health::Connecting => {
            StoreServerState { state: StorePhase::Connecting, ..StoreServerState::default() }
        }
        Health::Up { server, run_id } => StoreServerState {
            server: Some(server.to_string()),
            state: StorePhase::Up,
            run_id: Some(run_id.to_string()),
            error: None,
        },
        Health::Down(error) => StoreServerState {
            server: error.server().map(ToString::to_string),
            state: StorePhase::Away,
            error: Some(error.to_string()),
            ..StoreServerState::default()
        },
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory(_) => "Memory",
            Self::Redis { .. } => "Redis",
        })
    }
}
