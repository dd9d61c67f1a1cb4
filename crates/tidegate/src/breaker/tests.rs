//! The shared object: threads, dropped permits, observers, tenants.

use std::{
    num::NonZeroU32,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::*;
use crate::{Event, Permit as _};

const START: Instant = Instant::from_nanos(1_700_000_000_000_000_000);
const OVERLOAD: Outcome = Outcome::Overload { retry_after: None };

fn seconds(seconds: u64) -> Instant {
    START + Duration::from_secs(seconds)
}

fn enter(breaker: &Breaker, now: Instant) -> Result<Permit, Refused> {
    breaker.admit(&Call::at(now))
}

fn open(breaker: &Breaker) {
    for _ in 0..5 {
        enter(breaker, START).expect("a closed breaker admits").settle(OVERLOAD, START);
    }
    assert_eq!(breaker.snapshot(START).phase, Phase::Open { until: seconds(5) });
}

#[test]
fn of_64_threads_after_the_open_period_exactly_as_many_as_probes_are_admitted() {
    for probes in [1, 3] {
        let settings = Settings { probes: NonZeroU32::new(probes).unwrap(), ..Settings::default() };
        let breaker = Breaker::new(settings).unwrap();
        open(&breaker);
        let (together, admitted) = (Barrier::new(64), AtomicUsize::new(0));
        let permits: Vec<_> = thread::scope(|scope| {
            let callers: Vec<_> = (0..64)
                .map(|_| {
                    scope.spawn(|| {
                        together.wait();
                        let permit = enter(&breaker, seconds(5));
                        admitted.fetch_add(usize::from(permit.is_ok()), Ordering::Relaxed);
                        permit
                    })
                })
                .collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        assert_eq!(admitted.into_inner(), probes as usize);
        permits.into_iter().flatten().for_each(|probe| probe.settle(Outcome::Success, seconds(5)));
        assert_eq!(breaker.snapshot(seconds(5)).phase, Phase::Closed);
    }
}

#[test]
fn a_late_success_of_the_closed_era_does_not_close_it_while_the_probe_is_out() {
    let breaker = Breaker::new(Settings::default()).unwrap();
    let late = enter(&breaker, START).unwrap();
    open(&breaker);
    let probe = enter(&breaker, seconds(5)).unwrap();
    late.settle(Outcome::Success, seconds(6));
    assert_eq!(breaker.snapshot(seconds(6)).phase, Phase::HalfOpen);
    assert!(enter(&breaker, seconds(6)).is_err());
    probe.settle(Outcome::Success, seconds(6));
    assert_eq!(breaker.snapshot(seconds(6)).phase, Phase::Closed);
}

#[test]
fn a_probe_that_is_dropped_at_once_lets_another_try() {
    let breaker = Breaker::new(Settings::default()).unwrap();
    let now = clock::now();
    for _ in 0..5 {
        enter(&breaker, now).unwrap().settle(OVERLOAD, now - Duration::from_secs(60));
    }
    for _ in 0..100 {
        // A caller that just came, as far as the clock that drop reads can tell.
        drop(enter(&breaker, clock::now()).unwrap());
        assert_eq!(breaker.snapshot(now).phase, Phase::HalfOpen);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hung_upstream_behind_its_callers_deadlines_opens_it() {
    for deadline in [50, 200, 2000].map(Duration::from_millis) {
        let breaker = Breaker::new(Settings::default()).unwrap();
        let mut forwarded = 0;
        for _ in 0..200 {
            let call = Call::at(clock::now()).within(deadline);
            let upstream = async {
                let _permit = breaker.admit(&call)?;
                forwarded += 1;
                future::pending::<Result<(), Refused>>().await
            };
            let _ = tokio::time::timeout_at(clock::timer_at(call.deadline.unwrap()), upstream).await;
        }
        assert_eq!(forwarded, 5, "with a deadline of {deadline:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn impatient_callers_of_a_healthy_upstream_do_not_open_it() {
    let breaker = Breaker::new(Settings::default()).unwrap();
    for n in 0..200 {
        let permit = enter(&breaker, clock::now()).unwrap();
        tokio::time::advance(Duration::from_millis(if n % 2 == 0 { 50 } else { 20 })).await;
        if n % 2 == 0 {
            permit.settle(Outcome::Success, clock::now());
        }
    }
    assert_eq!(breaker.snapshot(clock::now()).failures, 0);
}

#[test]
fn changes_are_told_in_order_and_outside_the_lock() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::new(std::sync::OnceLock::<Breaker>::new());
    let observer = {
        let (told, asked) = (Arc::clone(&told), Arc::clone(&asked));
        move |event: Event<'_>| match event {
            Event::BreakerChanged { name, era, from, to, .. } => {
                let seen = asked.get().expect("the breaker is there before it changes").snapshot(START);
                assert_eq!(seen.era, era, "asking back from an observer does not deadlock");
                told.lock().push(format!("{name}: {} to {}", from.as_str(), to.as_str()));
            }
        }
    };
    let breaker = Breaker::observed(Settings::default(), "orders", Arc::new(observer)).unwrap();
    asked.set(breaker.clone()).unwrap();
    open(&breaker);
    let probe = enter(&breaker, seconds(5)).unwrap();
    probe.settle(OVERLOAD, seconds(5));
    let probe = enter(&breaker, seconds(10)).unwrap();
    probe.settle(Outcome::Success, seconds(10));
    let expected = [
        "orders: closed to open",
        "orders: open to half-open",
        "orders: half-open to open",
        "orders: open to half-open",
        "orders: half-open to closed",
    ];
    assert_eq!(*told.lock(), expected);
}

#[test]
fn a_permit_that_outlives_its_breaker_counts_nothing_for_the_next_one_in_its_place() {
    let slot: &'static Slot = Box::leak(Box::new(Slot::new(Settings::default(), None, START).unwrap()));
    let outlived: Vec<_> =
        (0..20).map(|_| Permit { slot, ticket: slot.admit(&Call::at(START)).unwrap() }).collect();
    slot.let_to(Settings::default(), None, START).unwrap();
    outlived.into_iter().for_each(|permit| permit.settle(OVERLOAD, START));
    let snapshot = slot.snapshot(START);
    assert_eq!((snapshot.phase, snapshot.failures), (Phase::Closed, 0));
}

#[test]
fn the_snapshot_tells_since_when_how_often_and_how_many() {
    let breaker = Breaker::new(Settings::default()).unwrap();
    open(&breaker);
    assert!((0..7).all(|_| enter(&breaker, seconds(2)).is_err()));
    assert_eq!(breaker.retry_in(seconds(2)), Duration::from_secs(3));
    let snapshot = breaker.snapshot(seconds(2));
    assert_eq!((snapshot.since, snapshot.opened, snapshot.refused), (START, 1, 7));
    let probe = enter(&breaker, seconds(5)).unwrap();
    assert!(enter(&breaker, seconds(5)).is_err());
    assert_eq!(breaker.retry_in(seconds(5)), Duration::from_secs(1), "no latency is known");
    probe.settle(Outcome::Success, seconds(6));
    let snapshot = breaker.snapshot(seconds(6));
    assert_eq!((snapshot.since, snapshot.opened, snapshot.refused), (seconds(6), 1, 8));
    assert_eq!(breaker.retry_in(seconds(6)), Duration::ZERO);
}

#[test]
fn breakers_that_come_and_go_do_not_grow_the_process() {
    // Other tests hold breakers of their own meanwhile, far fewer than come and go here.
    for _ in 0..10_000 {
        drop(Breaker::new(Settings::default()).unwrap());
    }
    assert!(VACANT.lock().len() < 1000);
}

#[test]
fn only_one_success_in_ten_milliseconds_is_a_sample() {
    let breaker = Breaker::new(Settings::default()).unwrap();
    for micros in 0..1000 {
        let now = START + Duration::from_micros(micros);
        enter(&breaker, now).unwrap().settle(Outcome::Success, now + Duration::from_millis(micros.min(1)));
    }
    // The first took no time at all and is the only one seen.
    let floor = tidegate_core::breaker::SHORTEST_EVIDENCE;
    assert_eq!(breaker.snapshot(START).known_latency, Some(floor));
    let later = START + Duration::from_secs(1);
    enter(&breaker, later).unwrap().settle(Outcome::Success, later + Duration::from_secs(1));
    assert!(breaker.snapshot(later).known_latency.unwrap() > Duration::from_millis(100));
}

#[test]
fn a_stream_that_answered_closes_it_and_may_be_left() {
    let breaker = Breaker::new(Settings::default()).unwrap();
    open(&breaker);
    let mut stream = enter(&breaker, seconds(5)).unwrap();
    stream.answered(seconds(5));
    assert_eq!(breaker.snapshot(seconds(5)).phase, Phase::Closed);
    drop(stream);
    let mut streams: Vec<_> = (0..20).map(|_| enter(&breaker, START).unwrap()).collect();
    streams.iter_mut().for_each(|stream| stream.answered(START));
    drop(streams);
    assert_eq!(breaker.snapshot(START).failures, 0);
}

#[test]
fn threads_with_every_outcome_leave_it_able_to_close() {
    let breaker = Breaker::new(Settings::default()).unwrap();
    let start = clock::now(); // A drop reads the clock itself.
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let breaker = &breaker;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(thread);
                for step in 0..20_000 {
                    let now = start + Duration::from_millis(step * 20);
                    let Ok(mut permit) = enter(breaker, now) else { continue };
                    let then = now + Duration::from_millis(random.u64(0..200));
                    match random.u8(0..8) {
                        0 => permit.settle(Outcome::Success, then),
                        1 => permit.settle(Outcome::Ignore, then),
                        2 | 3 => permit.settle(OVERLOAD, then),
                        4 => permit.settle(Outcome::Abandoned, then),
                        5 => permit.settle(Outcome::Unsent, then),
                        6 => permit.answered(then),
                        _ => drop(permit),
                    }
                }
            });
        }
    });
    let later = start + Duration::from_secs(24 * 60 * 60);
    enter(&breaker, later).unwrap().settle(Outcome::Success, later);
    assert_eq!(breaker.snapshot(later).phase, Phase::Closed);
}
