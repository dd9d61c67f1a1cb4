//! A gateway put together: what it runs, and how a new configuration takes over.

mod tell;

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::{
    admin::AdminStats,
    config::{self, Config},
    exchange::Scribe,
    listener::{Limits, ListenerStats, LiveLimits, LiveTls},
    logging::Logging,
    registry::{NoRegistry, ServiceRegistry},
    restart::Fixed,
    stack::Stack,
    state::ConfigState,
    store::{NoStore, Store},
    table::{BuildError, Table},
    telemetry::Telemetry,
};

/// How long calls may still be decided by the table before a reload. Default: 1 s.
const LAST_DECISIONS: Duration = Duration::from_secs(1);

/// A gateway: the request path, and all that stands around it.
#[derive(Debug)]
pub struct Gateway {
    pub(crate) stack: Arc<Stack>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) limits: LiveLimits,
    pub(crate) tls: Option<Arc<LiveTls>>,
    logging: Logging,
    fixed: Fixed,
    running: Mutex<Running>,
    started: Instant,
    listening: OnceLock<Listening>,
    draining_since: OnceLock<Instant>,
}

/// The configuration that runs.
#[derive(Debug)]
struct Running {
    config: Config,
    store: Arc<Store>,
    registry: Option<ServiceRegistry>,
    state: ConfigState,
}

/// What is bound.
#[derive(Debug)]
struct Listening {
    http: SocketAddr,
    stats: Arc<ListenerStats>,
    admin: SocketAddr,
    admin_stats: Arc<AdminStats>,
}

