//! A store as a whole: one server, the one that sentinels name, or a cluster; every operation with a deadline, within
//! a bound on those under way.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use redis::{Cmd, Value};
use tidegate::Server;
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    Fault, InvalidSettings, Settings, StoreError, StoreUrl, Topology,
    check::Mode,
    cluster::Cluster,
    link::{Admitted, Link, State, Target, Unmet, Up},
    script::Script,
    sentinel::Sentinels,
    wire::{Dial, Failed},
};

/// How often an operation follows a server that says the key is elsewhere. It was not done there, so nothing is done twice.
const REDIRECTIONS: usize = 3;

/// A store. Clones share its connections, which close with the last one.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    routes: Routes,
    /// How to reach a server of the store, whichever.
    dial: Dial,
    settings: Arc<Settings>,
    under_way: AtomicUsize,
}

enum Routes {
    One(Link),
    Cluster(Cluster),
}

/// What a server of a store is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing is known yet.
    Connecting,
    /// It can be asked.
    Up {
        /// Which server: under sentinels, the master of the moment.
        server: Server,
        /// Its process: another one has another.
        run_id: Arc<str>,
    },
    /// It cannot be asked, and is tried again.
    Down(StoreError),
}

impl Client {
    /// Begins to connect, and goes on for as long as a clone lives. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`InvalidSettings`]. What is wrong with the store itself, [`ready`](Self::ready) and [`health`](Self::health)
    /// tell.
    pub fn start(url: &StoreUrl, settings: Settings) -> Result<Self, InvalidSettings> {
        settings.check()?;
        let settings = Arc::new(settings);
        let dial = |server: &Server, database: u32| Dial {
            server: server.clone(),
            database,
            tls: url.tls,
            credentials: url.credentials.clone(),
            settings: settings.clone(),
        };
        let routes = match &url.topology {
            Topology::Standalone { server, database } => {
                Routes::One(Link::start(dial(server, *database), Mode::Standalone, Target::Server)?)
            }
            Topology::Sentinel { sentinels, master, database } => {
                let dials = sentinels.iter().map(|s| Dial { credentials: None, ..dial(s, 0) }).collect();
                let credentials = url.credentials.clone();
                let target = Target::Master(Sentinels { dials, credentials, master: master.clone() });
                let nobody_yet = sentinels.first().expect("a URL of sentinels names at least one");
                Routes::One(Link::start(dial(nobody_yet, *database), Mode::Standalone, target)?)
            }
            Topology::Cluster { nodes } => {
                let seed = nodes.first().expect("a URL of a cluster names at least one node");
                Routes::Cluster(Cluster::start(dial(seed, 0), nodes.clone())?)
            }
        };
        let anybody = Server { host: String::new(), port: 0 };
        let dial = match &url.topology {
            Topology::Standalone { database, .. } | Topology::Sentinel { database, .. } => {
                dial(&anybody, *database)
            }
            Topology::Cluster { .. } => dial(&anybody, 0),
        };
        Ok(Self(Arc::new(Inner { routes, dial, settings, under_way: AtomicUsize::new(0) })))
    }

    /// Waits until the store was reached and checked, every master of a cluster included, or was found wanting.
    ///
    /// # Errors
    /// What is wrong, of the first server that is: [`StoreError::Fault`] when an operator has to mend it. The client
    /// goes on trying.
    ///
    /// # Cancel safety
    /// It changes nothing.
    pub async fn ready(&self) -> Result<(), StoreError> {
        if let Routes::Cluster(cluster) = &self.0.routes {
            cluster.known().await?;
        }
        for link in self.links() {
            if let State::Down(error) = link.known().await {
                return Err(error);
            }
        }
        Ok(())
    }

    /// What each server of the store is now; of a cluster, its masters.
    pub fn health(&self) -> Vec<Health> {
        let health = |link: &Link| match link.state() {
            State::Connecting => Health::Connecting,
            State::Up(up) => Health::Up { server: up.server, run_id: up.checked.run_id },
            State::Down(error) => Health::Down(error),
        };
        match &self.0.routes {
            Routes::One(link) => vec![health(link)],
            Routes::Cluster(cluster) => {
                let all: Vec<_> = cluster.links().iter().map(|(_, link)| health(link)).collect();
                if all.is_empty() { vec![Health::Connecting] } else { all }
            }
        }
    }

    /// Operations under way.
    pub fn in_flight(&self) -> usize {
        self.0.under_way.load(Relaxed)
    }

