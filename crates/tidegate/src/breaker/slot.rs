//! Where a breaker lives: a word that calls read without a lock, and the state machine behind a short one.
//!
//! A permit must outlive any borrow and a healthy call must write nothing that other threads read, not even a count
//! of references. So slots are never freed: a permit points at its slot for ever, and a slot whose breaker is gone is
//! handed to the next one with a later era, in which the old permits count nothing. Memory is bounded by the most
//! breakers that existed at once.

use std::{sync::Arc, time::Duration};

use tidegate_core::{
    By, Call, Instant, Outcome, Refused,
    breaker::{Breaker, Era, InvalidSettings, Phase, Settings, Ticket},
    nanos,
};

use super::Snapshot;
use crate::{
    event::{Event, Observer},
    sync::{AtomicU64, Mutex, Ordering},
};

/// While closed, one success in this time is a sample of latency; the others write nothing.
pub(super) const SAMPLE_EVERY: Duration = Duration::from_millis(10);

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;

/// A breaker's place. The words come first, on a cache line that is written only when the state changes and when a
/// sample is taken.
#[repr(align(64))]
pub(super) struct Slot {
    /// The era, and in the last two bits the phase.
    word: AtomicU64,
    /// Nanoseconds at which the open period ends; read only while the word says open.
    until: AtomicU64,
    /// Nanoseconds from which the next success is a sample.
    sample_at: AtomicU64,
    seldom: Seldom,
}

/// What a healthy call does not touch, on cache lines of its own.
#[repr(align(64))]
struct Seldom {
    tenant: Mutex<Tenant>,
    refused: AtomicU64,
}

/// Who lives in the slot.
struct Tenant {
    breaker: Breaker,
    told: Option<Told>,
}

/// Who is told of changes, and under which name.
#[derive(Clone)]
pub(super) struct Told {
    pub(super) name: Arc<str>,
    pub(super) observer: Arc<dyn Observer>,
}

impl Slot {
    pub(super) fn new(settings: Settings, told: Option<Told>, now: Instant) -> Result<Self, InvalidSettings> {
        let breaker = Breaker::new(settings, now)?;
        let slot = Self {
            word: AtomicU64::new(word(&breaker)),
            until: AtomicU64::new(0),
            sample_at: AtomicU64::new(0),
            seldom: Seldom { tenant: Mutex::new(Tenant { breaker, told }), refused: AtomicU64::new(0) },
        };
        Ok(slot)
    }

    /// Lets a new breaker in, closed; permits of the one before count nothing from here on.
    pub(super) fn let_to(
        &self,
        settings: Settings,
        told: Option<Told>,
        now: Instant,
    ) -> Result<(), InvalidSettings> {
        let mut tenant = self.seldom.tenant.lock();
        let era = tenant.breaker.era().next();
        *tenant = Tenant { breaker: Breaker::resume(settings, era, now)?, told };
        self.sample_at.store(0, Ordering::Relaxed);
        self.seldom.refused.store(0, Ordering::Relaxed);
        self.publish(&tenant.breaker);
        Ok(())
    }

    /// Forgets who was told.
    pub(super) fn vacate(&self) {
        let told = self.seldom.tenant.lock().told.take();
        drop(told); // An observer's destructor is a stranger's code: not under the lock.
    }

    /// The era under way, if the breaker is closed: calls may go without asking further.
    #[inline]
    pub(super) fn closed(&self) -> Option<Era> {
        let word = self.word.load(Ordering::Acquire);
        (word & 3 == CLOSED).then_some(Era::from_number(word >> 2))
    }

