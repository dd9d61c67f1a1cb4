//! Closed, open or half-open: whether calls may go to a dependency that has failed, and what their ends say about it.
//!
//! Every state has an era, and every admitted call a [`Ticket`] of the era that admitted it. The end of a call of an
//! earlier era counts nothing: a success that was under way when the breaker opened does not close it.
//!
//! | outcome | closed | of a probe |
//! |---|---|---|
//! | `Success` | a sample of latency; never a reset of the window | passes; when all probes passed, it closes |
//! | `Ignore` | nothing | passes: the dependency answered, and a service that says 404 to all must not stay half-open |
//! | `Overload` | a failure | opens again |
//! | `Abandoned` | a failure once it waited longer than the known latency, else nothing | likewise: opens again, or another may try |
//! | `Unsent` | nothing | another may try |

use std::time::Duration;

use crate::{By, Call, Instant, Outcome, Refused, sliding::Sliding};

mod latency;
#[cfg(test)]
mod properties;
mod settings;
#[cfg(test)]
mod tests;
mod ticket;

pub use latency::{SHORTEST_EVIDENCE, UNKNOWN_LATENCY};
pub use settings::{InvalidSettings, LONGEST_PERIOD, SHORTEST_PERIOD, Settings};
pub use ticket::{Era, Ticket};

use latency::Latency;

/// A dependency that asks for a longer pause than `open_for` gets at most this many times `open_for`.
pub const LONGEST_RETRY_AFTER: u32 = 10;

/// A breaker's state, as an outsider sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Calls go. Leaves to `Open` on failures.
    Closed,
    /// Calls are refused. Leaves to `HalfOpen` with the first call at or after `until`.
    Open {
        /// When probes may go.
        until: Instant,
    },
    /// Probes go, other calls are refused. Leaves to `Closed` or `Open` by the probes' ends.
    HalfOpen,
}

impl Phase {
    /// The name used in metrics, logs and on the state page.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Leaves to `Open` when the window holds `failures`.
    Closed { failures: Sliding },
    /// Leaves to `HalfOpen` when a call comes at or after `until`.
    Open { until: Instant },
    /// Leaves to `Closed` when `probes` have passed, to `Open` when one fails. `out` are under way. A probe that has
    /// not answered at `overdue_at` no longer keeps others from trying, so that one hung call cannot hold it here.
    HalfOpen { out: u32, passed: u32, overdue_at: Instant },
}

/// The state machine of one breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: Settings,
    era: Era,
    since: Instant,
    opened: u64,
    state: State,
    latency: Latency,
}

impl Breaker {
    /// Makes a breaker that is closed since `now`.
    ///
    /// # Errors
    /// [`InvalidSettings`] when a period is out of range.
    pub fn new(settings: Settings, now: Instant) -> Result<Self, InvalidSettings> {
        Self::resume(settings, Era::FIRST, now)
    }

    /// Makes a closed breaker whose eras begin at `era`, so that tickets of an earlier one count nothing here.
    ///
    /// # Errors
    /// [`InvalidSettings`] when a period is out of range.
    pub fn resume(settings: Settings, era: Era, now: Instant) -> Result<Self, InvalidSettings> {
        settings.check()?;
        let state = State::Closed { failures: Sliding::new(settings.within) };
        Ok(Self { settings, era, since: now, opened: 0, state, latency: Latency::default() })
    }

    /// Decides whether a call may go. The first one after the open period makes the breaker half-open.
    ///
    /// # Errors
    /// [`Refused`] by [`By::Breaker`], with the time until probes may go.
    pub fn admit(&mut self, call: &Call) -> Result<Ticket, Refused> {
        let now = call.now;
        if let State::Open { until } = self.state
            && now >= until
        {
            self.enter(State::HalfOpen { out: 0, passed: 0, overdue_at: now }, now);
        }
        let patience = self.patience();
        match &mut self.state {
            State::Closed { .. } => {}
            State::Open { until } => return Err(Refused::after(By::Breaker, until.since(now))),
            State::HalfOpen { out, passed, overdue_at } => {
                let full = out.saturating_add(*passed) >= self.settings.probes.get();
                if full && now < *overdue_at {
                    return Err(Refused::after(By::Breaker, self.retry_in(now)));
                }
                *out = out.saturating_add(1);
                *overdue_at = now + patience;
            }
        }
        Ok(Ticket::new(self.era, call))
    }

