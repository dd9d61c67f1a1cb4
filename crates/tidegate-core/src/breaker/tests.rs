//! What each outcome does in each state.

use std::num::NonZeroU32;

use super::*;

const START: Instant = Instant::from_nanos(1_700_000_000_000_000_000);
const OVERLOAD: Outcome = Outcome::Overload { retry_after: None };

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(after: u64) -> Instant {
    START + millis(after)
}

fn call(after: u64) -> Call {
    Call::at(at(after))
}

fn breaker(probes: u32) -> Breaker {
    let probes = NonZeroU32::new(probes).unwrap();
    Breaker::new(Settings { probes, ..Settings::default() }, START).unwrap()
}

fn end(breaker: &mut Breaker, began: u64, outcome: Outcome, ended: u64) {
    let ticket = breaker.admit(&call(began)).unwrap();
    breaker.settle(ticket, outcome, at(ended));
}

/// A breaker that opened at `START` + 0 ms, and so tries probes from 5 s on.
fn opened(probes: u32) -> Breaker {
    let mut breaker = breaker(probes);
    (0..5).for_each(|_| end(&mut breaker, 0, OVERLOAD, 0));
    assert_eq!(breaker.phase(), Phase::Open { until: at(5000) });
    breaker
}

/// The same, half-open since 5 s, with the ticket of its first probe.
fn probing(probes: u32) -> (Breaker, Ticket) {
    let mut breaker = opened(probes);
    let probe = breaker.admit(&call(5000)).unwrap();
    assert_eq!(breaker.phase(), Phase::HalfOpen);
    (breaker, probe)
}

#[test]
fn five_failures_within_the_window_open_it_and_four_do_not() {
    let mut breaker = breaker(1);
    (0..4).for_each(|n| end(&mut breaker, n * 1000, OVERLOAD, n * 1000));
    assert_eq!(breaker.phase(), Phase::Closed);
    assert_eq!(breaker.failures(at(3000)), 4);
    end(&mut breaker, 9000, OVERLOAD, 9000);
    assert_eq!(breaker.phase(), Phase::Open { until: at(14_000) });
}

#[test]
fn failures_further_apart_than_the_window_do_not_open_it() {
    let mut breaker = breaker(1);
    (0..50).for_each(|n| end(&mut breaker, n * 2700, OVERLOAD, n * 2700));
    assert_eq!(breaker.phase(), Phase::Closed);
}

#[test]
fn a_success_resets_nothing() {
    let mut breaker = breaker(1);
    for n in 0..5 {
        end(&mut breaker, n, Outcome::Success, n);
        end(&mut breaker, n, OVERLOAD, n);
    }
    assert_ne!(breaker.phase(), Phase::Closed);
}

#[test]
fn what_says_nothing_about_the_dependency_never_opens_it() {
    let mut breaker = breaker(1);
    for n in 0..100 {
        end(&mut breaker, n, Outcome::Ignore, n);
        end(&mut breaker, n, Outcome::Unsent, n + 60_000);
    }
    assert_eq!((breaker.phase(), breaker.failures(at(100))), (Phase::Closed, 0));
}

#[test]
fn a_refusal_says_how_long_until_probes_may_go() {
    let mut breaker = opened(1);
    let refused = breaker.admit(&call(1500)).unwrap_err();
    assert_eq!(refused, Refused::after(By::Breaker, millis(3500)));
    assert!(!breaker.would_admit(at(4999)));
    assert!(breaker.would_admit(at(5000)));
    assert_eq!(breaker.phase(), Phase::Open { until: at(5000) }, "a peek changes nothing");
}

#[test]
fn exactly_as_many_calls_as_probes_go_half_open() {
    for probes in 1..5 {
        let mut breaker = opened(probes);
        let admitted = (0..64).filter(|_| breaker.admit(&call(5000)).is_ok()).count();
        assert_eq!(admitted, probes as usize);
        assert!(!breaker.would_admit(at(5001)));
    }
}

#[test]
fn all_probes_must_pass_to_close_it() {
    let (mut breaker, first) = probing(2);
    breaker.settle(first, Outcome::Success, at(5010));
    assert_eq!(breaker.phase(), Phase::HalfOpen);
    let second = breaker.admit(&call(5020)).unwrap();
    assert!(breaker.admit(&call(5020)).is_err(), "two probes in all, not two at once");
    breaker.settle(second, Outcome::Ignore, at(5030));
    assert_eq!((breaker.phase(), breaker.failures(at(5030))), (Phase::Closed, 0));
}

