//! The ledger of credit in Redis: one script an ask, atomic on one server, equal to `tidegate_core::ledger::Book`.

use std::{
    collections::BTreeSet,
    iter,
    pin::pin,
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use redis::{Cmd, Value};
use tidegate::{
    clock,
    fleet::{Adjusted, Adjustment, Hint, Ledger, LedgerError, MOST_PARTS, Subject},
    throttle::Key,
};
use tidegate_core::ledger::{Ask, Law, Mark, Micros, Reply, Rule, Seen, Standing};
use tokio::{
    sync::broadcast,
    time::{Instant, timeout},
};

use crate::{
    Client, Namespace, StoreError,
    client::{Late, Work},
    hints::channel,
    keys::bucket_of,
    link::Up,
    script::Script,
    watch::{AT_ONCE, Watched},
};

#[cfg(test)]
mod equality;
#[cfg(test)]
mod holding;
mod outbox;

pub(crate) use outbox::Outbox;
use outbox::{Question, Route};

/// A question that comes to the server so many deadlines after it was sent is answered to nobody: more than one, as the
/// server's clock is known by its answers, which take time as well.
const DEADLINES: u32 = 2;

/// How often a ledger that waits for what a node has to tell is asked to wait on: well within the shortest pause.
const HELD_AGAIN: Duration = Duration::from_millis(250);

/// The arithmetic of one law, between what all laws share.
macro_rules! script {
    ($law:literal) => {
        LazyLock::new(|| {
            Script::new(concat!(
                include_str!("ledger/epoch.lua"),
                include_str!("ledger/due.lua"),
                include_str!("ledger/head.lua"),
                include_str!($law),
                include_str!("ledger/book.lua")
            ))
        })
    };
}

static WINDOWS: LazyLock<Script> = script!("ledger/windows.lua");
static SLICES: LazyLock<Script> = script!("ledger/slices.lua");
static BUCKET: LazyLock<Script> = script!("ledger/bucket.lua");

/// The script that counts as a rule does.
fn script_of(rule: &Rule) -> &'static Script {
    match rule.law() {
        Law::Aligned { .. } | Law::FirstCall { .. } | Law::Month => &WINDOWS,
        Law::Sliding { .. } => &SLICES,
        Law::Bucket { .. } => &BUCKET,
    }
}

/// A ledger of credit in a store, shared by all who use its namespace.
///
/// A script reads the server's clock, books what it is told and grants what it can; questions that are ready at the same
/// time share one. Beside the accounts of
/// each bucket stands which ledger it is: the process of the server that wrote it and when it began. Another process,
/// or none there, means that grants may have been lost, and a new epoch begins: see
/// [`Epoch`](tidegate_core::ledger::Epoch). Every key has a time to live.
#[derive(Clone)]
pub struct RedisLedger(Arc<Watched>);

impl RedisLedger {
    /// Makes the ledger of a namespace. Needs a tokio runtime, on which it watches which ledger it is and listens for
    /// hints, as long as a clone lives.
    pub fn new(client: Client, namespace: Namespace) -> Self {
        Self(Watched::new(client, namespace).start())
    }

