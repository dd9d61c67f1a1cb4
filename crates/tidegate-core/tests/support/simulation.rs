//! Clients with a limit each, and one upstream that they overload: discrete events on virtual time, from a seed.
#![allow(dead_code, reason = "the test and the plots each use a part")]

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use tidegate_core::{
    Instant, Outcome,
    limit::{Adaptive, Sample},
};

/// Calls the upstream works on at once.
pub(crate) const WORKERS: usize = 20;
/// What a call takes without load, on average.
pub(crate) const SERVICE: Duration = Duration::from_millis(20);
/// Calls a second the upstream can serve at best.
pub(crate) const CAPACITY: f64 = 1000.0;
/// When callers give up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(1);

/// What happens to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Nothing.
    Steady,
    /// Ten times slower in the middle third.
    Slow,
    /// Answers nothing in the second of its six parts.
    Hung,
    /// Four times slower every other two seconds.
    Flapping,
    /// Begins ten times slower and becomes faster.
    Recovering,
}

pub(crate) const SCENARIOS: [Scenario; 5] =
    [Scenario::Steady, Scenario::Slow, Scenario::Hung, Scenario::Flapping, Scenario::Recovering];

impl Scenario {
    /// How much slower a call is that begins at `part` (0 to 1) of the run; `None` when it hangs.
    fn slowness(self, part: f64, seconds: f64) -> Option<f64> {
        match self {
            Self::Steady => Some(1.0),
            Self::Slow if (1.0 / 3.0..2.0 / 3.0).contains(&part) => Some(10.0),
            Self::Hung if (1.0 / 6.0..2.0 / 6.0).contains(&part) => None,
            Self::Slow | Self::Hung => Some(1.0),
            Self::Flapping if (seconds / 2.0) as u64 % 2 == 1 => Some(4.0),
            Self::Flapping => Some(1.0),
            Self::Recovering => Some((10.0 - 18.0 * part).max(1.0)),
        }
    }
}

/// How clients limit themselves.
pub(crate) enum Policy {
    /// Not at all.
    None,
    /// At so many calls in flight, over all clients.
    Fixed(u32),
    /// By a law for each client.
    Adaptive(Box<dyn Fn() -> Adaptive>),
}

pub(crate) struct Run {
    pub(crate) scenario: Scenario,
    pub(crate) clients: usize,
    /// Offered load, in multiples of [`CAPACITY`].
    pub(crate) load: f64,
    pub(crate) length: Duration,
    pub(crate) seed: u64,
}

/// What a run showed.
#[derive(Default)]
pub(crate) struct Result {
    /// Calls answered before their deadline.
    pub(crate) good: u64,
    /// Each 100 ms: the limits of all clients together, and calls answered in time.
    pub(crate) trace: Vec<(u32, u32)>,
    /// Most calls at the upstream.
    pub(crate) peak: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival { client: usize },
    Served { call: usize },
    GivenUp { call: usize },
    Tick,
}

struct Call {
    client: usize,
    began: u64,
    over: bool,
}

enum Limit {
    Number(u32),
    Adaptive(Adaptive),
}

struct Client {
    limit: Limit,
    in_flight: u32,
}

impl Client {
    fn limit(&self) -> u32 {
        match &self.limit {
            Limit::Number(limit) => *limit,
            Limit::Adaptive(adaptive) => adaptive.limit(),
        }
    }

    fn ended(&mut self, outcome: Outcome, lasted: u64, now: u64) {
        let sample = Sample { outcome, lasted: Duration::from_nanos(lasted), in_flight: self.in_flight };
        self.in_flight -= 1;
        if let Limit::Adaptive(adaptive) = &mut self.limit {
            adaptive.record(&sample, Instant::from_nanos(now));
        }
    }
}

/// xorshift64*: enough for a simulation, the same on every machine.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

impl Run {
    pub(crate) fn go(&self, policy: &Policy) -> Result {
        let mut world = World::new(self, policy);
        while let Some(Reverse((now, event))) = world.events.pop() {
            if now > world.end {
                break;
            }
            match event {
                Event::Arrival { client } => world.arrival(client, now),
                Event::Served { call } => world.served(call, now),
                Event::GivenUp { call } => world.given_up(call, now),
                Event::Tick => world.tick(now),
            }
        }
        world.result
    }
}