/// Why a configuration could not be taken over, although it is valid to read.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A guard or an upstream could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The certificate can not be served.
    #[error(transparent)]
    Tls(#[from] crate::listener::TlsError),
    /// There is no such store.
    #[error(transparent)]
    Store(#[from] NoStore),
    /// There is no such registry.
    #[error(transparent)]
    Registry(#[from] NoRegistry),
    /// The log's filter is none.
    #[error(transparent)]
    Logging(#[from] crate::logging::LoggingError),
}

impl Gateway {
    /// Puts a gateway together whose counters live in `store`. It takes no calls yet.
    ///
    /// # Errors
    /// When an upstream's or the listener's files are not what they should be.
    pub fn new(
        config: Config,
        source: String,
        store: Store,
        telemetry: Arc<Telemetry>,
        scribe: Scribe,
        logging: Logging,
    ) -> Result<Self, ReloadError> {
        let store = Arc::new(store);
        let registry = config.registry.as_ref().map(ServiceRegistry::open).transpose()?;
        let table = Table::build(&config, None, &store, registry.as_ref(), &telemetry)?.commit();
        let tls = config.listen.tls.as_ref().map(LiveTls::load).transpose()?.map(Arc::new);
        let stack = Stack {
            table: ArcSwap::from_pointee(table),
            scribe: Arc::new(scribe),
            tunnels: TaskTracker::new(),
        };
        let state = ConfigState {
            source,
            hash: hash_of(&config),
            loaded_at_seconds: unix_seconds(),
            ..ConfigState::default()
        };
        Ok(Self {
            stack: Arc::new(stack),
            telemetry,
            limits: Limits::from(&config.bounds).live(),
            tls,
            logging,
            fixed: Fixed::of(&config),
            running: Mutex::new(Running { config, store, registry, state }),
            started: Instant::now(),
            listening: OnceLock::new(),
            draining_since: OnceLock::new(),
        })
    }

    /// Notes what is bound, and takes calls from now on.
    pub(crate) fn serving(
        &self,
        http: SocketAddr,
        stats: Arc<ListenerStats>,
        admin: SocketAddr,
        admin_stats: Arc<AdminStats>,
    ) {
        self.listening.get_or_init(|| Listening { http, stats, admin, admin_stats });
        self.warm();
    }

    /// Has tokens granted before the first call waits for them.
    fn warm(&self) {
        self.stack.table.load().tokens.values().for_each(|token| token.warm());
    }

    /// Is not ready any more.
    pub(crate) fn draining(&self) {
        self.draining_since.get_or_init(Instant::now);
    }

    /// Takes over a new configuration. Counters, permits and connections of what it still describes are kept; calls
    /// under way end as they began. Returns the settings that it cannot change: they need a restart.
    ///
    /// # Errors
    /// When it can not be built, or its store is unfit. The running one stays as it was then.
    ///
    /// # Cancel safety
    /// Dropping it while another store is opened changes nothing.
    pub async fn reload(&self, config: Config) -> Result<Vec<&'static str>, ReloadError> {
        let (store, registry) = {
            let running = self.running.lock();
            (Arc::clone(&running.store), running.registry.clone())
        };
        let store = if store.is_of(&config.store, &config.namespace) {
            store
        } else {
            Arc::new(Store::open(&config.store, &config.namespace).await?)
        };
        let registry = match (&config.registry, registry) {
            (None, _) => None,
            (Some(wanted), Some(running)) if running.is_of(wanted) => Some(running),
            (Some(wanted), _) => Some(ServiceRegistry::open(wanted)?),
        };
        let mut running = self.running.lock();
        let table = self.stack.table.load();
        let built = Table::build(&config, Some(&table), &store, registry.as_ref(), &self.telemetry)?;
        match (&self.tls, &config.listen.tls) {
            (Some(tls), Some(files)) => tls.reload(files)?,
            (None, None) => {}
            // It needs a restart, as is said in the end.
            (Some(_), None) | (None, Some(_)) => {}
        }
        self.logging.configure(&config.log)?;
        let before = self.stack.table.swap(Arc::new(built.commit()));
        self.retire(&before);
        self.warm();
        self.limits.store(Arc::new(Limits::from(&config.bounds)));
        self.stack.scribe.log.configure(&config.log);
        running.state.reloads += 1;
        running.state.last_reload_error = None;
        running.state.needs_restart = self.fixed.differing(&config);
        running.state.hash = hash_of(&config);
        running.state.loaded_at_seconds = unix_seconds();
        running.config = config;
        running.store = store;
        running.registry = registry;
        Ok(running.state.needs_restart.clone())
    }

    /// Hands back the credit of limits that the running table no longer has, once calls that began before are decided.
    fn retire(&self, before: &Table) {
        let now = self.stack.table.load();
        let kept: Vec<_> = now.limits.values().filter_map(|limit| limit.guard.shared()).collect();
        let gone = before.limits.values().filter_map(|limit| limit.guard.shared());
        let gone = gone.filter(|throttle| !kept.iter().any(|kept| kept.is(throttle)));
        for throttle in gone {
            let throttle = throttle.clone();
            tokio::spawn(async move {
                tokio::time::sleep(LAST_DECISIONS).await;
                throttle.close().await;
            });
        }
    }

    /// Hands all credit back, so that other gateways can use it: at most for `within`.
    pub(crate) async fn hand_back(&self, within: Duration) {
        let table = self.stack.table.load_full();
        let throttles = table.limits.values().filter_map(|limit| limit.guard.shared());
        let all = futures_util::future::join_all(throttles.map(|throttle| throttle.close()));
        if tokio::time::timeout(within, all).await.is_err() {
            tracing::warn!("the store did not take all credit back: it is lost until its windows are over");
        }
    }

    /// Ends the refreshes of sessions well: what was granted is stored, at most for `within`.
    pub(crate) async fn end_refreshes(&self, within: Duration) {
        let table = self.stack.table.load_full();
        let out: usize = table.sessions.values().map(|session| session.refreshing()).sum();
        if out > 0 {
            tracing::info!(out, ?within, "refreshes of sessions are finished first");
        }
        let all = table.sessions.values().map(|session| session.shutdown(within));
        let left: usize = futures_util::future::join_all(all).await.into_iter().sum();
        if left > 0 {
            tracing::warn!(left, "refreshes were still under way: their sessions may have to log in again");
        }
    }

    /// Notes that a reload was refused, and why.
    pub fn reload_refused(&self, why: String) {
        let mut running = self.running.lock();
        running.state.failed_reloads += 1;
        running.state.last_reload_error = Some(why);
    }

    /// Gives the permits of fleets back, so that others need not wait for their leases to run out. It ends when all are
    /// back; a store that does not answer may take until then.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: what was begun goes on for as long as the runtime does.
    pub(crate) async fn leave_fleets(&self) {
        let table = self.stack.table.load_full();
        let fleets = table.services.values().filter_map(|service| service.pools.as_ref()?.fleet().cloned());
        let leaving: JoinSet<()> = fleets.map(|fleet| async move { fleet.close().await }).collect();
        leaving.join_all().await;
    }

    /// How long it has been draining.
    pub(crate) fn draining_for(&self) -> Duration {
        self.draining_since.get().map(Instant::elapsed).unwrap_or_default()
    }

    /// How long a drain may take, by the configuration that runs.
    pub(crate) fn drain_time(&self) -> Duration {
        *self.running.lock().config.drain
    }
}

/// Tells configurations apart, for people who compare instances.
fn hash_of(config: &Config) -> String {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(config::redacted_yaml(config).as_bytes());
    format!("{:016x}", hasher.finish())
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
