//! A fleet, its ledger and the network between them, on one true clock: the store's.

use std::collections::VecDeque;

use proptest::test_runner::TestCaseError;
use tidegate_core::{
    Instant,
    credit::{Account, Draft, Spend, Terms},
    lease::Node,
    ledger::{Ask, Book, Epoch, Law, Mark, Micros, Reply, Rule, Seen},
};

use super::{
    check::{self, Allowance, Spent},
    history::{Kind, Lost, Message, Op, rule},
};

/// The store's clock at the start.
const START: Micros = 1_780_056_000_000_000;
/// How much faster the store's clock may run than that of a node which is a percent slow.
const DRIFT: u32 = 10_102;

#[derive(Debug)]
struct Member {
    id: Node,
    seq: u64,
    drift: i64,
    account: Account,
    /// The question under way, and when it was sent by the node's clock.
    asked: Option<(Ask, Instant)>,
    /// What the latest calls paid, of which window, and where that is noted.
    latest: VecDeque<(u32, Micros, usize)>,
    /// Waits for the answer.
    waiting: u32,
}

pub(crate) struct World {
    kind: Kind,
    rule: Rule,
    terms: Terms,
    now: Micros,
    members: Vec<Member>,
    born: u64,
    network: Vec<Message>,
    copies: Vec<Ask>,
    book: Book,
    epoch: Epoch,
    snapshot: Book,
    spent: Vec<Spent>,
    allowances: Vec<Allowance>,
    windows: Vec<Micros>,
    limits: Vec<(Micros, u32)>,
    /// What nodes were told, those that died included.
    told: Vec<Seen>,
    lost: Option<Lost>,
}

impl World {
    pub(crate) fn new(kind: Kind, limit: u32, drifts: [i64; 5]) -> Self {
        let rule = rule(kind, limit);
        let mut world = Self {
            kind,
            rule,
            terms: Terms::of(&rule).drift(DRIFT),
            now: START + 123_456,
            members: Vec::new(),
            born: 0,
            network: Vec::new(),
            copies: Vec::new(),
            book: Book::default(),
            epoch: Epoch { id: START, begun: 0 },
            snapshot: Book::default(),
            spent: Vec::new(),
            allowances: Vec::new(),
            windows: Vec::new(),
            limits: vec![(0, limit)],
            told: Vec::new(),
            lost: None,
        };
        for drift in drifts {
            let member = world.member(drift);
            world.members.push(member);
        }
        world
    }

    fn member(&mut self, drift: i64) -> Member {
        self.born += 1;
        Member {
            id: Node(self.born),
            seq: 0,
            drift,
            account: Account::default(),
            asked: None,
            latest: VecDeque::new(),
            waiting: 0,
        }
    }

    fn clock(&self, node: usize) -> Instant {
        let passed = (self.now - START) as i64 * 1000;
        let drifted = passed + passed * self.members[node].drift / 1_000_000;
        Instant::from_nanos(5_000_000_000 * (node as u64 + 1) + drifted as u64)
    }

