//! The ledger in memory: for one process, and for tests.

use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU32,
    sync::{Arc, RwLock},
};

use parking_lot::Mutex;
use tidegate_core::{
    Instant,
    ledger::{Ask, Book, Epoch, Law, Micros, Reply, Rule, Standing},
};
use tokio::sync::broadcast;

use super::{
    error::{LedgerError, LedgerErrorKind},
    ledger::{Adjusted, Adjustment, Hint, Ledger, NOTICED_WITHIN, Subject, Tidings},
};
use crate::{clock, throttle::Key};

/// A ledger in memory, which all its clones share: the reference with a lock around it.
///
/// It forgets nothing that counts while it lives, so its credit needs no repair; when the process ends, so do those who hold it. It
/// keeps at most as many accounts as it has [room for](Self::with_room_for), those of idle subjects make room, and where all are busy a
/// new subject is refused with [`LedgerErrorKind::Busy`].
///
/// ```
/// # use tidegate::fleet::LocalLedger;
/// let ledger = LocalLedger::new();
/// assert_eq!(ledger.accounts(), 0);
/// ```
#[derive(Clone)]
pub struct LocalLedger(Arc<Books>);

struct Books {
    limits: RwLock<HashMap<Arc<str>, Arc<Limit>>>,
    most_in_shard: usize,
    hints: broadcast::Sender<Hint>,
    epoch: Mutex<Epoch>,
}

const SHARDS: usize = 64;
/// Hints that a slow listener may be behind.
const HINTS: usize = 1024;
/// Accounts in a shard before it looks for idle ones.
const FIRST_SWEEP: usize = 256;
/// The shortest time between two looks for idle accounts in a full shard, in microseconds.
const PAUSE: Micros = 100_000;

/// The accounts of one limit.
struct Limit {
    name: Arc<str>,
    shards: [Mutex<Shard>; SHARDS],
}

struct Shard {
    books: HashMap<(Key, Kept), Account>,
    /// How many accounts there may be before idle ones are looked for.
    sweep_at: usize,
    swept: Micros,
}

struct Account {
    book: Book,
    /// When it may be forgotten.
    until: Micros,
}

/// Which of a subject's accounts: laws with one of these names read each other's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kept {
    Aligned(Micros),
    FirstCall(Micros),
    Month,
    Sliding(Micros, u64),
    Bucket,
}

impl From<Law> for Kept {
    fn from(law: Law) -> Self {
        match law {
            Law::Aligned { period } => Self::Aligned(period),
            Law::FirstCall { period } => Self::FirstCall(period),
            Law::Month => Self::Month,
            Law::Sliding { slice, slices } => Self::Sliding(slice, slices),
            Law::Bucket { .. } => Self::Bucket,
        }
    }
}

impl Default for LocalLedger {
    fn default() -> Self {
        Self::new()
    }
}

impl LocalLedger {
    /// Makes an empty ledger with room for 1 000 000 accounts of each limit.
    pub fn new() -> Self {
        Self::with_room_for(NonZeroU32::new(1_000_000).expect("a million is not zero"))
    }

    /// Makes an empty ledger with room for at least `most` accounts of each limit. It takes no memory for them until
    /// they are there.
    pub fn with_room_for(most: NonZeroU32) -> Self {
        // An eighth more, as chance does not fill the shards evenly.
        let most_in_shard = (most.get() as usize * 9 / 8).div_ceil(SHARDS).max(8);
        Self(Arc::new(Books {
            limits: RwLock::default(),
            most_in_shard,
            hints: broadcast::Sender::new(HINTS),
            epoch: Mutex::new(Epoch::WHOLE),
        }))
    }

    /// Accounts kept, idle ones included.
    pub fn accounts(&self) -> usize {
        let limits = self.0.limits.read().expect("nobody panics under this lock");
        limits.values().flat_map(|limit| &limit.shards).map(|shard| shard.lock().books.len()).sum()
    }

    /// Forgets everything, as a store does that restarts empty: for tests of what nodes do then. As any ledger that lost
    /// what it knew, it grants nothing until all nodes had the time to tell what they saw.
    pub fn lose(&self) {
        self.0.limits.write().expect("nobody panics under this lock").clear();
        let mut epoch = self.0.epoch.lock();
        *epoch = Epoch { id: epoch.id + 1, begun: micros(clock::now()) };
    }

    /// The epoch of a question at `now`, with the time in which nodes notice that it began.
    fn epoch(&self, now: Micros) -> Epoch {
        let mut epoch = self.0.epoch.lock();
        *epoch = epoch.at(0, now);
        let noticed = if epoch.begun == 0 { 0 } else { NOTICED_WITHIN.as_micros() as u64 };
        Epoch { begun: epoch.begun + noticed, ..*epoch }
    }

