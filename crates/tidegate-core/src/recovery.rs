//! Whether a source that many keys are fetched from can be reached, and who finds out when it cannot: one probe at a
//! time, after a growing pause.
//!
//! It goes down by evidence of several keys: a key that fails alone says nothing about the others.

use std::time::Duration;

use crate::{Backoff, Dice, Instant};

/// Failures in a row, no two neighbours of one key, after which the source counts as unreachable.
pub const FAILURES: u32 = 3;

/// The number of a spell between two changes.
type Era = u64;

/// Leave to ask the source once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a leave is settled, or the next probe waits for it"]
pub struct Leave {
    era: Era,
}

/// What became of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The source answered, whatever it said.
    Answered,
    /// It could not be reached.
    Unreachable {
        /// What stands for the key that was asked for.
        key: u64,
        /// When the source wants to be asked again, if it said.
        retry_after: Option<Duration>,
    },
    /// Nothing is known: the attempt was given up.
    Abandoned,
}

/// Whether the source is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It answers, as far as is known. Goes to `Down` when several keys fail in a row.
    Up,
    /// It does not answer. Goes to `Probing` with the first who asks at or after `not_before`.
    Down {
        /// When a probe may go.
        not_before: Instant,
        /// Failed probes in a row, and the failures before them as one.
        tries: u32,
    },
    /// One probe is out. Goes to `Up` or `Down` by its end.
    Probing {
        /// As in `Down`.
        tries: u32,
    },
}

/// The state of one source.
#[derive(Clone, Debug)]
pub struct Recovery {
    reach: Reach,
    era: Era,
    /// Failures in a row while `Up`, and the key of the last one.
    failures: u32,
    last_key: Option<u64>,
    /// When it last went from down to up.
    recovered_at: Option<Instant>,
}

impl Default for Recovery {
    fn default() -> Self {
        Self { reach: Reach::Up, era: 0, failures: 0, last_key: None, recovered_at: None }
    }
}

impl Recovery {
    /// Asks for leave to ask the source.
    ///
    /// # Errors
    /// The instant before which it is no use to ask again; `now` itself while a probe is out.
    pub fn admit(&mut self, now: Instant) -> Result<Leave, Instant> {
        match self.reach {
            Reach::Up => {}
            Reach::Down { not_before, tries } if not_before <= now => {
                self.reach = Reach::Probing { tries };
                self.era += 1;
            }
            Reach::Down { not_before, .. } => return Err(not_before),
            Reach::Probing { .. } => return Err(now),
        }
        Ok(Leave { era: self.era })
    }

    /// Learns how asking ended. The end of what began in an earlier era changes nothing.
    pub fn settle(&mut self, leave: Leave, ended: Ended, backoff: &Backoff, now: Instant, dice: Dice) {
        if leave.era != self.era {
            return;
        }
        match (self.reach, ended) {
            (Reach::Up, Ended::Answered) => (self.failures, self.last_key) = (0, None),
            (Reach::Up, Ended::Unreachable { key, retry_after }) => {
                if self.last_key.replace(key) != Some(key) {
                    self.failures += 1;
                }
                if self.failures >= FAILURES {
                    self.down(1, retry_after, backoff, now, dice);
                }
            }
            (Reach::Probing { .. }, Ended::Answered) => self.up(now),
            (Reach::Probing { tries }, Ended::Unreachable { retry_after, .. }) => {
                self.down(tries.saturating_add(1), retry_after, backoff, now, dice);
            }
            (Reach::Probing { tries }, Ended::Abandoned) => {
                self.reach = Reach::Down { not_before: now, tries };
                self.era += 1;
            }
            (Reach::Up | Reach::Down { .. }, Ended::Abandoned) | (Reach::Down { .. }, _) => {}
        }
    }

    /// Learns that asking was answered which was settled as unreachable: late, but the source is there.
    pub fn answered_late(&mut self, now: Instant) {
        match self.reach {
            // Who answers late only is still to be left alone after some failures.
            Reach::Up => {}
            Reach::Down { .. } | Reach::Probing { .. } => self.up(now),
        }
    }

    fn up(&mut self, now: Instant) {
        (self.reach, self.failures, self.last_key) = (Reach::Up, 0, None);
        self.era += 1;
        self.recovered_at = Some(now);
    }

    fn down(&mut self, tries: u32, asked: Option<Duration>, backoff: &Backoff, now: Instant, dice: Dice) {
        self.reach = Reach::Down { not_before: backoff.next(tries, asked, now, dice), tries };
        self.era += 1;
    }

    /// Whether the source is there.
    pub const fn reach(&self) -> Reach {
        self.reach
    }

