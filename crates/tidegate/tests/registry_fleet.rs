//! A fleet of clients over one registry of limited capacity, on virtual time: how many calls reach it, and how many
//! lookups fail.
//!
//! `TIDEGATE_FLEET=4000` sets the number of clients (default: 12); `TIDEGATE_FLEET_CSV=DIR` writes the calls of every
//! second to `DIR/SCENARIO.csv`, for the plot of the docs.

#![cfg(not(any(loom, shuttle)))]

use std::{cell::Cell, env, fmt::Write as _, fs, path::Path, rc::Rc, time::Duration};

use tidegate::{
    Call, clock,
    registry::{
        Instance, LookupError, Provenance, Registry, ServiceName, Settings,
        testing::{Behaviour, FakeRegistry},
    },
};
use tokio::{
    task::{LocalSet, spawn_local},
    time::{sleep, sleep_until},
};

const SERVICES: usize = 20;
const INSTANCES: usize = 10;

fn clients() -> usize {
    env::var("TIDEGATE_FLEET").ok().and_then(|clients| clients.parse().ok()).unwrap_or(12)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn service(number: usize) -> ServiceName {
    format!("service-{number}").parse().expect("a name")
}

fn instance(of: usize, id: usize) -> Instance {
    let address = format!("10.0.{of}.{}:9000", id % 250 + 1).parse().expect("an address");
    Instance::new(service(of), id.to_string(), address)
}

/// What the lookups of the whole fleet came to.
#[derive(Default)]
struct Tally {
    answered: Cell<u64>,
    /// Answered by a watch that lives.
    live: Cell<u64>,
    failed: Cell<u64>,
    not_found: Cell<u64>,
}

fn add(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

struct Fleet {
    fake: FakeRegistry,
    tally: Rc<Tally>,
    /// Calls in each second since the start.
    calls: Vec<u64>,
    counted: u64,
    scenario: &'static str,
}

impl Fleet {
    /// Starts the clients within `within`, as a deployment does; each looks every service up once a second.
    fn start(scenario: &'static str, fake: FakeRegistry, within: Duration) -> Self {
        fastrand::seed(7);
        let tally = Rc::new(Tally::default());
        for _ in 0..clients() {
            let (fake, tally) = (fake.clone(), Rc::clone(&tally));
            let start = within.mul_f64(fastrand::f64());
            spawn_local(async move {
                sleep(start).await;
                let registry = Registry::new(fake, Settings::default()).expect("valid settings");
                loop {
                    for number in 0..SERVICES {
                        let call = Call::at(clock::now());
                        match registry.try_lookup(&call, &service(number)) {
                            None => {}
                            Some(Ok(found)) => {
                                add(&tally.answered);
                                if found.provenance == Provenance::Live {
                                    add(&tally.live);
                                }
                            }
                            Some(Err(LookupError::NotFound)) => add(&tally.not_found),
                            Some(Err(_)) => add(&tally.failed),
                        }
                    }
                    sleep(seconds(1)).await;
                }
            });
        }
        Self { fake, tally, calls: Vec::new(), counted: 0, scenario }
    }

    /// Lets time pass, and says what the fleet did meanwhile.
    async fn run(&mut self, for_seconds: u64) -> Passed {
        let before = self.calls.len();
        self.tally.answered.take();
        self.tally.live.take();
        self.tally.failed.take();
        self.tally.not_found.take();
        let start = tokio::time::Instant::now();
        for second in 1..=for_seconds {
            sleep_until(start + seconds(second)).await;
            let all = self.fake.counts().calls();
            self.calls.push(all - self.counted);
            self.counted = all;
        }
        let calls = &self.calls[before..];
        Passed {
            calls: calls.iter().sum(),
            peak: calls.iter().copied().max().unwrap_or(0),
            answered: self.tally.answered.get(),
            live: self.tally.live.get(),
            failed: self.tally.failed.get(),
            not_found: self.tally.not_found.get(),
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let Ok(directory) = env::var("TIDEGATE_FLEET_CSV") else { return };
        let mut csv = "second,calls\n".to_owned();
        for (second, calls) in self.calls.iter().enumerate() {
            let _ = writeln!(csv, "{second},{calls}");
        }
        let path = Path::new(&directory).join(self.scenario).with_extension("csv");
        if let Err(error) = fs::write(&path, csv) {
            eprintln!("{}: {error}", path.display());
        }
    }
}

#[derive(Debug)]
struct Passed {
    calls: u64,
    peak: u64,
    answered: u64,
    live: u64,
    failed: u64,
    not_found: u64,
}

fn full() -> FakeRegistry {
    let fake = FakeRegistry::new();
    fake.delay(Duration::from_millis(5));
    fake.put((0..SERVICES).flat_map(|of| (0..INSTANCES).map(move |id| instance(of, id))));
    fake
}

/// Runs a scenario on the paused clock.
fn simulate(scenario: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime with a paused clock").block_on(LocalSet::new().run_until(scenario));
}

/// Calls a second that a fleet makes with a fixed interval of 5 s, as go-micro's cache does.
fn fixed_interval() -> u64 {
    (clients() * SERVICES) as u64 / 5
}

/// The bar: N·S/60 calls a second.
fn bar() -> u64 {
    (clients() * SERVICES) as u64 / 60
}

#[test]
fn an_outage_with_empty_caches_is_asked_after_less_than_once_a_minute_per_client_and_service() {
    simulate(async {
        let fake = full();
        fake.behave(Behaviour::Down);
        let mut fleet = Fleet::start("outage-cold", fake.clone(), seconds(10));
        let first = fleet.run(60).await;
        let later = fleet.run(600).await;
        println!("first minute {first:?}\nnext ten minutes {later:?}");
        assert!(later.calls <= 600 * bar(), "{} calls; the bar is {}", later.calls, 600 * bar());
        assert!(later.calls * 20 < 600 * fixed_interval(), "a twentieth of a fixed interval");
        assert_eq!((later.answered, later.not_found), (0, 0), "never an empty answer");
        fake.behave(Behaviour::Up);
        let back = fleet.run(200).await;
        let after = fleet.run(10).await;
        println!("recovery {back:?}\nafter it {after:?}");
        assert_eq!(after.failed, 0);
        assert_eq!(after.answered, after.live);
    });
}

#[test]
fn an_outage_with_warm_caches_fails_no_lookup_and_a_recovery_stays_within_the_capacity_soon() {
    simulate(async {
        let fake = full();
        let mut fleet = Fleet::start("outage-warm", fake.clone(), seconds(60));
        fleet.run(120).await;
        let steady = fleet.run(300).await;
        println!("steady {steady:?}");
        assert_eq!((steady.calls, steady.failed, steady.not_found), (0, 0, 0), "a live watch is validity");
        fake.behave(Behaviour::Down);
        fake.cut_watches();
        let first = fleet.run(60).await;
        let outage = fleet.run(600).await;
        println!("first minute {first:?}\noutage {outage:?}");
        assert_eq!((first.failed + outage.failed, first.not_found + outage.not_found), (0, 0));
        assert!(outage.calls <= 600 * bar(), "{} calls; the bar is {}", outage.calls, 600 * bar());
        // It comes back weak: it can serve a fiftieth of what it is asked for in all, a second.
        let capacity = (clients() * SERVICES / 50).max(4) as u64;
        fake.capacity(capacity);
        fake.behave(Behaviour::Up);
        let back = fleet.run(300).await;
        let after = fleet.run(10).await;
        println!("recovery at {capacity} calls/s {back:?}\nafter it {after:?}, {:?}", fake.counts());
        assert_eq!((back.failed, back.not_found), (0, 0));
        assert_eq!(after.answered, after.live, "all watches live again");
    });
}

#[test]
fn a_mass_expiry_fails_no_lookup_and_costs_one_read_a_client_and_service_at_most() {
    simulate(async {
        let fake = full();
        let mut fleet = Fleet::start("mass-expiry", fake.clone(), seconds(60));
        fleet.run(120).await;
        (0..SERVICES).for_each(|of| fake.remove_all(&service(of)));
        let expired = fleet.run(5).await;
        // The owners register again, within 20 s.
        for id in 0..INSTANCES {
            fake.put((0..SERVICES).map(|of| instance(of, id)));
            let back = fleet.run(2).await;
            assert_eq!((back.failed, back.not_found), (0, 0));
        }
        let after = fleet.run(60).await;
        println!("expired {expired:?}\nafter it {after:?}");
        assert_eq!((expired.failed, expired.not_found, after.failed, after.not_found), (0, 0, 0, 0));
        assert_eq!(expired.calls + after.calls, 0, "the watches told everything");
    });
}

#[test]
fn a_rolling_deployment_of_clients_and_services_is_spread_and_fails_no_lookup() {
    simulate(async {
        let fake = full();
        let mut fleet = Fleet::start("rolling", fake.clone(), seconds(120));
        let start = fleet.run(180).await;
        // One watch and one read a client and service, over two minutes.
        assert!(start.calls <= (2 * clients() * SERVICES) as u64 + 1);
        assert!(start.peak <= start.calls / 20 + 2 * SERVICES as u64 * 2, "{start:?}");
        for id in 0..INSTANCES {
            fake.put((0..SERVICES).map(|of| instance(of, 100 + id)));
            (0..SERVICES).for_each(|of| fake.remove(&service(of), [&*id.to_string()]));
            let rolled = fleet.run(5).await;
            assert_eq!((rolled.failed, rolled.not_found, rolled.calls), (0, 0, 0));
        }
        println!("start {start:?}");
    });
}