    /// The store it is in.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    pub(crate) const fn of(watched: Arc<Watched>) -> Self {
        Self(watched)
    }

    pub(crate) const fn watched(&self) -> &Arc<Watched> {
        &self.0
    }

    /// The prefix of its keys.
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    async fn call(
        &self,
        verb: &str,
        subject: Subject<'_>,
        rule: &Rule,
        seen_as: &Seeing<'_>,
        own: impl Fn(&mut Cmd) + Sync,
    ) -> Result<Answer, StoreError> {
        self.call_with(script_of(rule), verb, subject, rule, seen_as, own).await
    }

    async fn call_with(
        &self,
        script: &Script,
        verb: &str,
        subject: Subject<'_>,
        rule: &Rule,
        seen_as: &Seeing<'_>,
        own: impl Fn(&mut Cmd) + Sync,
    ) -> Result<Answer, StoreError> {
        let (account, name) = self.names(subject, rule);
        let own = |command: &mut Cmd| {
            command.arg(&name);
            own(command);
        };
        self.run(script, verb, bucket_of(subject.key), rule, seen_as, &[account.as_str()], own, None).await
    }

    /// The key of a subject's account, and the subject as hints name it.
    fn names(&self, subject: Subject<'_>, rule: &Rule) -> (String, String) {
        let (bits, limit) = (subject.key.bits(), subject.limit);
        let account = format!("{}:{limit}:{bits:032x}", rule.law());
        (self.0.namespace.key(bucket_of(subject.key), &account), format!("{bits:032x} {limit}"))
    }

    #[expect(clippy::too_many_arguments, reason = "a script takes so much")]
    async fn run(
        &self,
        script: &Script,
        verb: &str,
        bucket: u8,
        rule: &Rule,
        seen_as: &Seeing<'_>,
        accounts: &[&str],
        own: impl Fn(&mut Cmd) + Sync,
        late: Option<Late<'_>>,
    ) -> Result<Answer, StoreError> {
        let numbers = match rule.law() {
            Law::Aligned { period } => [0, period, 0, 0],
            Law::FirstCall { period } => [1, period, 0, 0],
            Law::Month => [2, 0, 0, 0],
            Law::Sliding { slice, slices } => [slice, slices, 0, 0],
            Law::Bucket { count, period, burst, refill } => [count, period, burst, refill],
        };
        let Watched { client, namespace, .. } = &*self.0;
        let epoch = self.0.marker(bucket);
        let keys: Vec<&[u8]> =
            iter::once(epoch.as_str()).chain(accounts.iter().copied()).map(str::as_bytes).collect();
        let arguments = |command: &mut Cmd, up: &Up| {
            command.arg(verb).arg(seen_as.run_id.unwrap_or(&up.checked.run_id));
            match seen_as.clock {
                Some(clock) => command.arg(clock),
                None => command.arg(""),
            };
            let [limit, divisor] = [rule.limit(), rule.divisor()].map(u64::from);
            let shared = [limit, rule.largest(), rule.window(), rule.life(), rule.prohibit(), divisor];
            for number in shared.into_iter().chain(numbers).chain([rule.memory()]) {
                command.arg(number);
            }
            own(command);
            match self.due(up, seen_as) {
                Some(due) => command.arg(due),
                None => command.arg(""),
            };
            let (publish, channel) = channel(namespace, bucket, up, client);
            command.arg(publish).arg(channel);
        };
        let work = Work::Script { script, keys: &keys, arguments: &arguments };
        Ok(Answer(client.run_and_hear(namespace.slot(bucket), &work, late).await?))
    }

    /// Until when a question that is sent now is of use, by the server's clock, if that is known.
    fn due(&self, up: &Up, seen_as: &Seeing<'_>) -> Option<Micros> {
        let shown = match seen_as.clock {
            Some(_) => None,
            None => up.clock.at(clock::now()),
        };
        let patience = self.0.client.settings().deadline * DEADLINES;
        Some(shown?.saturating_add(u64::try_from(patience.as_micros()).unwrap_or(Micros::MAX)))
    }

    fn question(&self, subject: Subject<'_>, rule: &Rule, ask: &Ask) -> Question {
        let (account, name) = self.names(subject, rule);
        Question { account, name, ask: *ask }
    }

    /// Asks them all in one script, one after the other; the answers are in their order.
    async fn grant_all(
        &self,
        route: Route,
        questions: &[Question],
        seen_as: &Seeing<'_>,
        late: Option<Late<'_>>,
    ) -> Result<Vec<Reply>, StoreError> {
        let Route { rule, bucket } = route;
        let accounts: Vec<&str> = questions.iter().map(|question| question.account.as_str()).collect();
        let own = |command: &mut Cmd| {
            for Question { name, ask, .. } in questions {
                // As a text: a node's number may be more than a double holds.
                command.arg(name).arg(format!("{:x}", ask.node.0)).arg(ask.seq);
                for number in [ask.least, ask.need, ask.want, ask.back] {
                    command.arg(number);
                }
                command.arg(ask.of).arg(ask.debt);
                command.arg(ask.seen.epoch).arg(ask.seen.mark.of).arg(ask.seen.mark.level);
            }
        };
        let answer =
            self.run(script_of(&rule), "grant", bucket, &rule, seen_as, &accounts, own, late).await?;
        answer.replies(questions)
    }

    /// Asks, with what this node saw last, and remembers the answer.
    async fn ask_and_learn(&self, subject: Subject<'_>, rule: &Rule, ask: &Ask) -> Result<Reply, StoreError> {
        let Watched { memory, .. } = &*self.0;
        let bucket = bucket_of(subject.key);
        let seen = memory.seen(subject.limit, subject.key, ask.seen, Instant::now());
        let own = Seen { epoch: self.0.own(bucket, seen.epoch), mark: seen.mark };
        let mut reply = self.put(subject, rule, &Ask { seen: own, ..*ask }).await?;
        reply.epoch = self.0.note(bucket, reply.epoch);
        memory.learn(subject.limit, subject.key, rule, ask, &reply, Instant::now());
        Ok(reply)
    }

    /// Tells a ledger that lost something what this node saw of it, and has it wait for that. Whether all is told.
    pub(crate) async fn reassert(&self) -> bool {
        let lost = self.0.memory.lost(Instant::now(), |key, shown| self.0.is_lost(key, shown));
        let many = lost.len() > AT_ONCE;
        let buckets: BTreeSet<u8> = lost.iter().map(|what| self.0.ledger_of(bucket_of(what.key))).collect();
        let told = lost.into_iter().map(|what| async move {
            let subject = Subject { limit: &what.limit, key: what.key };
            self.ask_and_learn(subject, &what.rule, &what.ask).await.is_ok()
        });
        // Some places are left for those who ask.
        let at_once = AT_ONCE.min(self.0.client.settings().in_flight.div_ceil(2));
        let telling = stream::iter(told).buffer_unordered(at_once).fold(true, async |all, is| all && is);
        let mut telling = pin!(telling);
        loop {
            if many {
                self.0.hold(buckets.iter().copied()).await;
            }
            if let Ok(is_all) = timeout(HELD_AGAIN, &mut telling).await {
                return is_all;
            }
        }
    }

    async fn look(
        &self,
        subject: Subject<'_>,
        rule: &Rule,
        seen_as: &Seeing<'_>,
    ) -> Result<Standing, StoreError> {
        let answer = self.call("inspect", subject, rule, seen_as, |_| {}).await?;
        Ok(standing(answer.numbers()?))
    }

    async fn change(
        &self,
        subject: Subject<'_>,
        rule: &Rule,
        adjustment: Adjustment,
        seen_as: &Seeing<'_>,
    ) -> Result<Adjusted, StoreError> {
        let (verb, units) = match adjustment {
            Adjustment::Relieve(units) => ("relieve", units),
            Adjustment::Charge(units) => ("charge", units),
            Adjustment::Reset => ("reset", 0),
        };
        // More than any account holds, and still exact.
        let units = units.min(1 << 52);
        let answer = self
            .call(verb, subject, rule, seen_as, |command| {
                command.arg(units);
            })
            .await?;
        let [a, b, c, d, e, f, rest @ ..]: [u64; 12] = answer.numbers()?;
        Ok(Adjusted { before: standing([a, b, c, d, e, f]), after: standing(rest) })
    }
}

