//! The life of the process: start, serve, reload, hand over, drain.

use std::{
    fmt::Write, io, net::SocketAddr, num::NonZeroUsize, path::PathBuf, process::ExitCode, sync::Arc, thread,
    time::Duration,
};

use tidegate::clock;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::{
    access_log::AccessLog,
    admin::{Admin, AdminSource},
    cli,
    config::{self, Config, Loaded, Problems, Source, Style, Watch},
    example::{self, ExampleUpstream},
    exchange::Scribe,
    flow,
    gateway::{Gateway, ReloadError},
    handover::{Inherited, Notify, Role, Upgrade},
    listener::{Drained, Listener, Settings},
    logging::Logging,
    memory, open_files,
    signals::{EXIT_ABORTED, Signals},
    store::Store,
    telemetry::Telemetry,
    trace::Tracer,
    workers::Workers,
};

/// How long workers, logs and spans may take to end once everything is drained.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long refreshes that are out may take at least, whatever ends the process: a lost answer logs a user out.
const LAST_REFRESHES: Duration = Duration::from_secs(10);

/// Why the gateway did not start.
#[derive(Debug)]
enum Failed {
    /// The configuration is wrong: exit code 2.
    Config(Problems),
    /// What it was told cannot be: by flags, by the environment, or by a configuration whose store is unfit: exit code 2.
    Asked(Box<dyn std::error::Error>),
    /// The machine does not allow it: exit code 1.
    Start(Box<dyn std::error::Error>),
}

impl Failed {
    fn asked(error: impl std::error::Error + 'static) -> Self {
        Self::Asked(Box::new(error))
    }
}

impl<E: std::error::Error + 'static> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Start(Box::new(error))
    }
}