    /// How it was set.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        match &self.0.routes {
            Routes::One(_) => None,
            Routes::Cluster(cluster) => Some(cluster),
        }
    }

    /// The links that there are now.
    pub(crate) fn links(&self) -> Vec<Link> {
        match &self.0.routes {
            Routes::One(link) => vec![link.clone()],
            Routes::Cluster(cluster) => cluster.links().into_iter().map(|(_, link)| link).collect(),
        }
    }

    /// How to reach a server of the store once more.
    pub(crate) fn dial(&self, server: &Server) -> Dial {
        Dial { server: server.clone(), ..self.0.dial.clone() }
    }

    /// Does an operation at who serves the slot.
    ///
    /// # Cancel safety
    /// It may have been done, or may still be.
    pub(crate) async fn run(&self, slot: u16, work: &Work<'_>) -> Result<Value, StoreError> {
        self.run_and_hear(slot, work, None).await
    }

    /// As [`run`](Self::run). With somebody to be told that it is late, it tells them when the deadline has passed, and
    /// waits for the answer a heartbeat longer: what a server has still to do is under way, and an answer that comes
    /// too late for anybody says that the server is there. It is an error all the same.
    ///
    /// # Cancel safety
    /// It may have been done, or may still be.
    pub(crate) async fn run_and_hear(
        &self,
        slot: u16,
        work: &Work<'_>,
        late: Option<Late<'_>>,
    ) -> Result<Value, StoreError> {
        let _place = Place::take(&self.0)?;
        let deadline = Instant::now() + self.0.settings.deadline;
        let mut at: Option<Server> = None;
        let mut redirected: Option<(Server, Way)> = None;
        for _ in 0..=REDIRECTIONS {
            let (link, way) = match (&self.0.routes, &redirected) {
                (Routes::One(link), _) => (link.clone(), Way::Plain),
                (Routes::Cluster(cluster), None) => (cluster.serving(slot)?, Way::Plain),
                (Routes::Cluster(cluster), Some((server, way))) => (cluster.named(server)?, *way),
            };
            let admitted = match link.admit() {
                Ok(admitted) => admitted,
                Err(Unmet::Not(error)) => {
                    self.doubt();
                    return Err(error);
                }
                Err(Unmet::Connecting) => {
                    let server = redirected.map(|(server, _)| server).or(at).unwrap_or_else(nowhere);
                    return Err(StoreError::Unavailable { server, why: "no connection yet".into() });
                }
            };
            let done = self.attempt(&admitted, work.on(&admitted.up, way), deadline, late).await;
            let server = admitted.settle(&done);
            match done {
                Ok(answer) => return Ok(answer),
                Err(Failed::Moved(to)) if self.cluster().is_some() => redirected = Some((to, Way::Plain)),
                Err(Failed::Ask(to)) if self.cluster().is_some() => redirected = Some((to, Way::Asking)),
                Err(Failed::Moved(_) | Failed::Ask(_)) => {
                    return Err(StoreError::Fault { server, fault: Fault::IsCluster });
                }
                Err(failed) => {
                    self.doubt();
                    return Err(failed.at(&server));
                }
            }
            at = Some(server);
        }
        let server = at.unwrap_or_else(nowhere);
        let said = format!("slot {slot} goes from node to node");
        Err(StoreError::Unready { server, code: "MOVED".into(), said })
    }

    async fn attempt(
        &self,
        admitted: &Admitted<'_>,
        doing: impl Future<Output = Result<Value, Failed>>,
        deadline: Instant,
        late: Option<Late<'_>>,
    ) -> Result<Value, Failed> {
        let Settings { deadline: within, heartbeat, .. } = *self.0.settings;
        let mut doing = pin!(doing);
        if let Ok(done) = timeout_at(deadline, doing.as_mut()).await {
            return done;
        }
        let failed = Failed::Late(within);
        let Some(late) = late else { return Err(failed) };
        late(failed.clone().at(&admitted.up.server));
        match timeout(heartbeat, doing).await {
            Ok(Err(failed)) if failed.ends_connection() => return Err(failed),
            Ok(Ok(_)) => admitted.heard(),
            Ok(Err(_)) | Err(_) => {}
        }
        Err(failed)
    }

    /// When the server of a slot answered last, in time or not; `None` while nobody is known to serve it.
    pub(crate) fn heard_at(&self, slot: u16) -> Option<tidegate::Instant> {
        match &self.0.routes {
            Routes::One(link) => Some(link.heard_at()),
            Routes::Cluster(cluster) => Some(cluster.serving(slot).ok()?.heard_at()),
        }
    }

    fn doubt(&self) {
        if let Routes::Cluster(cluster) = &self.0.routes {
            cluster.doubt();
        }
    }
}

/// Told that an operation is late.
pub(crate) type Late<'a> = &'a (dyn Fn(StoreError) + Sync);

/// For an error of no server in particular.
pub(crate) fn nowhere() -> Server {
    Server { host: "store".into(), port: 0 }
}

/// What is to be done.
pub(crate) enum Work<'a> {
    /// A script on keys of one slot. The arguments may be asked for several times: the server may be another one.
    Script { script: &'a Script, keys: &'a [&'a [u8]], arguments: &'a (dyn Fn(&mut Cmd, &Up) + Sync) },
}

/// How a server is asked.
#[derive(Clone, Copy)]
enum Way {
    Plain,
    /// For a slot that is on its way to it.
    Asking,
}

impl Work<'_> {
    async fn on(&self, up: &Up, way: Way) -> Result<Value, Failed> {
        match self {
            Self::Script { script, keys, arguments } => {
                let mut command = script.by_hash(keys);
                arguments(&mut command, up);
                let result = send(up, &command, way).await;
                if !matches!(result, Err(Failed::NoScript)) {
                    return result;
                }
                let mut command = script.by_source(keys);
                arguments(&mut command, up);
                send(up, &command, way).await
            }
        }
    }
}

async fn send(up: &Up, command: &Cmd, way: Way) -> Result<Value, Failed> {
    match way {
        Way::Plain => up.wire.send(command).await,
        Way::Asking => up.wire.send_asking(command).await,
    }
}

/// A place among the operations under way, given back by drop.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(inner: &'a Inner) -> Result<Self, StoreError> {
        let most = inner.settings.in_flight;
        if inner.under_way.fetch_add(1, Relaxed) >= most {
            inner.under_way.fetch_sub(1, Relaxed);
            return Err(StoreError::Busy(most));
        }
        Ok(Self(&inner.under_way))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