impl Ledger for RedisLedger {
    async fn ask(&self, subject: Subject<'_>, rule: &Rule, ask: &Ask) -> Result<Reply, LedgerError> {
        Ok(self.ask_and_learn(subject, rule, ask).await?)
    }

    async fn inspect(&self, subject: Subject<'_>, rule: &Rule) -> Result<Standing, LedgerError> {
        Ok(self.look(subject, rule, &Seeing::REAL).await?)
    }

    async fn adjust(
        &self,
        subject: Subject<'_>,
        rule: &Rule,
        adjustment: Adjustment,
    ) -> Result<Adjusted, LedgerError> {
        Ok(self.change(subject, rule, adjustment, &Seeing::REAL).await?)
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.0.hints.subscribe()
    }

    fn tells_again(&self, subject: Subject<'_>) -> bool {
        self.0.memory.counts(subject.limit, subject.key, Instant::now())
    }

    fn heard_at(&self, key: Key) -> Option<tidegate::Instant> {
        self.0.client.heard_at(self.0.namespace.slot(bucket_of(key)))
    }

    /// Of a cluster, its buckets: each is on one master, and the others go on when that is away.
    fn parts(&self) -> u32 {
        if self.0.client.cluster().is_some() { MOST_PARTS } else { 1 }
    }
}

/// What a script takes for real: in tests, a clock and a server of their own.
pub(crate) struct Seeing<'a> {
    pub(crate) clock: Option<Micros>,
    pub(crate) run_id: Option<&'a str>,
}

impl Seeing<'_> {
    pub(crate) const REAL: Self = Self { clock: None, run_id: None };
}

/// What a script answered.
struct Answer(Value);

impl Answer {
    /// What was answered to each of these, which stand in a list without seams.
    fn replies(&self, questions: &[Question]) -> Result<Vec<Reply>, StoreError> {
        let Value::Array(values) = &self.0 else { return Err(self.garbled()) };
        let (replies, rest) = values.as_chunks::<11>();
        if replies.len() != questions.len() || !rest.is_empty() {
            return Err(self.garbled());
        }
        let small = |number: u64| u32::try_from(number).map_err(|_| self.garbled());
        let reply = |values: &[Value], asked: &Ask| {
            let [granted, of, life, remaining, reset_in, retry_in, nodes, mark_of, level, epoch, seq] =
                self.read(values)?;
            if seq != asked.seq {
                return Err(self.garbled());
            }
            Ok(Reply {
                granted: small(granted)?,
                of,
                life,
                remaining: small(remaining)?,
                reset_in,
                retry_in,
                nodes: small(nodes)?,
                mark: Mark { of: mark_of, level },
                epoch,
            })
        };
        replies.iter().zip(questions).map(|(values, question)| reply(values, &question.ask)).collect()
    }

    fn numbers<const N: usize>(&self) -> Result<[u64; N], StoreError> {
        match &self.0 {
            Value::Array(values) => self.read(values),
            _ => Err(self.garbled()),
        }
    }

    fn read<const N: usize>(&self, values: &[Value]) -> Result<[u64; N], StoreError> {
        let mut numbers = [0; N];
        if values.len() != N {
            return Err(self.garbled());
        }
        for (number, value) in numbers.iter_mut().zip(values) {
            let Value::Int(value) = value else { return Err(self.garbled()) };
            *number = u64::try_from(*value).map_err(|_| self.garbled())?;
        }
        Ok(numbers)
    }

    fn garbled(&self) -> StoreError {
        StoreError::Garbled { what: format!("{:?}", self.0) }
    }
}

fn standing([used, remaining, debt, barred_in, reset_in, nodes]: [u64; 6]) -> Standing {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    Standing { used, remaining, debt, barred_in, reset_in, nodes }
}