/// Runs a gateway to its end.
pub fn serve(flags: &cli::Serve) -> ExitCode {
    // First of all, while there is one thread.
    let inherited = match Inherited::take() {
        Ok(inherited) => inherited,
        Err(error) => {
            eprintln!("tidegate: {error}");
            return ExitCode::FAILURE;
        }
    };
    let control = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tidegate: cannot start a runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match control.block_on(run(flags, inherited)) {
        Ok(code) => code,
        Err(Failed::Config(problems)) => {
            eprint!("{}", problems.render(Style::of_terminal()));
            ExitCode::from(2)
        }
        Err(Failed::Asked(error)) => {
            eprintln!("tidegate: {error}");
            ExitCode::from(2)
        }
        Err(Failed::Start(error)) => {
            eprintln!("tidegate: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: &cli::Serve, mut inherited: Inherited) -> Result<ExitCode, Failed> {
    // Before anything counts on it: the anchor of the clock.
    clock::now();
    let origin = Origin::of(flags).await?;
    let loaded = origin.load().map_err(Failed::Config)?;
    eprint!("{}", loaded.warnings.render(Style::of_terminal()));
    let logging = Logging::init(&loaded.config.log).map_err(Failed::asked)?;
    if let Err(error) = open_files::raise_open_files() {
        tracing::warn!(%error, "cannot raise the bound on open files");
    }
    let signals = Signals::listen()?;
    let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let workers = Workers::start(loaded.config.workers.unwrap_or(cores))?;
    workers.spawn_on_each(|_| flow::sweeper());
    tokio::spawn(memory::give_back());
    let scribe = Scribe {
        log: AccessLog::stdout(&loaded.config.log, workers.count())?,
        tracer: Tracer::start(&loaded.config.tracing, &Handle::current())?,
    };
    let telemetry = Arc::new(Telemetry::new(workers.count()));
    let config = loaded.config.clone();
    let store = Store::open(&config.store, &config.namespace).await.map_err(Failed::asked)?;
    let gateway = Gateway::new(config, origin.name(), store, Arc::clone(&telemetry), scribe, logging);
    let gateway = Arc::new(gateway.map_err(|error| match error {
        ReloadError::Registry(error) => Failed::asked(error),
        error => Failed::from(error),
    })?);

    let (admin, listener) = listen(&loaded.config, &mut inherited).await?;
    let upgrade = Upgrade::new(vec![(Role::Http, listener.share()?), (Role::Admin, admin.share()?)]);
    let admin_address = admin.address();
    gateway.serving(listener.addr(), listener.stats(), admin_address, admin.stats());
    let pages_end = CancellationToken::new();
    let pages = Arc::clone(&gateway) as Arc<dyn AdminSource>;
    let pages = tokio::spawn(admin.serve(pages, telemetry, pages_end.clone().cancelled_owned()));
    // Port 0 asks for any: what is shown is what was got.
    let mut bound = loaded.config.clone();
    (bound.listen.http, bound.listen.admin) = (listener.addr(), admin_address);
    eprint!("{}", origin.banner(&bound));

    let ends =
        Ends { drain: CancellationToken::new(), handed_over: CancellationToken::new(), pages: pages_end };
    let notify = Notify::from_env();
    let settings = Settings {
        limits: Arc::clone(&gateway.limits),
        tls: gateway.tls.clone(),
        drain: ends.drain.clone(),
        handed_over: ends.handed_over.clone(),
        drain_time: gateway.drain_time(),
    };
    if inherited.is_successor() {
        // The process before this one tells systemd: it is the service until then.
        tracing::info!(pid = std::process::id(), "serving in the place of the process before");
    } else {
        notify.ready();
    }
    inherited.serving();
    let code = tokio::select! {
        drained = listener.run(Arc::clone(&gateway.stack), &workers, settings) => {
            end_tunnels(&gateway, drained?).await;
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        () = signals.abort.cancelled() => {
            tracing::warn!("aborted: calls in flight are lost");
            ExitCode::from(EXIT_ABORTED)
        }
        () = steer(&gateway, &origin, &loaded, signals.clone(), &ends, upgrade, &notify) => ExitCode::FAILURE,
    };
    // Refreshes run on the workers, and nobody may wait for them: what a provider has granted is stored all the same.
    let left = gateway.drain_time().saturating_sub(gateway.draining_for());
    let aborted = async {
        signals.abort.cancelled().await;
        tokio::time::sleep(LAST_REFRESHES).await;
    };
    tokio::select! {
        () = gateway.end_refreshes(left.max(LAST_REFRESHES)) => {}
        () = aborted => {}
    }
    workers.stop(LAST_WORDS).await;
    let _ = tokio::time::timeout(LAST_WORDS, gateway.leave_fleets()).await;
    gateway.hand_back(LAST_WORDS).await;
    ends.pages.cancel();
    let _ = tokio::time::timeout(LAST_WORDS, pages).await;
    gateway.stack.scribe.tracer.flush(LAST_WORDS).await;
    gateway.stack.scribe.log.flush(LAST_WORDS);
    Ok(code)
}

/// The admin address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for the admin pages: {error}; free the address, or set listen.admin (--admin) to another"
)]
struct NoAdmin {
    address: SocketAddr,
    error: io::Error,
}

/// Takes the sockets that this process was given, and binds what it was not.
async fn listen(config: &Config, inherited: &mut Inherited) -> Result<(Admin, Listener), Failed> {
    let (http, admin) = (config.listen.http, config.listen.admin);
    let pages = match inherited.claim(Role::Admin, admin) {
        Some(socket) => Admin::adopt(socket),
        None => Admin::bind(admin).await,
    };
    let pages = pages.map_err(|error| NoAdmin { address: admin, error })?;
    let listener = match inherited.claim(Role::Http, http) {
        Some(socket) => Listener::adopt(socket)?,
        None => Listener::bind(http)?,
    };
    inherited.settle(http, admin).map_err(Failed::asked)?;
    Ok((pages, listener))
}

/// The ends of what listens.
struct Ends {
    /// The process ends: calls in flight may finish.
    drain: CancellationToken,
    /// Another process serves: as above, and idle connections may make one more call.
    handed_over: CancellationToken,
    /// No more admin pages.
    pages: CancellationToken,
}

/// Does what signals and files ask for, for as long as the listener runs.
async fn steer(
    gateway: &Gateway,
    origin: &Origin,
    loaded: &Loaded,
    mut signals: Signals,
    ends: &Ends,
    mut upgrade: Upgrade,
    notify: &Notify,
) {
    let mut watch = Watch::new(loaded);
    loop {
        let serves = !ends.handed_over.is_cancelled();
        tokio::select! {
            () = signals.drain.cancelled(), if !ends.drain.is_cancelled() => {
                let within = gateway.drain_time();
                tracing::info!(?within, "draining: calls in flight may finish; a second signal aborts");
                if serves {
                    notify.stopping();
                }
                upgrade.end();
                gateway.draining();
                ends.drain.cancel();
            }
            Ok(()) = signals.upgrade.changed() => if let Err(error) = upgrade.begin() {
                tracing::error!(%error, "no upgrade");
            },
            upgraded = upgrade.ended() => {
                let pid = match upgraded {
                    Ok(pid) => pid,
                    Err(error) => {
                        tracing::error!(%error, "the upgrade failed: this process goes on serving");
                        continue;
                    }
                };
                let within = gateway.drain_time();
                tracing::info!(pid, ?within, "another process serves now: calls in flight here may finish");
                notify.succeeded_by(pid);
                gateway.draining();
                ends.handed_over.cancel();
                // Else every other question about the service would be answered by the process that leaves.
                ends.pages.cancel();
            }
            Ok(()) = signals.reload.changed(), if serves => {
                notify.reloading();
                reload_unless(drained(&signals, ends), gateway, origin, &mut watch).await;
                notify.ready();
            }
            () = watch.changed(), if serves => {
                reload_unless(drained(&signals, ends), gateway, origin, &mut watch).await;
            }
        }
    }
}

/// Waits until the process is told to drain, unless it does already.
async fn drained(signals: &Signals, ends: &Ends) {
    if ends.drain.is_cancelled() {
        std::future::pending::<()>().await;
    }
    signals.drain.cancelled().await;
}

/// Reloads, and gives that up when the process is told to drain meanwhile: a new store may let it wait for seconds. Until that
/// is open nothing has changed.
async fn reload_unless(
    drained: impl Future<Output = ()>,
    gateway: &Gateway,
    origin: &Origin,
    watch: &mut Watch,
) {
    tokio::select! {
        () = reload(gateway, origin, watch) => {}
        () = drained => tracing::warn!("the reload is given up: the process ends"),
    }
}

async fn reload(gateway: &Gateway, origin: &Origin, watch: &mut Watch) {
    let glance = watch.glance();
    let result = match origin.load() {
        Ok(loaded) => {
            eprint!("{}", loaded.warnings.render(Style::of_terminal()));
            watch.follow(&loaded);
            gateway.reload(loaded.config).await.map_err(|error| error.to_string())
        }
        Err(problems) => {
            watch.refused(glance);
            Err(problems.render(Style::Plain).trim_end().to_owned())
        }
    };
    match result {
        Ok(needs_restart) if needs_restart.is_empty() => tracing::info!(from = origin.name(), "reloaded"),
        Ok(needs_restart) => tracing::warn!(
            from = origin.name(),
            needs_restart = needs_restart.join(", "),
            "reloaded, but for what needs a restart: SIGUSR2 does it without losing a call"
        ),
        Err(problems) => {
            tracing::error!("the new configuration is refused, the running one stays:\n{problems}");
            gateway.reload_refused(problems);
        }
    }
}

/// Tunnels (upgraded connections) know no requests to finish: they get what is left of the drain, then they are cut.
async fn end_tunnels(gateway: &Gateway, drained: Drained) {
    if let Drained::CutOff(connections) = drained {
        tracing::warn!(connections, "the drain time is over: connections were cut off");
    }
    let tunnels = &gateway.stack.tunnels;
    tunnels.close();
    let left = gateway.drain_time().saturating_sub(gateway.draining_for());
    if tokio::time::timeout(left, tunnels.wait()).await.is_err() {
        tracing::warn!(tunnels = tunnels.len(), "the drain time is over: tunnels were cut off");
    }
}

/// Where the configuration comes from, now and at each reload.
enum Origin {
    File(PathBuf),
    /// Made up from flags, or the embedded default: nothing to reload.
    Given {
        name: &'static str,
        config: Box<Config>,
        example: Option<ExampleUpstream>,
    },
}

impl Origin {
    async fn of(flags: &cli::Serve) -> Result<Self, Failed> {
        if let Some(file) = &flags.config {
            return Ok(Self::File(file.clone()));
        }
        let (name, mut config, example) = match &flags.upstream {
            Some(upstream) => {
                ("the command line", config::from_flags(upstream, flags.rate, flags.in_flight), None)
            }
            None => {
                let example = example::start()?;
                ("the built-in example", config::embedded(example.addr()), Some(example))
            }
        };
        config.listen = config::listening(flags.listen, flags.admin).map_err(Failed::asked)?;
        Ok(Self::Given { name, config: Box::new(config), example })
    }

    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Given { name, .. } => (*name).into(),
        }
    }

    fn load(&self) -> Result<Loaded, Problems> {
        match self {
            Self::File(path) => config::load(&Source::File(path.clone())),
            Self::Given { config, .. } => Ok(Loaded::given(config)),
        }
    }

    /// What the gateway guards and how to try it, for the person who started it.
    fn banner(&self, config: &Config) -> String {
        let mut text = format!("tidegate {} guards what {} says:\n", env!("CARGO_PKG_VERSION"), self.name());
        text.push_str(&config::summary(config));
        let scheme = if config.listen.tls.is_some() { "https" } else { "http" };
        let (http, admin) = (config.listen.http, config.listen.admin);
        let _ = writeln!(text, "try:  curl -i {scheme}://{http}/");
        let _ =
            writeln!(text, "see:  http://{admin}/state in a browser, http://{admin}/metrics for Prometheus");
        if let Self::Given { example: Some(_), .. } = self {
            text.push_str("next: tidegate serve --upstream http://HOST:PORT --rate 100/s --in-flight 50\n");
        }
        text
    }
}
