//! A fleet that shares a limit, over a network that loses, delays, repeats and reorders, with clocks that drift, instances
//! that die and books that are lost: what is in use stays within the limit.

use std::time::Duration;

use proptest::{collection::vec, prelude::*, test_runner::TestCaseResult};
use tidegate_core::{
    Instant,
    lease::{Answer, Demand, Holder, Leases, MOST_DRIFT, Node},
};

const LIFE: Duration = Duration::from_secs(1);
const INSTANCES: usize = 5;

#[derive(Clone, Debug)]
enum Step {
    /// Milliseconds.
    Pass(u64),
    Ask {
        by: usize,
        wanted: u32,
    },
    /// Calls begin, as far as they may.
    Begin {
        by: usize,
        calls: u32,
    },
    /// Calls end, as far as there are.
    End {
        by: usize,
        calls: u32,
    },
    /// A message arrives, chosen from the newest on, and may arrive once more later.
    Deliver {
        back: usize,
        again: bool,
    },
    Lose {
        back: usize,
    },
    /// The process is gone, and another one starts.
    Die {
        by: usize,
    },
    /// It ends its calls and gives back what it has.
    GiveBack {
        by: usize,
    },
    /// The store loses its books, and begins to learn.
    BooksLost,
    /// The limit is raised.
    Raise(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let by = 0..INSTANCES;
    let back = prop_oneof![3 => Just(0usize), 2 => 0..4usize, 1 => 0..64usize];
    vec(
        prop_oneof![
            4 => prop_oneof![0..50u64, 100..1200u64].prop_map(Step::Pass),
            8 => (by.clone(), 0..60u32).prop_map(|(by, wanted)| Step::Ask { by, wanted }),
            6 => (by.clone(), 1..40u32).prop_map(|(by, calls)| Step::Begin { by, calls }),
            4 => (by.clone(), 1..40u32).prop_map(|(by, calls)| Step::End { by, calls }),
            16 => (back.clone(), any::<bool>()).prop_map(|(back, again)| Step::Deliver { back, again }),
            1 => back.prop_map(|back| Step::Lose { back }),
            1 => by.clone().prop_map(|by| Step::Die { by }),
            1 => by.prop_map(|by| Step::GiveBack { by }),
            1 => Just(Step::BooksLost),
            1 => (0..5u32).prop_map(Step::Raise),
        ],
        1..250,
    )
}

#[derive(Clone, Copy, Debug)]
enum Message {
    Ask(Node, Demand),
    GiveBack(Node, u64),
    Answer(Node, u64, Answer),
}

struct Instance {
    node: Node,
    holder: Holder,
    in_flight: u32,
    /// Millionths that its clock is slower than the store's.
    slow: u32,
}

impl Instance {
    fn new(node: u64, slow: u32) -> Self {
        Self { node: Node(node), holder: Holder::new(LIFE), in_flight: 0, slow }
    }

    /// What its own clock shows at `now` of the store's.
    fn clock(&self, now: Instant) -> Instant {
        let nanos = u128::from(now.as_nanos()) * 1_000_000 / u128::from(1_000_000 + self.slow);
        Instant::from_nanos(u64::try_from(nanos).expect("less than what it was"))
    }

