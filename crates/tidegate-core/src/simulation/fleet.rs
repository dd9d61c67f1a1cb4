//! Nodes, the ledger, and messages between them on one virtual clock.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    time::Duration,
};

use super::{
    Call, Dice, Fault, Progress, Report, Scenario,
    judge::{Ideal, Judge},
};
use crate::{
    Instant,
    credit::{Account, Draft, Spend, Terms},
    lease::Node,
    ledger::{Ask, Book, Epoch, Micros, Reply},
};

/// How often a node looks after its accounts, in microseconds: as often as drivers do.
const PASS: Micros = 250_000;

/// What happens at a moment.
#[derive(Clone, Copy, Debug)]
enum Event {
    Fault(Fault),
    Question {
        from: Place,
        ask: Ask,
    },
    Answer {
        to: Place,
        ask: Ask,
        reply: Reply,
    },
    /// The question was not answered in time.
    Late {
        to: Place,
        seq: u64,
    },
    Exhausted(Place),
    Relieved(Place),
    /// A node notices that the ledger has begun a new epoch.
    Noticed(usize),
    /// A node looks after its accounts.
    Pass(usize),
}

/// A key on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    node: usize,
    key: u64,
}

#[derive(Debug, Default)]
struct Seat {
    account: Account,
    /// The question under way, and when it was sent.
    asked: Option<(Ask, Micros)>,
    waiting: VecDeque<Call>,
}

#[derive(Debug, Default)]
struct Key {
    book: Book,
    judge: Judge,
    ideal: Ideal,
    /// Until when its exhaustion was told.
    told: Micros,
}

/// A fleet in a run.
#[derive(Debug)]
pub struct Fleet {
    scenario: Scenario,
    terms: Terms,
    dice: Dice,
    now: Micros,
    /// What is to happen, by time and then by turn.
    events: BinaryHeap<Reverse<(Micros, u64)>>,
    happenings: BTreeMap<u64, Event>,
    turn: u64,
    ids: Vec<Node>,
    born: u64,
    asked: u64,
    seats: BTreeMap<Place, Seat>,
    keys: BTreeMap<u64, Key>,
    epoch: Epoch,
    away_until: Micros,
    report: Report,
}

impl Fleet {
    /// A fleet of `nodes` at rest.
    pub fn new(scenario: Scenario, nodes: usize) -> Self {
        let terms = Terms::of(&scenario.rule).round_trip(scenario.latency);
        let mut fleet = Self {
            terms,
            dice: Dice::new(scenario.seed),
            now: 0,
            events: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            turn: 0,
            ids: (1..=nodes as u64).map(Node).collect(),
            born: nodes as u64,
            asked: 0,
            seats: BTreeMap::new(),
            keys: BTreeMap::new(),
            epoch: Epoch { id: scenario.start, begun: 0 },
            away_until: 0,
            report: Report::default(),
            scenario,
        };
        for (at, fault) in fleet.scenario.faults.clone() {
            fleet.at(micros(at), Event::Fault(fault));
        }
        for node in 0..nodes {
            let first = (fleet.dice.unit() * PASS as f64) as Micros;
            fleet.at(first, Event::Pass(node));
        }
        fleet
    }

    /// Runs `calls`, which come in order, for `length`, and tells how far it is once in a window.
    pub fn run(
        mut self,
        calls: impl Iterator<Item = Call>,
        length: Duration,
        mut progress: impl FnMut(Progress),
    ) -> Report {
        let mut told = 0;
        for call in calls {
            self.until(call.at);
            self.now = self.now.max(call.at);
            if self.window() > told {
                told = self.window();
                let calls = self.report.local + self.report.waited;
                progress(Progress { passed: Duration::from_micros(self.now), calls });
            }
            self.arrive(call);
        }
        self.until(micros(length) + micros(self.scenario.patience));
        self.report.waits.sort_unstable();
        self.report
    }

    fn window(&self) -> usize {
        (self.now / self.scenario.rule.window().max(1)) as usize
    }

    fn at(&mut self, at: Micros, event: Event) {
        self.turn += 1;
        self.events.push(Reverse((at, self.turn)));
        self.happenings.insert(self.turn, event);
    }

    fn leg(&mut self) -> Micros {
        let mean = self.scenario.latency.as_micros() as f64 / 2.0;
        (mean * 0.8 + self.dice.apart(mean * 0.2)) as Micros
    }

