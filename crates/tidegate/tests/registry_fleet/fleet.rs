//! A fleet of clients over one registry that counts, on virtual time: what reaches the registry and what the callers
//! get, second by second.

use std::{
    cell::RefCell,
    ops::{AddAssign, Range},
    rc::Rc,
    time::Duration,
};

use tidegate::{
    clock,
    registry::{
        Instance, ServiceName,
        testing::{Behaviour, FakeRegistry},
    },
};
use tokio::{
    task::spawn_local,
    time::{sleep, sleep_until},
};

use crate::clients::{Client, Found};

pub(crate) const SERVICES: usize = 20;
pub(crate) const INSTANCES: usize = 10;

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn service(number: usize) -> ServiceName {
    format!("service-{number}").parse().expect("a name")
}

fn instance(of: usize, id: usize) -> Instance {
    let address = format!("10.0.{of}.{}:9000", id % 250 + 1).parse().expect("an address");
    Instance::new(service(of), id.to_string(), address)
}

/// What the registry and the callers of the whole fleet saw in a second, or in several.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Calls that reached the registry: readings and watches that begin.
    pub(crate) calls: u64,
    /// Of these, those that it had no capacity for.
    pub(crate) over_capacity: u64,
    pub(crate) live: u64,
    pub(crate) known: u64,
    pub(crate) waited: u64,
    pub(crate) none: u64,
    pub(crate) failed: u64,
}

impl Seen {
    pub(crate) const fn answered(&self) -> u64 {
        self.live + self.known
    }

    /// Lookups that got no endpoints, though every service has some, or had them a moment ago.
    pub(crate) const fn in_vain(&self) -> u64 {
        self.none + self.failed
    }
}

impl AddAssign for Seen {
    fn add_assign(&mut self, more: Self) {
        self.calls += more.calls;
        self.over_capacity += more.over_capacity;
        self.live += more.live;
        self.known += more.known;
        self.waited += more.waited;
        self.none += more.none;
        self.failed += more.failed;
    }
}

/// What happened, second by second, in phases that have names.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) seconds: Vec<Seen>,
    pub(crate) phases: Vec<(&'static str, Range<usize>)>,
}

impl Record {
    /// All of a phase, and the most calls in a second of it.
    pub(crate) fn phase(&self, name: &str) -> (Seen, u64) {
        let (_, range) = self.phases.iter().find(|(other, _)| *other == name).expect("a phase of this name");
        let mut sum = Seen::default();
        self.seconds[range.clone()].iter().for_each(|second| sum += *second);
        (sum, self.seconds[range.clone()].iter().map(|second| second.calls).max().unwrap_or(0))
    }
}

pub(crate) struct Fleet {
    pub(crate) registry: FakeRegistry,
    tally: Rc<RefCell<Seen>>,
    record: Record,
    counted: (u64, u64),
}

impl Fleet {
    /// Starts the clients within `within`, as a deployment does; each looks every service up once a second.
    pub(crate) fn start<C: Client>(clients: usize, behaviour: Behaviour, within: Duration) -> Self {
        fastrand::seed(7);
        let registry = FakeRegistry::new();
        registry.delay(Duration::from_millis(5));
        registry.capacity(capacity(clients));
        registry.put((0..SERVICES).flat_map(|of| (0..INSTANCES).map(move |id| instance(of, id))));
        registry.behave(behaviour);
        let tally = Rc::new(RefCell::new(Seen::default()));
        let services: Rc<[ServiceName]> = (0..SERVICES).map(service).collect();
        for _ in 0..clients {
            let (registry, tally, services) = (registry.clone(), Rc::clone(&tally), Rc::clone(&services));
            let start = within.mul_f64(fastrand::f64());
            spawn_local(async move {
                sleep(start).await;
                let client = C::new(registry);
                loop {
                    for service in &*services {
                        let found = client.look(service, clock::now());
                        let tally = &mut *tally.borrow_mut();
                        *match found {
                            Found::Live => &mut tally.live,
                            Found::Known => &mut tally.known,
                            Found::Waits => &mut tally.waited,
                            Found::None => &mut tally.none,
                            Found::Failed => &mut tally.failed,
                        } += 1;
                    }
                    sleep(seconds(1)).await;
                }
            });
        }
        Self { registry, tally, record: Record::default(), counted: (0, 0) }
    }

    /// Lets time pass.
    pub(crate) async fn run(&mut self, phase: &'static str, for_seconds: u64) {
        let from = self.record.seconds.len();
        let start = tokio::time::Instant::now();
        for second in 1..=for_seconds {
            sleep_until(start + seconds(second)).await;
            let counts = self.registry.counts();
            let mut seen = self.tally.take();
            seen.calls = counts.calls() - self.counted.0;
            seen.over_capacity = counts.over_capacity - self.counted.1;
            self.counted = (counts.calls(), counts.over_capacity);
            self.record.seconds.push(seen);
        }
        let to = self.record.seconds.len();
        match self.record.phases.last_mut() {
            Some((last, range)) if *last == phase => range.end = to,
            _ => self.record.phases.push((phase, from..to)),
        }
    }

    /// Registers an instance of every service.
    pub(crate) fn put(&self, id: usize) {
        self.registry.put((0..SERVICES).map(|of| instance(of, id)));
    }

    /// Removes an instance of every service.
    pub(crate) fn remove(&self, id: usize) {
        (0..SERVICES).for_each(|of| self.registry.remove(&service(of), [&*id.to_string()]));
    }

    pub(crate) fn finish(self) -> Record {
        self.record
    }
}

/// Calls a second that the registry can serve: a fortieth of one for each client and service, and two small processes
/// that start in the same second.
pub(crate) fn capacity(clients: usize) -> u64 {
    (clients * SERVICES / 40).max(100) as u64
}