    pub(crate) fn step(&mut self, op: Op) {
        match op {
            Op::Call { node, cost } => self.call(usize::from(node), cost),
            Op::Rush { node, calls } => (0..calls).for_each(|_| self.call(usize::from(node), 1)),
            Op::Deliver(which) => {
                if let Some(at) = self.pick(which) {
                    let message = self.network.remove(at);
                    self.deliver(message);
                }
            }
            Op::Repeat(which) => {
                if let Some(at) = self.pick(which) {
                    self.network.push(self.network[at]);
                }
            }
            Op::Drop(which) => {
                if let Some(at) = self.pick(which) {
                    self.network.remove(at);
                }
            }
            Op::Pass(micros) => {
                let then = self.now + u64::from(micros);
                if then >= self.epoch.begun + self.rule.life() {
                    self.repair();
                }
                self.now = then;
            }
            Op::Hoard { node, units } => {
                let now = self.clock(usize::from(node));
                let spend = self.members[usize::from(node)].account.spend(1, &self.terms, now);
                match spend {
                    Spend::Wait(Some(draft)) => {
                        self.send(usize::from(node), Some(draft.for_all(units)));
                        self.flow();
                    }
                    Spend::AllowAndAsk(draft) => {
                        self.allow(usize::from(node), 1);
                        self.send(usize::from(node), Some(draft));
                    }
                    Spend::Allow => self.allow(usize::from(node), 1),
                    Spend::Wait(None) | Spend::Deny { .. } | Spend::Impossible => {}
                }
            }
            Op::SpendAll(node) => {
                let now = self.clock(usize::from(node));
                let hand = self.members[usize::from(node)].account.in_hand(now);
                (0..hand).for_each(|_| self.call(usize::from(node), 1));
            }
            Op::HandBackTwice(node) => {
                self.step(Op::HandBack(node));
                self.copies.extend(self.members[usize::from(node)].asked.map(|(ask, _)| ask));
            }
            Op::Late(which) => {
                if let Some(ask) = self.copies.get(usize::from(which) % self.copies.len().max(1)) {
                    self.deliver(Message::Question(*ask));
                }
            }
            Op::Saturate => {
                for round in 0..3 * self.members.len() {
                    (0..20).for_each(|_| self.call(round % self.members.len(), 1));
                    self.flow();
                }
            }
            Op::ToEdge { of, by } => {
                let life = self.rule.life();
                let edge = match of % 6 {
                    0 => self.now - self.now % 1_000_000 + 1_000_000,
                    1 => self.now - self.now % life + life,
                    2 => self.now + life,
                    3 => self.now + life * 9 / 10,
                    4 => self.now - self.now % life + 1_000_000,
                    _ => self.now + 1_000_000,
                };
                let then = edge.saturating_add_signed(i64::from(by)).max(self.now);
                self.step(Op::Pass(u32::try_from(then - self.now).expect("an edge is near")));
            }
            Op::Reassert(node) => self.reassert(usize::from(node)),
            Op::GiveUp(node) => self.give_up(usize::from(node)),
            Op::HandBack(node) => {
                let now = self.clock(usize::from(node));
                let draft = self.members[usize::from(node)].account.hand_back(now);
                self.send(usize::from(node), draft);
            }
            Op::Exhausted(node) => {
                let now = self.clock(usize::from(node));
                let draft = self.members[usize::from(node)].account.exhausted(&self.terms, now);
                self.send(usize::from(node), draft);
            }
            Op::Refund(node) => {
                let now = self.clock(usize::from(node));
                let member = &mut self.members[usize::from(node)];
                if let Some((cost, window, at)) = member.latest.pop_front() {
                    member.account.refund(cost, window, now);
                    self.spent[at].cost = 0;
                }
            }
            Op::Owe { node, beyond } => {
                let now = self.clock(usize::from(node));
                let account = &mut self.members[usize::from(node)].account;
                account.settle(0, beyond, account.window(), now);
            }
            Op::Die(node) => {
                let drift = self.members[usize::from(node)].drift;
                self.members[usize::from(node)] = self.member(drift);
            }
            Op::Snapshot => self.snapshot = self.book.clone(),
            Op::Lose => self.lose(Book::default()),
            Op::SetBack => self.lose(self.snapshot.clone()),
            Op::Limit(limit) => {
                self.rule = rule(self.kind, limit);
                self.terms = Terms::of(&self.rule).drift(DRIFT);
                self.limits.push((self.now, limit));
                self.members.iter_mut().for_each(|member| member.account.replenished());
            }
        }
    }

    /// Everything under way arrives in order, in a tenth of a millisecond each.
    fn flow(&mut self) {
        while !self.network.is_empty() {
            let message = self.network.remove(0);
            self.step(Op::Pass(100));
            self.deliver(message);
        }
    }

    fn pick(&self, which: u8) -> Option<usize> {
        (!self.network.is_empty()).then(|| usize::from(which) % self.network.len())
    }

    fn call(&mut self, node: usize, cost: u32) {
        let now = self.clock(node);
        let spend = self.members[node].account.spend(cost, &self.terms, now);
        match spend {
            Spend::Allow => self.allow(node, cost),
            Spend::AllowAndAsk(draft) => {
                self.allow(node, cost);
                self.send(node, Some(draft));
            }
            Spend::Wait(draft) => {
                let member = &mut self.members[node];
                member.waiting = (member.waiting + cost).min(50);
                let waiting = member.waiting;
                self.send(node, draft.map(|draft| draft.for_all(waiting)));
            }
            Spend::Deny { retry_at } => assert!(retry_at > now),
            Spend::Impossible => assert!(u64::from(cost) > self.rule.largest()),
        }
    }

    fn allow(&mut self, node: usize, cost: u32) {
        let window = self.members[node].account.window();
        let latest = &mut self.members[node].latest;
        latest.push_back((cost, window, self.spent.len()));
        if latest.len() > 30 {
            latest.pop_front();
        }
        self.spent.push(Spent { at: self.now, cost });
    }

    fn send(&mut self, node: usize, draft: Option<Draft>) {
        let Some(draft) = draft else { return };
        let sent_at = self.clock(node);
        let member = &mut self.members[node];
        member.seq += 1;
        let ask = draft.send(member.id, member.seq);
        assert!(member.asked.is_none(), "one question at a time");
        member.asked = Some((ask, sent_at));
        self.network.push(Message::Question(ask));
    }

