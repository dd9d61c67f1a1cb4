//! A cluster: who serves which slot, and a link to each who does.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::RwLock;
use redis::Value;
use tidegate::Server;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use crate::{
    StoreError,
    check::{Mode, check},
    link::{Link, State, Target},
    settings::InvalidSettings,
    tended::Tended,
    wire::{Dial, Failed, Wire},
};

/// The least time between two questions of who serves what.
const REFRESH_APART: Duration = Duration::from_millis(100);
/// How long a link to a node is kept that serves no slot, after another node named it.
const NAMED_KEPT: Duration = Duration::from_secs(60);
/// Most nodes that serve no slot and have a link.
const MOST_NAMED: usize = 64;
/// How long a map that nobody doubts is believed, in heartbeats.
const REFRESH_BEATS: u32 = 10;

/// A cluster.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Tended<Shared>>);

struct Shared {
    map: RwLock<Map>,
    doubted: Notify,
    learned: Notify,
    dial: Dial,
    seeds: Vec<Server>,
}

#[derive(Default)]
struct Map {
    /// Ranges of slots, sorted; the index is of `masters`.
    ranges: Vec<(u16, u16, Server)>,
    links: HashMap<Server, Link>,
    /// When other nodes last named one. It may serve no slot yet: those that are on their way to it.
    named: HashMap<Server, Instant>,
    /// Why the first questions failed, until one is answered.
    failed: Option<StoreError>,
}

impl Cluster {
    /// Begins to ask the seeds. Needs a runtime. `dial` is how to reach a node, whichever.
    pub(crate) fn start(dial: Dial, seeds: Vec<Server>) -> Result<Self, InvalidSettings> {
        let shared = Arc::new(Shared {
            map: RwLock::default(),
            doubted: Notify::new(),
            learned: Notify::new(),
            dial,
            seeds,
        });
        let task = tokio::spawn(follow(Arc::downgrade(&shared))).abort_handle();
        Ok(Self(Arc::new(Tended::new(shared, task))))
    }

    /// The link to who serves a slot, as far as is known.
    pub(crate) fn serving(&self, slot: u16) -> Result<Link, StoreError> {
        let map = self.0.map.read();
        let at = map.ranges.partition_point(|(_, last, _)| *last < slot);
        let server = map.ranges.get(at).filter(|(first, _, _)| *first <= slot).map(|(_, _, server)| server);
        match server.and_then(|server| map.links.get(server)) {
            Some(link) => Ok(link.clone()),
            None => {
                self.doubt();
                Err(map.failed.clone().unwrap_or(StoreError::Uncovered(slot)))
            }
        }
    }

    /// The link to a node that another one named.
    pub(crate) fn named(&self, server: &Server) -> Result<Link, StoreError> {
        self.doubt();
        let mut map = self.0.map.write();
        map.named.insert(server.clone(), Instant::now());
        map.link(server, &self.0.dial)
            .map_err(|error| StoreError::Unavailable { server: server.clone(), why: error.to_string() })
    }

    /// Has the map drawn again soon.
    pub(crate) fn doubt(&self) {
        self.0.doubted.notify_one();
    }

    /// All links, sorted by server.
    pub(crate) fn links(&self) -> Vec<(Server, Link)> {
        let map = self.0.map.read();
        let mut links: Vec<_> =
            map.links.iter().map(|(server, link)| (server.clone(), link.clone())).collect();
        links.sort_by(|a, b| a.0.cmp(&b.0));
        links
    }

    /// Waits until the map is drawn, or cannot be.
    pub(crate) async fn known(&self) -> Result<(), StoreError> {
        loop {
            let learned = self.0.learned.notified();
            {
                let map = self.0.map.read();
                if !map.ranges.is_empty() {
                    return Ok(());
                }
                if let Some(error) = &map.failed {
                    return Err(error.clone());
                }
            }
            learned.await;
        }
    }

    /// Whether a server serves a slot, as far as is known.
    pub(crate) fn serves(&self, server: &Server, slot: u16) -> bool {
        let map = self.0.map.read();
        map.ranges.iter().any(|(first, last, known)| known == server && (*first..=*last).contains(&slot))
    }
}

impl Map {
    fn link(&mut self, server: &Server, dial: &Dial) -> Result<Link, InvalidSettings> {
        if let Some(link) = self.links.get(server) {
            return Ok(link.clone());
        }
        let dial = Dial { server: server.clone(), ..dial.clone() };
        let link = Link::start(dial, Mode::Cluster, Target::Server)?;
        self.links.insert(server.clone(), link.clone());
        Ok(link)
    }
}

/// Keeps the map.
async fn follow(shared: Weak<Shared>) {
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let drawn = draw(&strong).await;
        let beat = strong.dial.settings.heartbeat;
        let mut wait = beat;
        match drawn {
            Ok(ranges) => {
                let whole = adopt(&strong, ranges);
                if whole {
                    wait = beat * REFRESH_BEATS;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "no node of the cluster says who serves what");
                strong.map.write().failed = Some(error);
            }
        }
        strong.learned.notify_waiters();
        sleep(REFRESH_APART).await;
        let doubted = timeout(wait, strong.doubted.notified()).await;
        tracing::trace!(doubted = doubted.is_ok(), "drawing the map of the cluster again");
    }
}