#[test]
fn a_failed_probe_opens_it_again() {
    let (mut breaker, probe) = probing(1);
    assert_eq!((breaker.opened(), breaker.since()), (1, at(5000)));
    breaker.settle(probe, OVERLOAD, at(6000));
    assert_eq!(breaker.phase(), Phase::Open { until: at(11_000) });
    assert_eq!((breaker.opened(), breaker.since()), (2, at(6000)));
}

#[test]
fn the_dependency_may_ask_for_a_longer_pause_but_not_for_any() {
    for (asked, pause) in [(0, 5000), (4000, 5000), (20_000, 20_000), (3_600_000, 50_000)] {
        let (mut breaker, probe) = probing(1);
        breaker.settle(probe, Outcome::Overload { retry_after: Some(millis(asked)) }, at(6000));
        assert_eq!(breaker.phase(), Phase::Open { until: at(6000 + pause) }, "asked for {asked} ms");
    }
}

#[test]
fn a_late_end_of_an_earlier_era_counts_nothing() {
    for outcome in [Outcome::Success, Outcome::Ignore, OVERLOAD, Outcome::Abandoned, Outcome::Unsent] {
        let mut breaker = breaker(1);
        let late: [Ticket; 3] = std::array::from_fn(|_| breaker.admit(&call(0)).unwrap());
        (0..5).for_each(|_| end(&mut breaker, 0, OVERLOAD, 0));
        breaker.settle(late[0], outcome, at(4000));
        assert_eq!(breaker.phase(), Phase::Open { until: at(5000) }, "{outcome:?} while open");
        let probe = breaker.admit(&call(5000)).unwrap();
        breaker.settle(late[1], outcome, at(5001));
        assert_eq!(breaker.phase(), Phase::HalfOpen, "{outcome:?} while the probe is out");
        assert!(!breaker.would_admit(at(5001)), "{outcome:?} frees no slot");
        breaker.settle(probe, Outcome::Success, at(5010));
        breaker.settle(late[2], outcome, at(9000));
        assert_eq!(
            (breaker.phase(), breaker.failures(at(9000))),
            (Phase::Closed, 0),
            "{outcome:?} when closed"
        );
        assert_eq!(breaker.known_latency(), Some(millis(30)), "{outcome:?} is no sample");
    }
}

#[test]
fn a_probe_that_was_not_sent_or_whose_caller_vanished_lets_another_try() {
    for outcome in [Outcome::Unsent, Outcome::Abandoned] {
        let (mut breaker, probe) = probing(1);
        assert!(!breaker.would_admit(at(5001)));
        breaker.settle(probe, outcome, at(5001));
        assert_eq!(breaker.phase(), Phase::HalfOpen, "{outcome:?}");
        let second = breaker.admit(&call(5001)).unwrap();
        breaker.settle(second, Outcome::Success, at(5002));
        assert_eq!(breaker.phase(), Phase::Closed, "{outcome:?}");
    }
}

#[test]
fn a_probe_that_hangs_for_ever_does_not_hold_it_half_open() {
    let (mut breaker, hung) = probing(1);
    let refused = breaker.admit(&call(5500)).unwrap_err();
    assert_eq!(refused, Refused::after(By::Breaker, UNKNOWN_LATENCY));
    assert!(breaker.admit(&call(9999)).is_err());
    let second = breaker.admit(&call(10_000)).unwrap();
    assert!(breaker.admit(&call(10_001)).is_err(), "one more for each open period, not a flood");
    breaker.settle(hung, Outcome::Unsent, at(10_002));
    assert!(breaker.admit(&call(10_003)).is_err(), "the second is still out");
    breaker.settle(second, Outcome::Success, at(10_010));
    assert_eq!(breaker.phase(), Phase::Closed);
}