    fn limit(&self, name: &str) -> Arc<Limit> {
        let known = self.0.limits.read().expect("nobody panics under this lock").get(name).cloned();
        known.unwrap_or_else(|| {
            let mut limits = self.0.limits.write().expect("nobody panics under this lock");
            let name: Arc<str> = name.into();
            let limit = limits.entry(name.clone()).or_insert_with(|| Arc::new(Limit::new(name)));
            limit.clone()
        })
    }

    /// Does something with an account, which is made if need be.
    fn with<T>(
        &self,
        limit: &Limit,
        key: Key,
        rule: &Rule,
        then: impl FnOnce(&mut Book, Micros) -> T,
    ) -> Result<T, LedgerError> {
        let now = micros(clock::now());
        let mut shard = limit.shards[key.bits() as usize % SHARDS].lock();
        let account = shard.account(key, rule, now, self.0.most_in_shard).ok_or_else(|| {
            let message = format!(
                "the limit {} has more than {} busy keys in memory; make room for more",
                limit.name,
                self.0.most_in_shard * SHARDS
            );
            LedgerError::new(LedgerErrorKind::Busy, message)
        })?;
        let done = then(&mut account.book, now);
        account.until = now + account.book.keep(rule, now);
        Ok(done)
    }

    fn tell(&self, limit: &Limit, key: Key, tidings: Tidings) {
        // Nobody may be listening.
        let _ = self.0.hints.send(Hint { limit: limit.name.clone(), key, tidings });
    }
}

impl Ledger for LocalLedger {
    async fn ask(&self, subject: Subject<'_>, rule: &Rule, ask: &Ask) -> Result<Reply, LedgerError> {
        let limit = self.limit(subject.limit);
        let reply =
            self.with(&limit, subject.key, rule, |book, now| book.grant(rule, ask, now, self.epoch(now)))?;
        if reply.granted < ask.least.max(ask.need) && reply.nodes > 1 {
            let retry_in = std::time::Duration::from_micros(reply.retry_in);
            self.tell(&limit, subject.key, Tidings::Exhausted(retry_in));
        } else if ask.back > 0 && reply.remaining > 0 && reply.nodes > 1 {
            self.tell(&limit, subject.key, Tidings::Relieved);
        }
        Ok(reply)
    }

    async fn inspect(&self, subject: Subject<'_>, rule: &Rule) -> Result<Standing, LedgerError> {
        let (limit, now) = (self.limit(subject.limit), micros(clock::now()));
        let shard = limit.shards[subject.key.bits() as usize % SHARDS].lock();
        let known = shard.books.get(&(subject.key, rule.law().into()));
        Ok(known
            .map_or_else(|| Book::default().inspect(rule, now), |account| account.book.inspect(rule, now)))
    }

    async fn adjust(
        &self,
        subject: Subject<'_>,
        rule: &Rule,
        adjustment: Adjustment,
    ) -> Result<Adjusted, LedgerError> {
        let limit = self.limit(subject.limit);
        let adjusted = self.with(&limit, subject.key, rule, |book, now| {
            let before = book.inspect(rule, now);
            match adjustment {
                Adjustment::Relieve(units) => book.relieve(rule, units, now),
                Adjustment::Charge(units) => book.charge(rule, units, now),
                Adjustment::Reset => book.reset(),
            }
            Adjusted { before, after: book.inspect(rule, now) }
        })?;
        self.tell(
            &limit,
            subject.key,
            match adjustment {
                Adjustment::Relieve(_) | Adjustment::Reset => Tidings::Relieved,
                Adjustment::Charge(_) => Tidings::Recall,
            },
        );
        Ok(adjusted)
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.0.hints.subscribe()
    }
}

impl Limit {
    fn new(name: Arc<str>) -> Self {
        let shard = || Mutex::new(Shard { books: HashMap::new(), sweep_at: FIRST_SWEEP, swept: 0 });
        Self { name, shards: std::array::from_fn(|_| shard()) }
    }
}

impl Shard {
    fn account(&mut self, key: Key, rule: &Rule, now: Micros, most: usize) -> Option<&mut Account> {
        let name = (key, rule.law().into());
        if self.books.len() >= self.sweep_at.min(most) && !self.books.contains_key(&name) {
            // Where all are busy, looking again at once would find the same.
            if self.books.len() < most || now.saturating_sub(self.swept) >= PAUSE {
                self.books.retain(|_, account| account.until > now);
                self.swept = now;
                // As much again before the next look, so that looking costs each new account a constant.
                self.sweep_at = (self.books.len() * 2).max(FIRST_SWEEP);
            }
            if self.books.len() >= most {
                return None;
            }
        }
        Some(self.books.entry(name).or_insert_with(|| Account { book: Book::default(), until: 0 }))
    }
}

/// The store's clock: microseconds since the Unix epoch.
fn micros(now: Instant) -> Micros {
    now.as_nanos() / 1000
}

impl fmt::Debug for LocalLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalLedger").field("accounts", &self.accounts()).finish()
    }
}