    fn may_use(&self, now: Instant) -> u32 {
        self.holder.permits(self.clock(now)).max(self.in_flight)
    }
}

struct Fleet {
    limit: u32,
    leases: Leases,
    now: Instant,
    instances: Vec<Instance>,
    started: u64,
    network: Vec<Message>,
}

impl Fleet {
    fn new(limit: u32, slow: &[u32]) -> Self {
        let instances = slow.iter().enumerate().map(|(node, slow)| Instance::new(node as u64, *slow));
        Self {
            limit,
            leases: Leases::new(limit),
            now: Instant::EPOCH + 1000 * LIFE,
            instances: instances.collect(),
            started: slow.len() as u64,
            network: Vec::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Pass(millis) => self.now += Duration::from_millis(millis),
            Step::Ask { by, wanted } => {
                let instance = &mut self.instances[by];
                let clock = instance.clock(self.now);
                instance.holder.let_go(wanted, clock);
                let demand = instance.holder.ask(instance.in_flight, wanted, clock);
                self.network.push(Message::Ask(instance.node, demand));
            }
            Step::Begin { by, calls } => {
                let instance = &mut self.instances[by];
                let free =
                    instance.holder.permits(instance.clock(self.now)).saturating_sub(instance.in_flight);
                instance.in_flight += calls.min(free);
            }
            Step::End { by, calls } => {
                let instance = &mut self.instances[by];
                instance.in_flight = instance.in_flight.saturating_sub(calls);
            }
            Step::Deliver { back, again } => {
                if let Some(message) = self.take(back, again) {
                    self.arrive(message);
                }
            }
            Step::Lose { back } => {
                self.take(back, false);
            }
            Step::Die { by } => self.restart(by),
            Step::GiveBack { by } => {
                let instance = &mut self.instances[by];
                let seq = instance.holder.give_back();
                self.network.push(Message::GiveBack(instance.node, seq));
            }
            Step::BooksLost => self.leases = Leases::learning(self.limit, self.now + LIFE),
            Step::Raise(by) => {
                self.limit += by;
                self.leases.resize(self.limit);
            }
        }
        for instance in &mut self.instances {
            if instance.holder.until() <= instance.clock(self.now) {
                instance.in_flight = 0;
            }
        }
    }

    fn restart(&mut self, by: usize) {
        self.instances[by] = Instance::new(self.started, self.instances[by].slow);
        self.started += 1;
    }

    fn take(&mut self, back: usize, again: bool) -> Option<Message> {
        let at = self.network.len().checked_sub(back + 1)?;
        Some(if again { self.network[at] } else { self.network.remove(at) })
    }

    fn arrive(&mut self, message: Message) {
        match message {
            Message::Ask(node, demand) => {
                let answer = self.leases.lease(node, demand, LIFE, self.now);
                self.network.push(Message::Answer(node, demand.seq, answer));
            }
            Message::GiveBack(node, seq) => self.leases.give_back(node, seq),
            Message::Answer(node, seq, answer) => {
                if let Some(instance) = self.instances.iter_mut().find(|instance| instance.node == node) {
                    instance.holder.answered(seq, answer);
                }
            }
        }
    }

    fn check(&self) -> TestCaseResult {
        let used: u32 = self.instances.iter().map(|instance| instance.may_use(self.now)).sum();
        prop_assert!(used <= self.limit, "{} in use of {}", used, self.limit);
        Ok(())
    }
}

proptest! {
    #[test]
    fn what_a_fleet_may_use_never_exceeds_the_limit_whatever_the_network_does(
        limit in 1..100u32, slow in vec(0..=MOST_DRIFT, INSTANCES), steps in steps(),
    ) {
        let mut fleet = Fleet::new(limit, &slow);
        for step in &steps {
            fleet.step(step);
            fleet.check()?;
        }
    }

    #[test]
    fn a_fleet_gets_what_it_wants_once_the_network_is_calm_again(
        limit in 50..100u32, slow in vec(0..=MOST_DRIFT, INSTANCES), steps in steps(),
    ) {
        let mut fleet = Fleet::new(limit, &slow);
        for step in &steps {
            fleet.step(step);
        }
        fleet.network.clear();
        // The leases of the dead run out, and calls end.
        fleet.step(&Step::Pass(1100));
        for _ in 0..2 {
            for by in 0..INSTANCES {
                fleet.step(&Step::End { by, calls: u32::MAX });
                fleet.step(&Step::Ask { by, wanted: 10 });
                fleet.step(&Step::Deliver { back: 0, again: false });
                fleet.step(&Step::Deliver { back: 0, again: false });
            }
        }
        for instance in &fleet.instances {
            prop_assert_eq!(instance.may_use(fleet.now), 10);
        }
    }
}