/// Takes a new map, with links to those it names, those that nodes named of late, and none to others. Says whether all
/// who serve can be asked.
fn adopt(shared: &Shared, ranges: Vec<(u16, u16, Server)>) -> bool {
    let mut map = shared.map.write();
    for (_, _, server) in &ranges {
        if let Err(error) = map.link(server, &shared.dial) {
            tracing::warn!(%error, %server, "no link to a node of the cluster");
        }
    }
    let serves = |known: &Server| ranges.iter().any(|(_, _, server)| server == known);
    let Map { links, named, .. } = &mut *map;
    named.retain(|known, at| !serves(known) && at.elapsed() < NAMED_KEPT);
    while named.len() > MOST_NAMED {
        let oldest = named.iter().min_by_key(|(_, at)| **at).map(|(known, _)| known.clone());
        named.remove(&oldest.expect("there are some"));
    }
    links.retain(|known, _| serves(known) || named.contains_key(known));
    let is_up = |(known, link): (&Server, &Link)| !serves(known) || matches!(link.state(), State::Up(_));
    let whole = links.iter().all(is_up);
    map.failed = None;
    map.ranges = ranges;
    whole
}

/// Asks nodes who serves what: first those that are connected, then the seeds.
async fn draw(shared: &Shared) -> Result<Vec<(u16, u16, Server)>, StoreError> {
    let within = shared.dial.settings.connect_timeout;
    let links: Vec<Link> = shared.map.read().links.values().cloned().collect();
    for link in links {
        if let State::Up(up) = link.state()
            && let Ok(answer) = up.wire.ask(&slots(), within).await
            && let Some(ranges) = read(&answer, &up.server)
        {
            return Ok(ranges);
        }
    }
    let mut told: Option<StoreError> = None;
    for seed in &shared.seeds {
        let dial = Dial { server: seed.clone(), ..shared.dial.clone() };
        match ask(&dial).await {
            Ok(ranges) => return Ok(ranges),
            Err(failed) => {
                let error = failed.at(seed);
                if told.as_ref().is_none_or(|told| told.fault().is_none()) {
                    told = Some(error);
                }
            }
        }
    }
    Err(told.expect("a URL of a cluster names at least one node"))
}

async fn ask(dial: &Dial) -> Result<Vec<(u16, u16, Server)>, Failed> {
    let within = dial.settings.connect_timeout;
    let wire = Wire::open(dial, None).await?;
    match check(&wire, Mode::Cluster, within).await {
        // A replica knows the map as well as any.
        Ok(_) | Err(Failed::Fault(crate::Fault::Replica { .. })) => {}
        Err(other) => return Err(other),
    }
    let answer: Value = wire.ask(&slots(), within).await?;
    match read(&answer, &dial.server) {
        Some(ranges) if ranges.is_empty() => {
            Err(Failed::Refused { code: "CLUSTERDOWN".into(), said: "no slot is served".into() })
        }
        Some(ranges) => Ok(ranges),
        None => Err(Failed::Lost("its CLUSTER SLOTS cannot be read".into())),
    }
}

fn slots() -> redis::Cmd {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    command
}

/// Reads `CLUSTER SLOTS`: first, last, master, replicas. A node that does not know its own address leaves it out.
fn read(answer: &Value, asked: &Server) -> Option<Vec<(u16, u16, Server)>> {
    let Value::Array(entries) = answer else { return None };
    let mut ranges = Vec::with_capacity(entries.len());
    for entry in entries {
        let Value::Array(fields) = entry else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = fields.as_slice() else {
            return None;
        };
        let [host, Value::Int(port), ..] = master.as_slice() else { return None };
        let host = match host {
            Value::BulkString(host) if !host.is_empty() && host != b"?" => {
                String::from_utf8(host.clone()).ok()?
            }
            _ => asked.host.clone(),
        };
        let server = Server { host, port: u16::try_from(*port).ok()? };
        ranges.push((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, server));
    }
    ranges.sort_unstable_by_key(|(first, _, _)| *first);
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    fn server(port: u16) -> Server {
        Server { host: "127.0.0.1".into(), port }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_others_name_keeps_its_link_while_they_do() {
        let settings = Arc::new(Settings::default());
        // Nobody listens there.
        let dial = Dial { server: server(1), database: 0, tls: false, credentials: None, settings };
        let cluster = Cluster::start(dial, vec![server(1)]).expect("good settings");
        let (serving, target) = (server(2), server(3));
        let ranges = || vec![(0, 16383, serving.clone())];
        adopt(&cluster.0, ranges());
        let link = cluster.named(&target).expect("good settings");
        adopt(&cluster.0, ranges());
        assert!(cluster.named(&target).expect("good settings").is(&link), "it is the same");
        for port in 100..100 + MOST_NAMED as u16 {
            let _ = cluster.named(&server(port));
        }
        assert!(cluster.links().len() > MOST_NAMED);
        adopt(&cluster.0, ranges());
        assert_eq!(cluster.links().len(), 1 + MOST_NAMED);
        tokio::time::advance(NAMED_KEPT).await;
        adopt(&cluster.0, ranges());
        let left: Vec<_> = cluster.links().into_iter().map(|(server, _)| server).collect();
        assert_eq!(left, [serving]);
    }
}
