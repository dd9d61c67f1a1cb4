//! The state machine beside a slow model that keeps the whole history and recounts it at every step.

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::nanos;

const START: Instant = Instant::from_nanos(1_700_000_000_000_000_000);

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Enter { deadline: Option<u64> },
    Answer(usize),
    End(usize, Outcome),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let retry_after = prop::option::of((0_u64..80_000).prop_map(Duration::from_millis));
    let outcome = prop_oneof![
        2 => Just(Outcome::Success),
        1 => Just(Outcome::Ignore),
        4 => retry_after.prop_map(|retry_after| Outcome::Overload { retry_after }),
        2 => Just(Outcome::Abandoned),
        1 => Just(Outcome::Unsent),
    ];
    let step = prop_oneof![
        3 => (0_u64..1500).prop_map(Step::Wait),
        1 => (4000_u64..7000).prop_map(Step::Wait),
        6 => prop::option::of(10_u64..2000).prop_map(|deadline| Step::Enter { deadline }),
        1 => any::<usize>().prop_map(Step::Answer),
        5 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Step::End(which, outcome)),
    ];
    prop::collection::vec(step, 1..150)
}

/// What the model remembers of a call.
#[derive(Clone, Copy)]
struct Known {
    ticket: Ticket,
    epoch: usize,
    began: Instant,
    deadline: Option<Instant>,
    answered: bool,
    passed: bool,
}

/// Everything that ever happened, as lists.
struct Model {
    settings: Settings,
    /// The states gone through, with what ended each; the last one is now.
    epochs: Vec<Epoch>,
    latency: Latency,
}

#[derive(Clone)]
enum Epoch {
    Closed { failures: Vec<Instant> },
    Open { until: Instant },
    HalfOpen { overdue: Vec<Instant>, gone: u32, passed: u32 },
}

impl Model {
    fn epoch(&mut self) -> &mut Epoch {
        self.epochs.last_mut().unwrap()
    }

    fn admits(&self, now: Instant) -> bool {
        match self.epochs.last().unwrap() {
            Epoch::Closed { .. } => true,
            Epoch::Open { until } => *until <= now,
            Epoch::HalfOpen { overdue, gone, passed } => {
                let under_way = overdue.len() as u32 - gone;
                under_way + passed < self.settings.probes.get()
                    || overdue.last().is_none_or(|last| *last <= now)
            }
        }
    }

    fn enter(&mut self, now: Instant) -> bool {
        let admits = self.admits(now);
        if let (true, Epoch::Open { .. }) = (admits, self.epoch()) {
            self.epochs.push(Epoch::HalfOpen { overdue: Vec::new(), gone: 0, passed: 0 });
        }
        let patience = self.latency.bound().unwrap_or_default().max(self.settings.open_for);
        if let (true, Epoch::HalfOpen { overdue, .. }) = (admits, self.epoch()) {
            overdue.push(now + patience);
        }
        admits
    }

    fn pass(&mut self) {
        let probes = self.settings.probes.get();
        if let Epoch::HalfOpen { gone, passed, .. } = self.epoch() {
            *gone += 1;
            *passed += 1;
            if *passed == probes {
                self.epochs.push(Epoch::Closed { failures: Vec::new() });
            }
        }
    }

    fn fail(&mut self, retry_after: Option<Duration>, now: Instant) {
        let Settings { failures: most, within, open_for, .. } = self.settings;
        let slice = (nanos(within) / 16).max(1);
        let opens = match self.epoch() {
            Epoch::Closed { failures } => {
                failures.push(now);
                let number = |then: Instant| then.as_nanos() / slice;
                failures.iter().filter(|then| number(now) - number(**then) <= 16).count()
                    >= most.get() as usize
            }
            Epoch::Open { .. } => false,
            Epoch::HalfOpen { .. } => true,
        };
        if opens {
            let pause = retry_after.unwrap_or_default().max(open_for).min(open_for * LONGEST_RETRY_AFTER);
            self.epochs.push(Epoch::Open { until: now + pause });
        }
    }