    /// When it last came back.
    pub const fn recovered_at(&self) -> Option<Instant> {
        self.recovered_at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Instant = Instant::from_nanos(1_700_000_000_000_000_000);
    const BACKOFF: Backoff =
        Backoff { floor: Duration::from_secs(1), base: Duration::from_secs(1), cap: Duration::from_secs(8) };

    fn at(seconds: u64) -> Instant {
        START + Duration::from_secs(seconds)
    }

    fn fail(recovery: &mut Recovery, key: u64, now: Instant) {
        let leave = recovery.admit(now).unwrap();
        recovery.settle(leave, Ended::Unreachable { key, retry_after: None }, &BACKOFF, now, Dice::LEAST);
    }

    fn down() -> Recovery {
        let mut recovery = Recovery::default();
        (0..3).for_each(|key| fail(&mut recovery, key, START));
        recovery
    }

    #[test]
    fn a_key_that_fails_alone_says_nothing_about_the_others() {
        let mut recovery = Recovery::default();
        (0..100).for_each(|_| fail(&mut recovery, 7, START));
        assert_eq!(recovery.reach(), Reach::Up);
        fail(&mut recovery, 8, START);
        fail(&mut recovery, 7, START);
        assert_eq!(recovery.reach(), Reach::Down { not_before: at(1), tries: 1 });
    }

    #[test]
    fn one_probe_goes_after_the_pause_and_its_success_lets_all_go() {
        let mut recovery = down();
        assert_eq!(recovery.admit(START), Err(at(1)));
        let probe = recovery.admit(at(1)).unwrap();
        assert_eq!(recovery.admit(at(1)), Err(at(1)));
        recovery.settle(probe, Ended::Answered, &BACKOFF, at(2), Dice::LEAST);
        assert_eq!((recovery.reach(), recovery.recovered_at()), (Reach::Up, Some(at(2))));
        assert!(recovery.admit(at(2)).is_ok());
    }

    #[test]
    fn a_probe_that_fails_waits_longer_and_one_that_is_given_up_leaves_its_place() {
        let mut recovery = down();
        let probe = recovery.admit(at(1)).unwrap();
        recovery.settle(probe, Ended::Unreachable { key: 0, retry_after: None }, &BACKOFF, at(2), Dice::MOST);
        let Reach::Down { not_before, tries: 2 } = recovery.reach() else { panic!("down") };
        assert!(not_before > at(4) && not_before <= at(5));
        let probe = recovery.admit(at(5)).unwrap();
        recovery.settle(probe, Ended::Abandoned, &BACKOFF, at(6), Dice::MOST);
        assert!(recovery.admit(at(6)).is_ok());
    }

    #[test]
    fn a_late_success_of_an_earlier_era_closes_nothing() {
        let mut recovery = Recovery::default();
        let late = recovery.admit(START).unwrap();
        (0..3).for_each(|key| fail(&mut recovery, key, START));
        recovery.settle(late, Ended::Answered, &BACKOFF, START, Dice::LEAST);
        assert!(matches!(recovery.reach(), Reach::Down { .. }));
        let _probe = recovery.admit(at(1)).unwrap();
        recovery.settle(late, Ended::Answered, &BACKOFF, at(1), Dice::LEAST);
        assert!(matches!(recovery.reach(), Reach::Probing { .. }));
    }

    #[test]
    fn a_late_answer_to_what_counted_as_a_failure_shows_that_it_is_there() {
        let mut recovery = down();
        let probe = recovery.admit(at(1)).unwrap();
        recovery.settle(probe, Ended::Unreachable { key: 0, retry_after: None }, &BACKOFF, at(2), Dice::MOST);
        assert!(recovery.admit(at(3)).is_err());
        recovery.answered_late(at(3));
        assert_eq!((recovery.reach(), recovery.recovered_at()), (Reach::Up, Some(at(3))));
        // What another probe brings, which was out then, counts no more.
        let mut recovery = down();
        let probe = recovery.admit(at(1)).unwrap();
        recovery.answered_late(at(1));
        recovery.settle(probe, Ended::Unreachable { key: 0, retry_after: None }, &BACKOFF, at(2), Dice::MOST);
        assert_eq!(recovery.reach(), Reach::Up);
    }

    #[test]
    fn a_source_that_answers_late_only_is_left_alone_all_the_same() {
        let mut recovery = Recovery::default();
        for key in 0..3 {
            assert_eq!(recovery.reach(), Reach::Up);
            fail(&mut recovery, key, START);
            if key < 2 {
                recovery.answered_late(at(1));
            }
        }
        assert!(matches!(recovery.reach(), Reach::Down { .. }));
    }

    #[test]
    fn an_answer_between_failures_keeps_it_up() {
        let mut recovery = Recovery::default();
        for round in 0..10 {
            fail(&mut recovery, round, START);
            fail(&mut recovery, round + 100, START);
            let leave = recovery.admit(START).unwrap();
            recovery.settle(leave, Ended::Answered, &BACKOFF, START, Dice::LEAST);
        }
        assert_eq!(recovery.reach(), Reach::Up);
    }

    proptest! {
        #[test]
        fn while_it_is_down_at_most_one_attempt_is_out(
            steps in prop::collection::vec((0_u8..4, 0_u64..5, any::<u32>(), 0_u64..3000), 1..200)
        ) {
            let (mut recovery, mut out, mut now) = (Recovery::default(), Vec::new(), START);
            for (step, key, dice, wait) in steps {
                now += Duration::from_millis(wait);
                if step == 0 || out.is_empty() {
                    let before = recovery.reach();
                    if let Ok(leave) = recovery.admit(now) {
                        prop_assert!(!matches!(before, Reach::Probing { .. }), "a second probe");
                        out.push(leave);
                    }
                } else {
                    let ended = match step {
                        1 => Ended::Answered,
                        2 => Ended::Unreachable { key, retry_after: None },
                        _ => Ended::Abandoned,
                    };
                    recovery.settle(out.swap_remove(dice as usize % out.len()), ended, &BACKOFF, now, Dice(dice));
                }
                if let Reach::Probing { .. } = recovery.reach() {
                    prop_assert_eq!(out.iter().filter(|leave| leave.era == recovery.era).count(), 1);
                }
            }
        }
    }
}