    fn until(&mut self, then: Micros) {
        while let Some(Reverse((at, turn))) = self.events.peek().copied() {
            if at > then {
                break;
            }
            self.events.pop();
            self.now = at.max(self.now);
            if let Some(event) = self.happenings.remove(&turn) {
                self.happen(event);
            }
        }
    }

    /// A node's clock: not the store's.
    fn clock(&self) -> Instant {
        Instant::from_nanos(1_000_000_000 + self.now * 1000)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Fault(Fault::Away(time)) => self.away_until = self.now + micros(time),
            Event::Fault(Fault::Lost) => {
                self.keys.values_mut().for_each(|key| key.book = Book::default());
                self.epoch = Epoch::new(self.scenario.start + self.now);
                let most = self.scenario.notice.as_micros() as f64;
                for node in 0..self.ids.len() {
                    let after = (self.dice.unit() * most) as Micros;
                    self.at(self.now + after, Event::Noticed(node));
                }
            }
            Event::Fault(Fault::Dies(node)) => self.die(node),
            Event::Noticed(node) => {
                let (clock, epoch, terms) = (self.clock(), self.epoch.id, self.terms);
                self.each(node, |account| account.reassert(epoch, &terms, clock));
            }
            Event::Pass(node) => {
                let (clock, terms) = (self.clock(), self.terms);
                self.each(node, |account| {
                    let idle = |account: &mut Account| {
                        if account.is_idle(&terms, clock) { account.hand_back(clock) } else { None }
                    };
                    account.renew(&terms, clock).or_else(|| idle(account))
                });
                self.at(self.now + PASS, Event::Pass(node));
            }
            Event::Question { from, ask } => self.decide(from, ask),
            Event::Answer { to, ask, reply } => self.answered(to, &ask, &reply),
            Event::Late { to, seq } => self.late(to, seq),
            Event::Relieved(place) => {
                if let Some(seat) = self.seats.get_mut(&place) {
                    seat.account.replenished();
                }
            }
            Event::Exhausted(place) => {
                let (clock, terms) = (self.clock(), self.terms);
                let draft = self.seats.get_mut(&place).and_then(|seat| seat.account.exhausted(&terms, clock));
                self.send(place, draft);
            }
        }
    }

    /// Has the accounts of a node say what they want asked.
    fn each(&mut self, node: usize, mut ask: impl FnMut(&mut Account) -> Option<Draft>) {
        let here = Place { node, key: 0 }..=Place { node, key: u64::MAX };
        let here = self.seats.range_mut(here);
        let drafts: Vec<_> = here.map(|(place, seat)| (*place, ask(&mut seat.account))).collect();
        drafts.into_iter().for_each(|(place, draft)| self.send(place, draft));
    }

    fn die(&mut self, node: usize) {
        if let Some(id) = self.ids.get_mut(node) {
            self.born += 1;
            *id = Node(self.born);
            let here: Vec<_> = self.seats.keys().copied().filter(|place| place.node == node).collect();
            for place in here {
                let waiting = self.seats.remove(&place).map(|seat| seat.waiting).unwrap_or_default();
                waiting.iter().for_each(|call| self.refuse(call, true));
            }
        }
    }

    fn arrive(&mut self, call: Call) {
        self.report.offered += u64::from(call.cost);
        self.row().offered += u64::from(call.cost);
        let ideal = &mut self.keys.entry(call.key).or_default().ideal;
        if ideal.admits(&self.scenario.rule, self.scenario.start + self.now, call.cost) {
            self.report.ideal += u64::from(call.cost);
        }
        let place = Place { node: call.node, key: call.key };
        let (clock, terms) = (self.clock(), self.terms);
        let seat = self.seats.entry(place).or_default();
        match seat.account.spend(call.cost, &terms, clock) {
            Spend::Allow => self.admit(place, &call),
            Spend::AllowAndAsk(draft) => {
                self.admit(place, &call);
                self.send(place, Some(draft));
            }
            Spend::Wait(draft) => {
                seat.waiting.push_back(call);
                self.send(place, draft);
            }
            Spend::Deny { .. } | Spend::Impossible => self.refuse(&call, false),
        }
    }

    fn row(&mut self) -> &mut super::Window {
        let window = self.window();
        if self.report.windows.len() <= window {
            self.report.windows.resize(window + 1, super::Window::default());
        }
        &mut self.report.windows[window]
    }

    fn admit(&mut self, place: Place, call: &Call) {
        self.decided(call);
        self.report.admitted += u64::from(call.cost);
        self.row().admitted += u64::from(call.cost);
        let of = self.seats.get(&place).map_or(0, |seat| seat.account.window());
        let judge = &mut self.keys.entry(place.key).or_default().judge;
        let over = judge.note(&self.scenario.rule, self.scenario.start + self.now, of, call.cost);
        self.report.over = self.report.over.max(over);
    }

    fn refuse(&mut self, call: &Call, unanswered: bool) {
        self.decided(call);
        self.report.refused += u64::from(call.cost);
        self.report.unanswered += if unanswered { u64::from(call.cost) } else { 0 };
        self.row().refused += u64::from(call.cost);
    }

    fn decided(&mut self, call: &Call) {
        if self.now > call.at {
            self.report.waited += 1;
            self.report.waits.push(self.now - call.at);
        } else {
            self.report.local += 1;
        }
    }

    fn send(&mut self, place: Place, draft: Option<Draft>) {
        let Some(seat) = self.seats.get_mut(&place) else { return };
        let Some(draft) = draft else { return };
        let waiting: u32 = seat.waiting.iter().map(|call| call.cost).sum();
        let draft = draft.for_all(waiting);
        self.asked += 1;
        let ask = draft.send(self.ids[place.node], self.asked);
        seat.asked = Some((ask, self.now));
        self.report.asked += 1;
        self.row().asked += 1;
        let (leg, patience) = (self.leg(), micros(self.scenario.patience));
        self.at(self.now + leg, Event::Question { from: place, ask });
        self.at(self.now + patience, Event::Late { to: place, seq: ask.seq });
    }

    fn decide(&mut self, from: Place, ask: Ask) {
        if self.now < self.away_until {
            return;
        }
        let now = self.scenario.start + self.now;
        self.epoch = self.epoch.at(ask.seen.epoch, now);
        let key = self.keys.entry(from.key).or_default();
        let pause = if self.epoch.begun == 0 { 0 } else { micros(self.scenario.notice) };
        let epoch = Epoch { begun: self.epoch.begun + pause, ..self.epoch };
        let reply = key.book.grant(&self.scenario.rule, &ask, now, epoch);
        let retry_at = self.now + reply.retry_in;
        let is_short = reply.granted < ask.least.max(ask.need);
        let exhausted = is_short && (self.now >= key.told || key.told > retry_at);
        let relieved = !is_short && ask.back > 0 && reply.remaining > 0 && self.now < key.told;
        if exhausted || relieved {
            key.told = if exhausted { retry_at } else { 0 };
        }
        let leg = self.leg();
        self.at(self.now + leg, Event::Answer { to: from, ask, reply });
        if (exhausted || relieved) && reply.nodes > 1 && self.scenario.hints {
            for node in 0..self.ids.len() {
                let (leg, place) = (self.leg(), Place { node, ..from });
                let hint = if exhausted { Event::Exhausted(place) } else { Event::Relieved(place) };
                self.at(self.now + leg, hint);
            }
        }
    }

    fn answered(&mut self, to: Place, ask: &Ask, reply: &Reply) {
        let (clock, terms) = (self.clock(), self.terms);
        let Some(seat) = self.seats.get_mut(&to) else { return };
        let Some((_, sent)) = seat.asked.take_if(|(asked, _)| asked.seq == ask.seq) else { return };
        let sent_at = Instant::from_nanos(1_000_000_000 + sent * 1000);
        seat.account.replied(ask, reply, &terms, sent_at, clock);
        // Those that wait come back in order, until one has to wait again.
        let mut next = None;
        while let Some(seat) = self.seats.get_mut(&to)
            && let Some(call) = seat.waiting.front().copied()
        {
            let spend = seat.account.spend(call.cost, &terms, clock);
            if let Spend::Wait(draft) = spend {
                next = next.or(draft);
                break;
            }
            seat.waiting.pop_front();
            match spend {
                Spend::Allow => self.admit(to, &call),
                Spend::AllowAndAsk(draft) => {
                    next = Some(draft);
                    self.admit(to, &call);
                }
                Spend::Deny { .. } | Spend::Impossible | Spend::Wait(_) => self.refuse(&call, false),
            }
        }
        self.send(to, next);
    }

    fn late(&mut self, to: Place, seq: u64) {
        let Some(seat) = self.seats.get_mut(&to) else { return };
        let Some((ask, _)) = seat.asked.take_if(|(asked, _)| asked.seq == seq) else { return };
        seat.account.failed(&ask);
        let waiting = std::mem::take(&mut seat.waiting);
        waiting.iter().for_each(|call| self.refuse(call, true));
    }
}

fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
