//! Questions on their way to the store: those of one rule and one ledger that are ready at the same time go as one script.
//!
//! A question that finds the way free leaves at once, after those who are ready to ask have done so. When many are under way
//! already, it waits for a script to come back and leaves with all that wait: a script costs the server as much as the
//! question in it, or more.
//!
//! A server that is slow to answer is given fewer scripts at once, so that questions wait here and not before it: here those
//! that nobody waits for any more are left out, and the newest leave first when the oldest have waited for long. Without
//! that, more questions than a server can answer would all be answered too late.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tidegate::{
    clock,
    fleet::{Rule, Subject},
};
use tidegate_core::{
    Instant, Outcome,
    ledger::{Ask, Reply},
    limit::{Adaptive, Aimd, Bounds, Sample},
};
use tokio::{sync::oneshot, task::yield_now, time::timeout};

use super::{RedisLedger, Seeing};
use crate::{StoreError, client::nowhere, keys::bucket_of, watch::Watched};

/// Questions of one script: few enough that the server is back for others in a fraction of a millisecond.
pub(super) const AT_MOST: usize = 16;
/// Scripts under way at once of one rule and ledger: never fewer, never more. The fewest keep a server busy for a few
/// milliseconds: a machine that is slow for other reasons than these questions is not made quicker by asking less.
const LANES: (u32, u32) = (8, 64);
/// What a script may take of the deadline before there are too many, and a question wait before newer ones go first.
const PART_OF_DEADLINE: u32 = 4;

/// How often a script waits for its turn among the tasks of this process: to be sent, to be read, and to be told.
const TURNS: u32 = 3;

/// Questions that go together: of one rule, and of one ledger, which in a cluster is a bucket's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Route {
    pub(super) rule: Rule,
    pub(super) bucket: u8,
}

/// A question, ready to be written into a script.
pub(super) struct Question {
    /// The key of its account.
    pub(super) account: String,
    /// Its subject as hints name it.
    pub(super) name: String,
    pub(super) ask: Ask,
}

struct Waiting {
    question: Question,
    since: Instant,
    tell: oneshot::Sender<Result<Reply, StoreError>>,
}

/// Questions that wait for their script, and how many scripts are under way.
pub(crate) struct Outbox(Mutex<State>);

struct State {
    /// How long a script may take.
    deadline: Duration,
    queues: HashMap<Route, Queue>,
    /// Those who wait for an answer.
    askers: usize,
}

struct Queue {
    waiting: VecDeque<Waiting>,
    lanes: usize,
    /// How many lanes there may be.
    pace: Adaptive,
    /// Longer than this is long, for a script or for a question that waits.
    long: Duration,
    /// Whether a lane is about to take what waits.
    is_gathering: bool,
}

impl Queue {
    fn new(deadline: Duration) -> Self {
        let long = deadline / PART_OF_DEADLINE;
        let (least, most) = LANES;
        let bounds = Bounds::new(least, most).expect("the bounds of lanes are in order");
        let pace = Adaptive::new(Aimd::new(bounds).beginning_at(most).latency(long));
        Self { waiting: VecDeque::new(), lanes: 0, pace, long, is_gathering: false }
    }

    fn is_full(&self) -> bool {
        self.lanes >= self.pace.limit() as usize
    }

    /// Whether another lane is to be opened: it is counted then.
    fn opens(&mut self) -> bool {
        let opens = !self.is_gathering && !self.is_full() && !self.waiting.is_empty();
        if opens {
            self.lanes += 1;
            self.is_gathering = true;
        }
        opens
    }

    /// The question that is next: the oldest, or the newest when that waited for so long that its caller is about to leave.
    fn next(&mut self, now: Instant) -> Option<Waiting> {
        while self.waiting.front().is_some_and(|oldest| oldest.tell.is_closed()) {
            self.waiting.pop_front();
        }
        let oldest = self.waiting.front()?;
        if now.since(oldest.since) > self.long { self.waiting.pop_back() } else { self.waiting.pop_front() }
    }

    /// A script was under way for so long, in a process that takes `turn` to come round to a task: that much of it is not
    /// the server's doing.
    fn took(&mut self, lasted: Duration, turn: Duration, now: Instant) {
        let lasted = lasted.saturating_sub(turn * TURNS);
        let sample = Sample { outcome: Outcome::Success, lasted, in_flight: self.lanes as u32 };
        self.pace.record(&sample, now);
    }
}

impl Outbox {
    /// For scripts with so long a deadline.
    pub(crate) fn new(deadline: Duration) -> Self {
        Self(Mutex::new(State { deadline, queues: HashMap::new(), askers: 0 }))
    }

    fn change<T>(&self, route: Route, change: impl FnOnce(&mut Queue) -> T) -> T {
        self.0.lock().change(route, change)
    }

    /// A place among those who wait for an answer, if there is one, and what came of `change`.
    fn enter<T>(
        &self,
        most: usize,
        route: Route,
        change: impl FnOnce(&mut Queue) -> T,
    ) -> Option<(Asker<'_>, T)> {
        let mut state = self.0.lock();
        if state.askers >= most {
            return None;
        }
        state.askers += 1;
        Some((Asker(self), state.change(route, change)))
    }
}

impl State {
    fn change<T>(&mut self, route: Route, change: impl FnOnce(&mut Queue) -> T) -> T {
        let queue = self.queues.entry(route).or_insert_with(|| Queue::new(self.deadline));
        let done = change(queue);
        if queue.lanes == 0 && queue.waiting.is_empty() {
            self.queues.remove(&route);
        }
        done
    }
}