    #[cold]
    pub(super) fn admit(&self, call: &Call) -> Result<Ticket, Refused> {
        let admitted = match self.open_until() {
            Some(until) if call.now < until => Err(Refused::after(By::Breaker, until.since(call.now))),
            Some(_) | None => self.decide(call.now, |breaker| breaker.admit(call)),
        };
        if admitted.is_err() {
            self.seldom.refused.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    /// When the open period ends, while there is one.
    fn open_until(&self) -> Option<Instant> {
        let is_open = self.word.load(Ordering::Acquire) & 3 == OPEN;
        is_open.then(|| Instant::from_nanos(self.until.load(Ordering::Relaxed)))
    }

    /// How long until a call could be admitted, as far as is known; zero when one would be now.
    pub(super) fn retry_in(&self, now: Instant) -> Duration {
        match self.open_until() {
            Some(until) => until.since(now),
            None if self.closed().is_some() => Duration::ZERO,
            None => self.seldom.tenant.lock().breaker.retry_in(now),
        }
    }

    pub(super) fn would_admit(&self, now: Instant) -> bool {
        match self.word.load(Ordering::Acquire) & 3 {
            CLOSED => true,
            OPEN => now.as_nanos() >= self.until.load(Ordering::Relaxed),
            _half_open => self.seldom.tenant.lock().breaker.would_admit(now),
        }
    }

    /// Whether it is the end that nearly every call comes to, a success while closed that is no sample: told from two
    /// words that no such call writes, and there is nothing to [`settle`](Self::settle).
    #[inline]
    pub(super) fn is_usual_end(&self, ticket: &Ticket, outcome: Outcome, now: Instant) -> bool {
        outcome == Outcome::Success
            && self.word.load(Ordering::Acquire) == ticket.era().number() << 2 | CLOSED
            && (now.as_nanos() < self.sample_at.load(Ordering::Relaxed) || ticket.is_answered())
    }

    #[cold]
    pub(super) fn settle(&self, ticket: Ticket, outcome: Outcome, now: Instant) {
        if !self.counts(&ticket, outcome) {
            return;
        }
        let is_sample = outcome == Outcome::Success && self.standing(&ticket) == Standing::Closed;
        if is_sample && !self.takes_sample(&ticket, now) {
            return;
        }
        self.decide(now, |breaker| breaker.settle(ticket, outcome, now));
    }

    pub(super) fn answered(&self, ticket: &mut Ticket, now: Instant) {
        match self.standing(ticket) {
            Standing::Late => return,
            Standing::Closed if !self.takes_sample(ticket, now) => return ticket.answer(),
            Standing::Closed | Standing::Probe => {}
        }
        self.decide(now, |breaker| breaker.answered(ticket, now));
    }

    pub(super) fn reconfigure(&self, settings: Settings) -> Result<(), InvalidSettings> {
        self.seldom.tenant.lock().breaker.reconfigure(settings)
    }

    pub(super) fn snapshot(&self, now: Instant) -> Snapshot {
        let tenant = self.seldom.tenant.lock();
        let breaker = &tenant.breaker;
        Snapshot {
            phase: breaker.phase(),
            since: breaker.since(),
            era: breaker.era(),
            opened: breaker.opened(),
            refused: self.seldom.refused.load(Ordering::Relaxed),
            failures: breaker.failures(now),
            known_latency: breaker.known_latency(),
            settings: breaker.settings(),
        }
    }

    /// Whether such an end of the call could change anything; where not, nobody needs to know when it was.
    pub(super) fn counts(&self, ticket: &Ticket, outcome: Outcome) -> bool {
        match (self.standing(ticket), outcome) {
            (Standing::Late, _) | (Standing::Closed, Outcome::Ignore | Outcome::Unsent) => false,
            // The answer was the sample, and whoever leaves after it says nothing.
            (Standing::Closed, Outcome::Success | Outcome::Abandoned) => !ticket.is_answered(),
            (Standing::Closed, Outcome::Overload { .. }) | (Standing::Probe, _) => true,
        }
    }

    /// What a ticket counts for, without the lock.
    fn standing(&self, ticket: &Ticket) -> Standing {
        let word = self.word.load(Ordering::Acquire);
        if word >> 2 != ticket.era().number() {
            return Standing::Late;
        }
        if word & 3 == CLOSED { Standing::Closed } else { Standing::Probe }
    }

    /// Whether it is this call's turn to be a sample. One thread at most is told so in each [`SAMPLE_EVERY`].
    fn takes_sample(&self, ticket: &Ticket, now: Instant) -> bool {
        let due = self.sample_at.load(Ordering::Relaxed);
        if now.as_nanos() < due || ticket.is_answered() {
            return false;
        }
        let next = now.as_nanos().saturating_add(nanos(SAMPLE_EVERY));
        self.sample_at.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Locks, decides, unlocks, and only then tells of a change.
    fn decide<R>(&self, now: Instant, verb: impl FnOnce(&mut Breaker) -> R) -> R {
        let mut tenant = self.seldom.tenant.lock();
        let (era, from) = (tenant.breaker.era(), tenant.breaker.phase());
        let answer = verb(&mut tenant.breaker);
        if tenant.breaker.era() == era {
            return answer;
        }
        self.publish(&tenant.breaker);
        let (era, to, told) = (tenant.breaker.era(), tenant.breaker.phase(), tenant.told.clone());
        drop(tenant);
        if let Some(Told { name, observer }) = told {
            observer.observe(Event::BreakerChanged { name: &name, era, from, to, at: now });
        }
        answer
    }

    /// Shows the state to those who read without the lock; called under it.
    fn publish(&self, breaker: &Breaker) {
        if let Phase::Open { until } = breaker.phase() {
            self.until.store(until.as_nanos(), Ordering::Relaxed);
        }
        self.word.store(word(breaker), Ordering::Release);
    }
}

/// What a ticket counts for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is of an earlier era: nothing.
    Late,
    /// It was admitted while closed, and the breaker still is.
    Closed,
    /// It is a probe.
    Probe,
}

fn word(breaker: &Breaker) -> u64 {
    let phase = match breaker.phase() {
        Phase::Closed => CLOSED,
        Phase::Open { .. } => OPEN,
        Phase::HalfOpen => HALF_OPEN,
    };
    breaker.era().number() << 2 | phase
}
