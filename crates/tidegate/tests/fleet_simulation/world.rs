//! A fleet of real drivers and a store, each a process of its own on a simulated network, with faults from a seed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use tidegate::{
    Call, clock,
    fleet::{FleetThrottle, NOTICED_WITHIN, Rule},
    throttle::Key,
};
use tidegate_core::ledger::{Book, Epoch, Law, Micros};
use turmoil::{Builder, Sim, net::UdpSocket};

use crate::wire::{self, Remote, STORE};

const TICK: Duration = Duration::from_millis(5);
/// The store's clock at the start: a full minute.
const START: Micros = 1_780_056_000_000_000;
const NODES: [&str; 3] = ["a", "b", "c"];

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Faults {
    /// Nothing but the time that messages take.
    None,
    /// Datagrams are lost and repeated; nodes are cut off, one way or both, for a while.
    Network,
    /// Nodes die and come back with nothing.
    Nodes,
    /// The store dies and comes back empty.
    Store,
}

/// What was admitted: of which key, how much, and when by the store's clock.
type Log = Arc<Mutex<Vec<(Key, u32, Micros)>>>;

pub(crate) struct Outcome {
    log: Vec<(Key, u32, Micros)>,
    rule: Rule,
}

fn store_now() -> Micros {
    let elapsed = turmoil::sim_elapsed().expect("on a simulated host");
    START + u64::try_from(elapsed.as_micros()).expect("a short simulation")
}

async fn store(rule: Rule, is_new: Arc<Mutex<bool>>) -> turmoil::Result {
    let socket = UdpSocket::bind(("0.0.0.0", STORE.1)).await?;
    // The first one knows its whole past; each other one finds itself empty.
    let mut epoch = if std::mem::take(&mut *is_new.lock().expect("no panics here")) {
        Epoch::WHOLE
    } else {
        let now = store_now();
        Epoch { begun: now + NOTICED_WITHIN.as_micros() as u64, ..Epoch::new(now) }
    };
    let (mut books, mut peers, mut bytes) = (HashMap::<Key, Book>::new(), Vec::new(), [0; 256]);
    loop {
        let (length, from) = socket.recv_from(&mut bytes).await?;
        if !peers.contains(&from) {
            peers.push(from);
        }
        let (number, key, ask) = wire::read_question(&bytes[..length]);
        let now = store_now();
        let begun = epoch.begun;
        epoch = epoch.at(ask.seen.epoch, now);
        // A beginning ahead of the clock is the time to notice, and no clock that was set back.
        epoch.begun = epoch.begun.max(begun);
        let reply = books.entry(key).or_default().grant(&rule, &ask, now, epoch);
        socket.send_to(&wire::answer(number, &reply), from).await?;
        if reply.granted < ask.need {
            for peer in peers.iter().filter(|peer| **peer != from) {
                socket.send_to(&wire::exhausted(key), *peer).await?;
            }
        }
    }
}

async fn node(rule: Rule, log: Log, repeats: u32, mut random: Rng) -> turmoil::Result {
    let throttle = FleetThrottle::builder("limit", rule, Remote::connect(repeats).await).build()?;
    let most = rule.limit().min(150) + 10;
    loop {
        // A spell of steady calls, of which credit is held ahead; then a rush, often where a window begins.
        let pause = random.u64(1..40);
        for _ in 0..random.u32(1..30) {
            tokio::time::sleep(Duration::from_millis(random.u64(0..pause * 2))).await;
            call(&throttle, &log, &mut random);
        }
        match random.u32(..4) {
            0 => tokio::time::sleep(Duration::from_millis(random.u64(..2000))).await,
            1 | 2 => {
                let edge = 500_000 - store_now() % 500_000;
                let before = Duration::from_millis(random.u64(..10));
                tokio::time::sleep((Duration::from_micros(edge) + TICK).saturating_sub(before)).await;
                for _ in 0..random.u32(1..most) {
                    call(&throttle, &log, &mut random);
                }
            }
            _ => {}
        }
    }
}

/// One caller, who may give up.
fn call(throttle: &FleetThrottle, log: &Log, random: &mut Rng) {
    let (key, cost) =
        (Key::from_bits(u128::from(random.u32(..6) == 0)), if random.u32(..8) == 0 { 2 } else { 1 });
    let (throttle, log) = (throttle.clone(), log.clone());
    let patience = Duration::from_millis(random.u64(5..200));
    tokio::spawn(async move {
        let call = Call::at(clock::now()).cost(cost);
        let entered = tokio::time::timeout(patience, throttle.enter(&call, &key)).await;
        if let Ok(Ok(_permit)) = entered {
            log.lock().expect("no panics here").push((key, cost, store_now()));
        }
    });
}