struct World<'a> {
    run: &'a Run,
    end: u64,
    random: Random,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    clients: Vec<Client>,
    calls: Vec<Call>,
    working: usize,
    waiting: VecDeque<usize>,
    result: Result,
    good_in_tick: u32,
}

const TICK: u64 = 100_000_000;

impl<'a> World<'a> {
    fn new(run: &'a Run, policy: &Policy) -> Self {
        let client = |n: usize| Client {
            limit: match policy {
                Policy::None => Limit::Number(u32::MAX),
                // What does not divide goes to the first ones.
                Policy::Fixed(all) => {
                    let (each, rest) = (all / run.clients as u32, all % run.clients as u32);
                    Limit::Number(each + u32::from((n as u32) < rest))
                }
                Policy::Adaptive(make) => Limit::Adaptive(make()),
            },
            in_flight: 0,
        };
        let mut world = Self {
            run,
            end: run.length.as_nanos() as u64,
            random: Random(run.seed | 1),
            events: BinaryHeap::from([Reverse((TICK, Event::Tick))]),
            clients: (0..run.clients).map(client).collect(),
            calls: Vec::new(),
            working: 0,
            waiting: VecDeque::new(),
            result: Result::default(),
            good_in_tick: 0,
        };
        for client in 0..run.clients {
            world.next_arrival(client, 0);
        }
        world
    }

    fn at(&mut self, time: u64, event: Event) {
        self.events.push(Reverse((time, event)));
    }

    fn next_arrival(&mut self, client: usize, now: u64) {
        let mean = self.run.clients as f64 / (self.run.load * CAPACITY);
        let gap = self.random.exponential(mean);
        self.at(now + (gap * 1e9) as u64 + 1, Event::Arrival { client });
    }

    fn arrival(&mut self, client: usize, now: u64) {
        self.next_arrival(client, now);
        let limit = self.clients[client].limit();
        if self.clients[client].in_flight >= limit {
            return;
        }
        self.clients[client].in_flight += 1;
        let call = self.calls.len();
        self.calls.push(Call { client, began: now, over: false });
        self.at(now + DEADLINE.as_nanos() as u64, Event::GivenUp { call });
        self.waiting.push_back(call);
        self.work(now);
        self.result.peak = self.result.peak.max(self.working + self.waiting.len());
    }

    fn work(&mut self, now: u64) {
        while self.working < WORKERS
            && let Some(call) = self.waiting.pop_front()
        {
            self.working += 1;
            let part = now as f64 / self.end as f64;
            let mean = SERVICE.as_secs_f64();
            let takes = mean / 2.0 + self.random.exponential(mean / 2.0);
            let done = match self.run.scenario.slowness(part, now as f64 / 1e9) {
                Some(slowness) => now + (takes * slowness * 1e9) as u64,
                None => (self.end as f64 * 2.0 / 6.0 + takes * 1e9) as u64,
            };
            self.at(done, Event::Served { call });
        }
    }

    /// The upstream works to the end on what its caller gave up: that is how overload collapses.
    fn served(&mut self, call: usize, now: u64) {
        self.working -= 1;
        let Call { client, began, over } = self.calls[call];
        if !over {
            self.calls[call].over = true;
            self.clients[client].ended(Outcome::Success, now - began, now);
            self.result.good += 1;
            self.good_in_tick += 1;
        }
        self.work(now);
    }

    fn given_up(&mut self, call: usize, now: u64) {
        let Call { client, began, over } = self.calls[call];
        if !over {
            self.calls[call].over = true;
            self.clients[client].ended(Outcome::Abandoned, now - began, now);
        }
    }

    fn tick(&mut self, now: u64) {
        let limits = self.clients.iter().fold(0u32, |sum, client| sum.saturating_add(client.limit()));
        self.result.trace.push((limits, std::mem::take(&mut self.good_in_tick)));
        self.at(now + TICK, Event::Tick);
    }
}