#[test]
fn an_abandoned_call_is_a_failure_once_it_waited_longer_than_answers_take() {
    let deadline = millis(300);
    for (known, waited, with_deadline, evidence) in [
        (Some(50), 40, false, false),
        (Some(50), 200, false, true),
        (Some(50), 300, true, true),
        (Some(400), 300, true, false),
        (None, 200, false, false),
        (None, 299, true, false),
        (None, 300, true, true),
        (None, 1000, false, true),
    ] {
        let mut breaker = breaker(1);
        if let Some(known) = known {
            (0..50).for_each(|_| end(&mut breaker, 0, Outcome::Success, known));
        }
        let began = if with_deadline { call(1000).within(deadline) } else { call(1000) };
        let ticket = breaker.admit(&began).unwrap();
        breaker.settle(ticket, Outcome::Abandoned, at(1000 + waited));
        let counted = breaker.failures(at(1000 + waited)) == 1;
        assert_eq!(counted, evidence, "known {known:?}, waited {waited}, deadline {with_deadline}");
    }
}

#[test]
fn a_hung_dependency_behind_its_callers_deadlines_opens_it_and_impatient_callers_do_not() {
    let forwarded = |deadline: u64| {
        let mut breaker = breaker(1);
        (0..20).for_each(|n| end(&mut breaker, n, Outcome::Success, n + 20));
        let mut forwarded = 0;
        for n in 0..200 {
            let began = 1000 + n * 10;
            if let Ok(ticket) = breaker.admit(&call(began).within(millis(deadline))) {
                forwarded += 1;
                breaker.settle(ticket, Outcome::Abandoned, at(began + deadline));
            }
        }
        forwarded
    };
    assert_eq!(forwarded(100), 5, "hung");
    assert_eq!(forwarded(5), 200, "impatient");
}

#[test]
fn a_probe_passes_when_its_answer_begins_and_its_stream_counts_nothing_after() {
    let (mut breaker, mut stream) = probing(1);
    breaker.answered(&mut stream, at(5020));
    assert_eq!(breaker.phase(), Phase::Closed);
    breaker.settle(stream, OVERLOAD, at(9000));
    assert_eq!(breaker.failures(at(9000)), 0);
    let (mut breaker, mut stream) = probing(2);
    breaker.answered(&mut stream, at(5020));
    breaker.settle(stream, Outcome::Success, at(5030));
    assert_eq!(breaker.phase(), Phase::HalfOpen, "one probe passes once");
}

#[test]
fn walking_away_from_a_stream_that_answered_is_no_failure_and_its_breaking_is() {
    let mut breaker = breaker(1);
    let mut stream = breaker.admit(&call(0)).unwrap();
    breaker.answered(&mut stream, at(20));
    assert_eq!(
        breaker.known_latency(),
        Some(millis(60)),
        "the answer took 20 ms, whatever the stream will take"
    );
    breaker.settle(stream, Outcome::Abandoned, at(60_000));
    assert_eq!(breaker.failures(at(60_000)), 0);
    breaker.settle(stream, OVERLOAD, at(60_000));
    assert_eq!(breaker.failures(at(60_000)), 1);
}

#[test]
fn settings_change_under_way_and_bad_ones_say_what_is_wrong() {
    let mut breaker = breaker(1);
    (0..4).for_each(|_| end(&mut breaker, 0, OVERLOAD, 0));
    let fewer = Settings { failures: NonZeroU32::new(3).unwrap(), ..Settings::default() };
    breaker.reconfigure(fewer).unwrap();
    assert_eq!(breaker.failures(at(0)), 4, "counters survive");
    breaker.reconfigure(Settings { within: millis(500), ..fewer }).unwrap();
    assert_eq!(breaker.failures(at(0)), 0, "another window starts empty");
    let error = breaker.reconfigure(Settings { within: Duration::ZERO, ..fewer }).unwrap_err();
    assert_eq!(error.to_string(), "breaker: within is 0ns; it is between 1ms and 24h, like 10s");
    let error = Breaker::new(Settings { open_for: Duration::MAX, ..fewer }, START).unwrap_err();
    assert_eq!(error, InvalidSettings::OpenFor(Duration::MAX));
    assert_eq!(breaker.settings().within, millis(500));
}

#[test]
fn a_breaker_that_takes_over_ignores_the_tickets_of_the_one_before() {
    let mut before = breaker(1);
    let ticket = before.admit(&call(0)).unwrap();
    let mut after = Breaker::resume(Settings::default(), before.era().next(), at(0)).unwrap();
    (0..10).for_each(|_| after.settle(ticket, OVERLOAD, at(0)));
    assert_eq!(after.phase(), Phase::Closed);
}