    fn give_up(&mut self, node: usize) {
        let member = &mut self.members[node];
        if let Some((ask, _)) = member.asked.take() {
            member.account.failed(&ask);
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Question(ask) => {
                assert!(ask.seen.epoch <= self.epoch.id, "epochs grow");
                if let Some(lost) = self.lost.as_mut().filter(|lost| ask.seen.epoch == lost.epoch) {
                    lost.heard.push(ask.seen.mark);
                }
                let reply = self.book.grant(&self.rule, &ask, self.now, self.epoch);
                if reply.granted > 0 && !self.windows.contains(&reply.of) {
                    self.windows.push(reply.of);
                }
                self.network.push(Message::Answer { ask, reply });
            }
            Message::Answer { ask, reply } => self.answer(ask, reply),
        }
    }

    fn answer(&mut self, ask: Ask, reply: Reply) {
        let Some(node) = self.members.iter().position(|member| member.id == ask.node) else { return };
        let now = self.clock(node);
        let member = &mut self.members[node];
        let Some((_, sent_at)) = member.asked.take_if(|(asked, _)| asked.seq == ask.seq) else { return };
        member.account.replied(&ask, &reply, &self.terms, sent_at, now);
        self.told.push(Seen { epoch: reply.epoch, mark: reply.mark });
        // Whoever waited comes back, a unit each.
        let waited = std::mem::take(&mut member.waiting);
        (0..waited).for_each(|_| self.call(node, 1));
    }

    /// The ledger finds itself with `left`: a new epoch begins. All who live say what they saw before its pause is over.
    fn lose(&mut self, left: Book) {
        self.repair();
        self.now += 1;
        self.lost = Some(Lost { at: self.now, epoch: self.epoch.id, heard: Vec::new() });
        self.book = left;
        self.epoch = Epoch::new(self.now);
    }

    fn reassert(&mut self, node: usize) {
        let now = self.clock(node);
        let draft = self.members[node].account.reassert(self.epoch.id, &self.terms, now);
        self.send(node, draft);
        if draft.is_some() {
            let question = self.network.pop().expect("it was just sent");
            self.deliver(question);
        }
    }

    /// Everybody who has not yet says what it saw; what nobody is left to tell may be granted again.
    fn repair(&mut self) {
        if self.lost.is_none() {
            return;
        }
        for node in 0..self.members.len() {
            if self.members[node].asked.is_some() && self.members[node].account.seen_epoch() != self.epoch.id
            {
                self.give_up(node);
            }
            self.reassert(node);
        }
        let Some(lost) = self.lost.take() else { return };
        let furthest = |marks: &mut dyn Iterator<Item = Mark>| {
            marks.map(|mark| self.strength(mark)).max().unwrap_or_default()
        };
        let told =
            furthest(&mut self.told.iter().filter(|seen| seen.epoch == lost.epoch).map(|seen| seen.mark));
        let heard = furthest(&mut lost.heard.iter().copied());
        let unheard = if told.0 == heard.0 { told.1.saturating_sub(heard.1) } else { told.1 };
        if told > heard {
            self.allowances.push(Allowance { at: lost.at, units: self.in_units(unheard) });
        }
    }

    /// Which of two marks tells of more: a later window first, then the level.
    fn strength(&self, mark: Mark) -> (u64, u64) {
        match self.rule.law() {
            Law::Bucket { .. } | Law::Sliding { .. } => (0, mark.level),
            Law::Aligned { .. } | Law::FirstCall { .. } | Law::Month => (mark.of, mark.level),
        }
    }

    /// A difference of levels in units.
    fn in_units(&self, level: u64) -> u64 {
        match self.rule.law() {
            Law::Bucket { count, period, .. } => (level * count).div_ceil(period),
            Law::Aligned { .. } | Law::FirstCall { .. } | Law::Month | Law::Sliding { .. } => level,
        }
    }

    pub(crate) fn check(&mut self) -> Result<(), TestCaseError> {
        self.repair();
        let limit = |from: Micros, to: Micros| {
            let before = self.limits.iter().rev().find(|(at, _)| *at < from).map_or(0, |(_, limit)| *limit);
            let within =
                self.limits.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, limit)| *limit);
            u64::from(within.max().unwrap_or(0).max(before))
        };
        let period = 1_000_000;
        match self.kind {
            Kind::Aligned | Kind::LongAligned => {
                let starts = self.spent.iter().map(|spent| spent.at - spent.at % period);
                check::windows(starts, period, &self.spent, &self.allowances, limit)
            }
            Kind::FirstCall => {
                check::windows(self.windows.iter().copied(), period, &self.spent, &self.allowances, limit)
            }
            Kind::Sliding => {
                // Credit may be spent in a slice after the one in which the limit was lowered.
                let starts = self.spent.iter().map(|spent| spent.at);
                let higher = |from: Micros, to: Micros| limit(from - period / 10, to);
                check::windows(starts, period, &self.spent, &self.allowances, higher)
            }
            // While the rate changes: of the highest.
            Kind::Bucket => {
                let highest = self.limits.iter().map(|(_, limit)| *limit).max().unwrap_or(0);
                check::envelope(&rule(self.kind, highest), &self.spent, &self.allowances)
            }
        }
    }
}