/// One who waits for an answer, until it is dropped.
struct Asker<'a>(&'a Outbox);

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        self.0.0.lock().askers -= 1;
    }
}

/// A script under way, or about to be. However it ends, its place is free then.
struct Lane {
    watched: Arc<Watched>,
    route: Route,
    /// Among the lanes of its queue.
    is_counted: bool,
    is_gathering: bool,
}

/// When a script was sent, and how long this process took to come round to that.
struct Sent {
    at: Instant,
    turn: Duration,
}

impl Lane {
    fn open(watched: &Arc<Watched>, route: Route) {
        let lane = Self { watched: Arc::clone(watched), route, is_counted: true, is_gathering: true };
        tokio::spawn(lane.run());
    }

    async fn run(mut self) {
        while self.is_gathering {
            let ready_at = clock::now();
            // Whoever is ready to ask does so first.
            yield_now().await;
            let now = clock::now();
            let questions = self.take(now);
            let sent = (!questions.is_empty()).then_some(Sent { at: now, turn: now.since(ready_at) });
            if !questions.is_empty() {
                self.carry(questions).await;
            }
            self.come_back(sent);
        }
    }

    /// Takes questions of those who still wait for an answer.
    fn take(&mut self, now: Instant) -> Vec<Waiting> {
        let mut questions = Vec::new();
        let opens = self.watched.outbox.change(self.route, |queue| {
            while questions.len() < AT_MOST
                && let Some(next) = queue.next(now)
            {
                if !next.tell.is_closed() {
                    questions.push(next);
                }
            }
            queue.is_gathering = false;
            queue.opens()
        });
        self.is_gathering = false;
        if opens {
            Self::open(&self.watched, self.route);
        }
        questions
    }

    async fn carry(&self, questions: Vec<Waiting>) {
        let (asked, tells): (Vec<_>, Vec<_>) =
            questions.into_iter().map(|waiting| (waiting.question, waiting.tell)).unzip();
        let tells = Mutex::new(tells);
        let ledger = RedisLedger::of(Arc::clone(&self.watched));
        // Until the server has done with it the script is under way, however late: more of them would make it later.
        let fail = |error: StoreError| {
            for tell in tells.lock().drain(..) {
                let _ = tell.send(Err(error.clone()));
            }
        };
        let result = ledger.grant_all(self.route, &asked, &Seeing::REAL, Some(&fail)).await;
        match result {
            Ok(replies) => {
                for (tell, reply) in tells.into_inner().into_iter().zip(replies) {
                    // Whoever does not wait any more has no use for it: what was granted is over with its window.
                    let _ = tell.send(Ok(reply));
                }
            }
            // One account that makes no sense, or is on its way elsewhere, must not cost the others their answers. What was
            // booked is known again by its number.
            Err(error) if asked.len() > 1 && is_of_one(&error) => {
                for (tell, question) in tells.into_inner().into_iter().zip(&asked) {
                    let alone =
                        ledger.grant_all(self.route, std::slice::from_ref(question), &Seeing::REAL, None);
                    let reply = alone.await.map(|replies| replies[0]);
                    let _ = tell.send(reply);
                }
            }
            Err(error) => fail(error),
        }
    }

    /// Its script is back: it goes again if there is something to carry that nobody else is about to take.
    fn come_back(&mut self, sent: Option<Sent>) {
        let now = clock::now();
        self.is_gathering = self.watched.outbox.change(self.route, |queue| {
            if let Some(Sent { at, turn }) = sent {
                queue.took(now.since(at), turn, now);
            }
            queue.lanes -= 1;
            queue.opens()
        });
        self.is_counted = self.is_gathering;
    }
}

/// Whether a script may have failed for one of its accounts.
fn is_of_one(error: &StoreError) -> bool {
    match error {
        StoreError::Garbled { .. } => true,
        // In a cluster, some of the keys of a slot have moved.
        StoreError::Unready { code, .. } => code == "TRYAGAIN",
        _ => false,
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // A runtime that ends drops it on its way.
        if self.is_counted {
            let is_gathering = self.is_gathering;
            self.watched.outbox.change(self.route, |queue| {
                queue.lanes -= 1;
                queue.is_gathering &= !is_gathering;
            });
        }
    }
}

impl RedisLedger {
    /// Has a question carried to the store, with others that are ready.
    ///
    /// # Cancel safety
    /// It is not sent if it was not yet; else it may be booked.
    pub(super) async fn put(
        &self,
        subject: Subject<'_>,
        rule: &Rule,
        ask: &Ask,
    ) -> Result<Reply, StoreError> {
        let watched = &self.0;
        let route = Route { rule: *rule, bucket: watched.ledger_of(bucket_of(subject.key)) };
        let question = self.question(subject, rule, ask);
        let most = watched.client.settings().in_flight;
        let (tell, told) = oneshot::channel();
        let since = clock::now();
        let entered = watched.outbox.enter(most, route, |queue| {
            // Those who went away leave their questions behind.
            if queue.waiting.len() >= 2 * most {
                queue.waiting.retain(|waiting| !waiting.tell.is_closed());
            }
            queue.waiting.push_back(Waiting { question, since, tell });
            queue.opens()
        });
        let (_asker, opens) = entered.ok_or(StoreError::Busy(most))?;
        if opens {
            Lane::open(watched, route);
        }
        let (within, server) = (watched.client.settings().deadline, nowhere());
        match timeout(within, told).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => {
                Err(StoreError::Unavailable { server, why: "the runtime that asks has ended".into() })
            }
            Err(_) => Err(StoreError::Deadline { server, after: within }),
        }
    }
}

#[cfg(test)]
mod tests;