    /// Whether [`admit`](Self::admit) would let a call go at `now`; takes nothing.
    pub fn would_admit(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } => now >= until,
            State::HalfOpen { out, passed, overdue_at } => {
                out.saturating_add(passed) < self.settings.probes.get() || now >= overdue_at
            }
        }
    }

    /// How long until a call could be admitted: to the end of the open period, or until a probe that is out is likely
    /// to have its answer. Zero when one would be admitted at `now`.
    pub fn retry_in(&self, now: Instant) -> Duration {
        match self.state {
            State::Open { until } => until.since(now),
            State::HalfOpen { overdue_at, .. } if !self.would_admit(now) => {
                overdue_at.since(now).min(self.latency.bound().unwrap_or(UNKNOWN_LATENCY))
            }
            State::Closed { .. } | State::HalfOpen { .. } => Duration::ZERO,
        }
    }

    /// Learns that the dependency has begun to answer, well: a probe passes now, however long its stream will last,
    /// and a caller that walks away from the rest is no failure. An `Overload` that ends the answer still is one.
    pub fn answered(&mut self, ticket: &mut Ticket, now: Instant) {
        if ticket.era != self.era {
            return;
        }
        self.sample(ticket, now);
        ticket.answer();
        match self.state {
            State::Closed { .. } | State::Open { .. } => {}
            State::HalfOpen { .. } => {
                ticket.spend();
                self.pass(now);
            }
        }
    }

    /// Learns how a call ended. Does nothing for a ticket of an earlier era.
    pub fn settle(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) {
        if ticket.era != self.era {
            return;
        }
        match outcome {
            Outcome::Success => {
                self.sample(&ticket, now);
                self.pass(now);
            }
            Outcome::Ignore => self.pass(now),
            Outcome::Overload { retry_after } => self.fail(retry_after, now),
            Outcome::Abandoned if self.is_evidence(&ticket, now) => self.fail(None, now),
            Outcome::Abandoned | Outcome::Unsent => self.give_back(),
        }
    }

    /// Takes other settings. The state stays; failures counted so far are forgotten when `within` changes.
    ///
    /// # Errors
    /// [`InvalidSettings`] when a period is out of range; the old settings stay then.
    pub fn reconfigure(&mut self, settings: Settings) -> Result<(), InvalidSettings> {
        settings.check()?;
        match &mut self.state {
            State::Closed { failures } if settings.within != self.settings.within => {
                *failures = Sliding::new(settings.within);
            }
            State::Closed { .. } | State::Open { .. } | State::HalfOpen { .. } => {}
        }
        self.settings = settings;
        Ok(())
    }

    /// The settings in force.
    pub const fn settings(&self) -> Settings {
        self.settings
    }

    /// The state, as an outsider sees it.
    pub const fn phase(&self) -> Phase {
        match self.state {
            State::Closed { .. } => Phase::Closed,
            State::Open { until } => Phase::Open { until },
            State::HalfOpen { .. } => Phase::HalfOpen,
        }
    }

    /// When the state was entered.
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// How often it opened.
    pub const fn opened(&self) -> u64 {
        self.opened
    }

    /// The era under way.
    pub const fn era(&self) -> Era {
        self.era
    }

    /// Failures in the window that ends at `now`; 0 unless closed.
    pub fn failures(&self, now: Instant) -> u32 {
        match &self.state {
            State::Closed { failures } => failures.sum(now),
            State::Open { .. } | State::HalfOpen { .. } => 0,
        }
    }

    /// How long a call may wait before walking away from it is evidence, once that is known.
    pub fn known_latency(&self) -> Option<Duration> {
        self.latency.bound()
    }

    /// Whether a caller that walks away at `now` has waited longer than an answer takes. While that is not known, a
    /// call that used up its own deadline counts: a dependency that never answered anybody is not given for ever.
    fn is_evidence(&self, ticket: &Ticket, now: Instant) -> bool {
        let Some(waited) = ticket.waited(now) else { return false };
        match self.latency.bound() {
            Some(bound) => waited > bound,
            None => waited >= UNKNOWN_LATENCY || (ticket.timed_out(now) && waited >= SHORTEST_EVIDENCE),
        }
    }

    fn sample(&mut self, ticket: &Ticket, now: Instant) {
        if let Some(waited) = ticket.waited(now) {
            self.latency.observe(waited);
        }
    }

    /// A probe is overdue after the open period, or after the known latency where that is longer.
    fn patience(&self) -> Duration {
        self.latency.bound().map_or(self.settings.open_for, |bound| bound.max(self.settings.open_for))
    }

    fn pass(&mut self, now: Instant) {
        match &mut self.state {
            State::Closed { .. } | State::Open { .. } => {}
            State::HalfOpen { out, passed, .. } => {
                *out = out.saturating_sub(1);
                *passed += 1;
                if *passed >= self.settings.probes.get() {
                    self.enter(State::Closed { failures: Sliding::new(self.settings.within) }, now);
                }
            }
        }
    }

    fn fail(&mut self, retry_after: Option<Duration>, now: Instant) {
        match &mut self.state {
            State::Closed { failures } => {
                failures.add(1, now);
                if failures.sum(now) < self.settings.failures.get() {
                    return;
                }
            }
            State::Open { .. } => return,
            State::HalfOpen { .. } => {}
        }
        let open_for = self.settings.open_for;
        let longest = open_for * LONGEST_RETRY_AFTER;
        let pause = retry_after.map_or(open_for, |asked| asked.clamp(open_for, longest));
        self.opened += 1;
        self.enter(State::Open { until: now + pause }, now);
    }

    fn give_back(&mut self) {
        match &mut self.state {
            State::Closed { .. } | State::Open { .. } => {}
            State::HalfOpen { out, .. } => *out = out.saturating_sub(1),
        }
    }

    fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
        self.era = self.era.next();
    }
}