    fn end(&mut self, call: Known, outcome: Outcome, now: Instant) {
        if call.epoch != self.epochs.len() || call.passed {
            return;
        }
        let waited = now.since(call.began);
        match outcome {
            Outcome::Success => {
                if !call.answered {
                    self.latency.observe(waited);
                }
                self.pass();
            }
            Outcome::Ignore => self.pass(),
            Outcome::Overload { retry_after } => self.fail(retry_after, now),
            Outcome::Abandoned | Outcome::Unsent => {
                let patience = match self.latency.bound() {
                    Some(bound) => bound,
                    None if call.deadline.is_some_and(|deadline| deadline <= now) => {
                        Duration::from_nanos(9_999_999)
                    }
                    None => UNKNOWN_LATENCY - Duration::from_nanos(1),
                };
                if outcome == Outcome::Abandoned && !call.answered && waited > patience {
                    self.fail(None, now);
                } else if let Epoch::HalfOpen { gone, .. } = self.epoch() {
                    *gone += 1;
                }
            }
        }
    }

    fn answered(&mut self, call: &mut Known, now: Instant) {
        if call.epoch != self.epochs.len() || call.passed {
            return;
        }
        if !call.answered {
            self.latency.observe(now.since(call.began));
        }
        call.answered = true;
        if let Epoch::HalfOpen { .. } = self.epoch() {
            call.passed = true;
            self.pass();
        }
    }

    fn phase(&self) -> Phase {
        match self.epochs.last().unwrap() {
            Epoch::Closed { .. } => Phase::Closed,
            Epoch::Open { until } => Phase::Open { until: *until },
            Epoch::HalfOpen { .. } => Phase::HalfOpen,
        }
    }
}

proptest! {
    #[test]
    fn it_does_what_a_slow_model_does(steps in steps(), failures in 1_u32..6, probes in 1_u32..4) {
        let settings = Settings {
            failures: NonZeroU32::new(failures).unwrap(),
            probes: NonZeroU32::new(probes).unwrap(),
            ..Settings::default()
        };
        let mut breaker = Breaker::new(settings, START).unwrap();
        let closed = Epoch::Closed { failures: Vec::new() };
        let mut model = Model { settings, epochs: vec![closed], latency: Latency::default() };
        let (mut now, mut calls) = (START, Vec::<Known>::new());
        for step in steps {
            match step {
                Step::Wait(millis) => now += Duration::from_millis(millis),
                Step::Enter { deadline } => {
                    let mut call = Call::at(now);
                    if let Some(millis) = deadline {
                        call = call.within(Duration::from_millis(millis));
                    }
                    prop_assert_eq!(breaker.would_admit(now), model.admits(now));
                    let admitted = breaker.admit(&call);
                    prop_assert_eq!(admitted.is_ok(), model.enter(now));
                    match admitted {
                        Ok(ticket) => calls.push(Known {
                            ticket,
                            epoch: model.epochs.len(),
                            began: now,
                            deadline: call.deadline,
                            answered: false,
                            passed: false,
                        }),
                        Err(refused) => {
                            prop_assert_eq!(refused.by, By::Breaker);
                            prop_assert!(refused.retry_after.unwrap() > Duration::ZERO);
                        }
                    }
                }
                Step::Answer(which) if !calls.is_empty() => {
                    let which = which % calls.len();
                    breaker.answered(&mut calls[which].ticket, now);
                    model.answered(&mut calls[which], now);
                }
                Step::End(which, outcome) if !calls.is_empty() => {
                    let call = calls.swap_remove(which % calls.len());
                    breaker.settle(call.ticket, outcome, now);
                    model.end(call, outcome, now);
                }
                Step::Answer(_) | Step::End(..) => {}
            }
            prop_assert_eq!(breaker.phase(), model.phase());
            prop_assert_eq!(breaker.era().number(), model.epochs.len() as u64);
            prop_assert_eq!(breaker.known_latency(), model.latency.bound());
        }
    }
}