/// Runs one history.
pub(crate) fn run(seed: u64, rule: Rule, faults: Faults, length: Duration) -> Outcome {
    let mut random = Rng::with_seed(seed);
    fastrand::seed(seed);
    // Its first reading must be before the clock of any host.
    let _ = clock::now();
    let slowest = random.u64(6..40);
    let mut builder = Builder::new();
    builder
        .rng_seed(seed)
        .tick_duration(TICK)
        .simulation_duration(length * 2)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(slowest));
    if faults == Faults::Network {
        builder.fail_rate(random.f64() * 0.05).repair_rate(0.3);
    }
    let mut sim = builder.build();
    let (log, is_new) = (Log::default(), Arc::new(Mutex::new(true)));
    sim.host(STORE.0, move || store(rule, is_new.clone()));
    let repeats = if faults == Faults::Network { 10 } else { 0 };
    for name in NODES {
        let (log, seeds) = (log.clone(), Arc::new(Mutex::new(random.fork())));
        sim.host(name, move || {
            node(rule, log.clone(), repeats, seeds.lock().expect("no panics here").fork())
        });
    }
    let mut healing = Healing::default();
    while sim.elapsed() < length {
        sim.step().expect("no host ends by itself");
        healing.heal(&mut sim);
        if random.u32(..120) == 0 {
            healing.hurt(&mut sim, faults, &mut random);
        }
    }
    drop(sim);
    let log = std::mem::take(&mut *log.lock().expect("no panics here"));
    Outcome { log, rule }
}

/// Faults that are to end.
#[derive(Default)]
struct Healing(Vec<(Duration, Fault)>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Cut(&'static str),
    Held(&'static str),
    Dead(&'static str),
}

impl Healing {
    fn hurt(&mut self, sim: &mut Sim<'_>, faults: Faults, random: &mut Rng) {
        let name = NODES[random.usize(..NODES.len())];
        let until = sim.elapsed() + Duration::from_millis(random.u64(20..1200));
        let fault = match faults {
            Faults::None => return,
            Faults::Network if random.bool() => Fault::Held(name),
            Faults::Network => Fault::Cut(name),
            Faults::Nodes => Fault::Dead(name),
            Faults::Store => Fault::Dead(STORE.0),
        };
        if self.0.iter().any(|(_, known)| *known == fault) {
            return;
        }
        match fault {
            Fault::Held(name) => sim.hold(name, STORE.0),
            Fault::Cut(name) if random.bool() => sim.partition(name, STORE.0),
            Fault::Cut(name) if random.bool() => sim.partition_oneway(name, STORE.0),
            Fault::Cut(name) => sim.partition_oneway(STORE.0, name),
            Fault::Dead(name) => sim.crash(name),
        }
        self.0.push((until, fault));
    }

    fn heal(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        self.0.retain(|(until, fault)| {
            if *until > now {
                return true;
            }
            match *fault {
                Fault::Held(name) => sim.release(name, STORE.0),
                Fault::Cut(name) => sim.repair(name, STORE.0),
                Fault::Dead(name) => sim.bounce(name),
            }
            false
        });
    }
}

impl Outcome {
    pub(crate) fn admitted(&self) -> u64 {
        self.log.iter().map(|(_, cost, _)| u64::from(*cost)).sum()
    }

    /// The most that was admitted beyond the limit, of any key in any span that the rule bounds.
    pub(crate) fn over(&self) -> u64 {
        let keys = [0, 1].map(Key::from_bits);
        keys.into_iter().map(|key| self.over_of(key)).max().unwrap_or(0)
    }

    fn over_of(&self, key: Key) -> u64 {
        let mut calls: Vec<(Micros, u64)> = self
            .log
            .iter()
            .filter(|(of, ..)| *of == key)
            .map(|(_, cost, at)| (*at, u64::from(*cost)))
            .collect();
        calls.sort_unstable();
        let limit = u64::from(self.rule.limit());
        match self.rule.law() {
            Law::Aligned { period } => {
                let mut windows = HashMap::<Micros, u64>::new();
                for (at, cost) in calls {
                    *windows.entry(at / period).or_default() += cost;
                }
                windows.into_values().map(|spent| spent.saturating_sub(limit)).max().unwrap_or(0)
            }
            Law::Sliding { slice, slices } => {
                // The log's times are those of ticks: a span may hold calls of a tick on each end.
                let span = slice * slices - TICK.as_micros() as u64;
                most_over(
                    &calls,
                    |from, to, spent| if to - from < span { spent.saturating_sub(limit) } else { 0 },
                )
            }
            Law::Bucket { count, period, .. } => most_over(&calls, |from, to, spent| {
                let flowed = (to - from + TICK.as_micros() as u64) * count / period;
                spent.saturating_sub(limit + flowed + 1)
            }),
            Law::FirstCall { .. } | Law::Month => unreachable!("not simulated"),
        }
    }
}

/// The greatest excess over all spans that begin and end with a call.
fn most_over(calls: &[(Micros, u64)], excess: impl Fn(Micros, Micros, u64) -> u64) -> u64 {
    let mut most = 0;
    for (first, (from, _)) in calls.iter().enumerate() {
        let mut spent = 0;
        for (to, cost) in &calls[first..] {
            spent += cost;
            most = most.max(excess(*from, *to, spent));
        }
    }
    most
}
