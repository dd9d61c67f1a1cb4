//! The throttle as its callers see it: exact, bounded, all or none, and patient.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use proptest::{collection::vec, prelude::*};
use tidegate::{
    By, Call, Gate, Instant, Outcome, Permit, Refused, clock,
    throttle::{
        Algorithm, AlgorithmChanged, Key, MAX_LIMITS, Mode, Quota, Ruling, Throttle, enter_all, enter_all_at,
    },
};
use tidegate_core::{Counter, Decision, Gcra};

const ALGORITHMS: [Algorithm; 3] = [Algorithm::TokenBucket, Algorithm::FixedWindow, Algorithm::SlidingWindow];

fn quota(rate: &str, algorithm: Algorithm) -> Quota {
    Quota::of(rate.parse().expect("a rate")).algorithm(algorithm).build().expect("a quota")
}

fn small(quota: Quota, max_keys: u32) -> Throttle {
    Throttle::builder(quota).max_keys(NonZeroU32::new(max_keys).expect("some keys")).build()
}

fn key(number: u32) -> Key {
    Key::of(&number.to_le_bytes())
}

fn at(millis: u64) -> Instant {
    Instant::from_nanos(1_790_000_000_000_000_000) + Duration::from_millis(millis)
}

#[test]
fn each_key_has_a_quota_of_its_own() {
    for algorithm in ALGORITHMS {
        let throttle = Throttle::new(quota("2/s", algorithm));
        let call = Call::at(at(0));
        for user in 0..3 {
            assert!(throttle.try_enter(&call, &key(user)).is_ok());
            assert!(throttle.try_enter(&call, &key(user)).is_ok());
            let refused = throttle.try_enter(&call, &key(user)).unwrap_err();
            assert_eq!(refused.by, By::Quota);
            let again = Call::at(call.now + refused.retry_after.unwrap());
            assert!(throttle.try_enter(&again, &key(user)).is_ok(), "{algorithm:?}");
        }
    }
}

#[test]
fn a_call_that_can_never_go_is_not_told_to_retry() {
    let throttle = Throttle::new(quota("2/s", Algorithm::TokenBucket));
    let refused = throttle.try_enter(&Call::at(at(0)).cost(3), &Key::ALL).unwrap_err();
    assert_eq!(refused, Refused::new(By::Quota));
    let none = Throttle::new(quota("0/s", Algorithm::SlidingWindow));
    assert_eq!(none.try_enter(&Call::at(at(0)), &Key::ALL).unwrap_err(), Refused::new(By::Quota));
}

#[test]
fn what_was_not_sent_goes_back_and_what_was_does_not() {
    for algorithm in ALGORITHMS {
        let throttle = Throttle::new(quota("1/min", algorithm));
        let call = Call::at(at(0));
        throttle.try_enter(&call, &Key::ALL).unwrap().settle(Outcome::Unsent, at(1));
        let permit = throttle.try_enter(&Call::at(at(2)), &Key::ALL).unwrap();
        permit.settle(Outcome::Abandoned, at(3));
        assert!(throttle.try_enter(&Call::at(at(4)), &Key::ALL).is_err(), "{algorithm:?}");
        let stats = throttle.stats();
        assert_eq!((stats.admitted, stats.refunded, stats.refused, stats.keys), (2, 1, 1, 1));
    }
}

#[test]
fn a_shadow_counts_and_never_refuses() {
    let throttle = Throttle::builder(quota("1/s", Algorithm::TokenBucket)).mode(Mode::Shadow).build();
    for _ in 0..3 {
        throttle.try_enter(&Call::at(at(0)), &Key::ALL).unwrap().settle(Outcome::Success, at(0));
    }
    assert_eq!((throttle.stats().admitted, throttle.stats().shadow_refused), (1, 2));
    throttle.set_mode(Mode::Enforce);
    assert!(throttle.try_enter(&Call::at(at(0)), &Key::ALL).is_err(), "its counters go on");
}

#[test]
fn a_changed_quota_keeps_what_was_counted() {
    for algorithm in ALGORITHMS {
        let throttle = Throttle::new(quota("100/min", algorithm));
        throttle.try_enter(&Call::at(at(0)).cost(50), &Key::ALL).unwrap().settle(Outcome::Success, at(0));
        throttle.update(quota("60/min", algorithm)).unwrap();
        let limits = [(&throttle, Key::ALL)];
        let left = enter_all(&limits, &Call::at(at(1)).cost(0)).standings()[0].remaining();
        // A bucket half full stays half full; a window keeps its count.
        assert_eq!(left, if algorithm == Algorithm::TokenBucket { 30 } else { 10 });
    }
    let throttle = Throttle::new(quota("1/s", Algorithm::TokenBucket));
    assert_eq!(throttle.update(quota("1/s", Algorithm::FixedWindow)), Err(AlgorithmChanged));
}

#[test]
fn several_limits_are_charged_all_or_none() {
    let client = Throttle::new(quota("10/s", Algorithm::FixedWindow));
    let backend = Throttle::new(quota("2/s", Algorithm::TokenBucket));
    let burst = Throttle::new(quota("4/min", Algorithm::SlidingWindow));
    let limits = [(&client, key(1)), (&backend, Key::ALL), (&burst, key(1))];
    for _ in 0..2 {
        assert!(enter_all(&limits, &Call::at(at(0))).into_grants().is_ok());
    }
    let verdict = enter_all(&limits, &Call::at(at(0)));
    let refusal = verdict.refusal().unwrap();
    assert_eq!((refusal.limit, refusal.refused.retry_after), (1, Some(Duration::from_millis(500))));
    let seen = verdict
        .standings()
        .iter()
        .map(|standing| (standing.limit(), standing.remaining(), standing.ruling()));
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [(10, 8, Ruling::Admits), (2, 0, Ruling::Refuses), (4, 2, Ruling::Admits)]
    );
    // Two limits refuse: the longer wait is the answer.
    let verdict = enter_all(&limits, &Call::at(at(0)).cost(3));
    let refusal = verdict.refusal().unwrap();
    assert_eq!((refusal.limit, refusal.refused.retry_after), (1, None), "3 never fit a burst of 2");
    assert_eq!((client.stats().undone, backend.stats().refused, burst.stats().refused), (2, 2, 1));
}

#[test]
fn a_call_may_cost_something_else_in_each_limit() {
    let (calls, bytes) = (
        small(quota("2/h", Algorithm::FixedWindow), 100),
        small(quota("100/h", Algorithm::TokenBucket), 100),
    );
    let limits = [(&calls, key(1)), (&bytes, key(1))];
    let call = Call::at(at(0));
    let verdict = enter_all_at(&limits, &[1, 70], &call);
    assert_eq!(verdict.standings().iter().map(|s| s.remaining()).collect::<Vec<_>>(), [1, 30]);
    assert!(verdict.into_grants().is_ok());
    let refused = enter_all_at(&limits, &[1, 31], &call);
    assert_eq!(refused.refusal().map(|refusal| refusal.limit), Some(1));
    assert_eq!(refused.standings()[0].remaining(), 1, "all or none");
    let grants = enter_all_at(&limits, &[1, 30], &call).into_grants().unwrap();
    grants.settle(Outcome::Unsent, at(0));
    let verdict = enter_all_at(&limits, &[0, 0], &call);
    assert_eq!(verdict.standings().iter().map(|s| s.remaining()).collect::<Vec<_>>(), [1, 30]);
}

#[test]
fn grants_of_several_limits_go_back_together() {
    let (one, two) = (
        Throttle::new(quota("1/s", Algorithm::FixedWindow)),
        Throttle::new(quota("1/s", Algorithm::TokenBucket)),
    );
    let limits = [(&one, Key::ALL), (&two, Key::ALL)];
    for _ in 0..3 {
        enter_all(&limits, &Call::at(at(0))).into_grants().unwrap().settle(Outcome::Unsent, at(0));
    }
    assert!(enter_all(&limits, &Call::at(at(0))).into_grants().is_ok());
    assert!(enter_all(&limits, &Call::at(at(0))).into_grants().is_err());
}

#[test]
fn a_limit_may_be_listed_twice() {
    let throttle = Throttle::new(quota("3/s", Algorithm::TokenBucket));
    let limits = [(&throttle, key(1)), (&throttle, key(1))];
    assert!(enter_all(&limits, &Call::at(at(0))).into_grants().is_ok());
    let verdict = enter_all(&limits, &Call::at(at(0)));
    assert_eq!(verdict.refusal().unwrap().limit, 1);
    assert_eq!(verdict.standings()[0].remaining(), 1, "the first charge was undone");
}

#[test]
fn threads_that_take_limits_in_any_order_neither_deadlock_nor_exceed_them() {
    let throttles: Vec<_> =
        ALGORITHMS.into_iter().map(|algorithm| small(quota("1000/d", algorithm), 2048)).collect();
    let admitted = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for turn in 0..4 {
            let (throttles, admitted) = (&throttles, &admitted);
            scope.spawn(move || {
                for _ in 0..1000 {
                    let limits: [_; 3] =
                        std::array::from_fn(|limit| (&throttles[(limit + turn) % 3], key(7)));
                    let verdict = enter_all(&limits, &Call::at(at(0)));
                    admitted.fetch_add(u32::from(verdict.refusal().is_none()), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(admitted.into_inner(), 1000);
}

#[test]
fn a_million_keys_take_at_most_a_hundred_bytes_each() {
    for algorithm in ALGORITHMS {
        let throttle = Throttle::new(quota("5/d", algorithm));
        assert!(throttle.stats().bytes < 300_000, "empty: {}", throttle.stats().bytes);
        for user in 0..1_000_000 {
            assert!(throttle.try_enter(&Call::at(at(0)), &key(user)).is_ok());
        }
        let stats = throttle.stats();
        assert!(stats.bytes <= 100_000_000, "{algorithm:?}: {} bytes", stats.bytes);
        assert!(stats.keys >= 999_000 && stats.keys <= stats.capacity, "{algorithm:?}: {stats:?}");
        // More at the same instant: nothing is forgotten, and no more memory is taken.
        for user in 1_000_000..1_200_000 {
            let _ = throttle.try_enter(&Call::at(at(0)), &key(user));
        }
        assert!(throttle.stats().shared > 50_000);
        // When all have rested, new keys take their places.
        let later = Call::at(at(3 * 86_400_000));
        for user in 2_000_000..2_100_000 {
            assert!(throttle.try_enter(&later, &key(user)).is_ok());
        }
        assert_eq!(throttle.stats().bytes, stats.bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiter_is_polled_twice_and_waits_for_its_own_turn() {
    let throttle = Arc::new(Throttle::new(quota("1/100ms", Algorithm::TokenBucket)));
    let began = clock::now();
    let call = Call::at(began).within(Duration::from_millis(450));
    let waiters: Vec<_> = (0..8)
        .map(|_| {
            let throttle = Arc::clone(&throttle);
            tokio::spawn(async move {
                let mut polls = 0;
                let mut entered = std::pin::pin!(throttle.enter(&call, &Key::ALL));
                let entered = std::future::poll_fn(|context| {
                    polls += 1;
                    entered.as_mut().poll(context)
                })
                .await;
                (entered.map(|_| clock::now().since(began).as_millis()), polls)
            })
        })
        .collect();
    let mut turns = Vec::new();
    for waiter in waiters {
        match waiter.await.unwrap() {
            (Ok(turn), polls) => {
                assert!(polls <= 2, "{polls} polls");
                turns.push(turn);
            }
            (Err(refused), polls) => {
                assert_eq!((refused.by, polls), (By::WaitTooLong, 1));
                assert_eq!(refused.retry_after, Some(Duration::from_millis(500)));
            }
        }
    }
    assert_eq!(turns.len(), 5);
    assert!(
        turns.iter().zip([0, 100, 200, 300, 400]).all(|(turn, due)| (due..due + 3).contains(turn)),
        "{turns:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_waiter_gives_its_turn_back() {
    let throttle = Throttle::new(quota("1/s", Algorithm::TokenBucket));
    let now = clock::now();
    let call = Call::at(now);
    let _sent = throttle.try_enter(&call, &Key::ALL).unwrap();
    {
        let mut waiting = tokio_test::task::spawn(throttle.enter(&call, &Key::ALL));
        assert!(waiting.poll().is_pending());
        let behind = throttle.try_enter(&call, &Key::ALL).unwrap_err();
        assert_eq!(behind.retry_after, Some(Duration::from_secs(2)));
    }
    let next = throttle.try_enter(&call, &Key::ALL).unwrap_err();
    assert_eq!(next.retry_after, Some(Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn a_throttle_composes_with_other_gates() {
    let (first, second) = (
        Throttle::new(quota("1/h", Algorithm::TokenBucket)),
        Throttle::new(quota("5/h", Algorithm::FixedWindow)),
    );
    let gates = (&second, &first);
    let call = Call::at(clock::now());
    assert!(gates.try_enter(&call, &Key::ALL).is_ok());
    assert!(gates.try_enter(&call, &Key::ALL).is_err());
    assert_eq!(second.stats().refunded, 1, "what the second gate shed, the first refunded");
}

#[test]
#[should_panic(expected = "at most 8 limits")]
fn more_limits_than_there_is_room_for_are_a_mistake_of_the_caller() {
    let throttle = Throttle::new(quota("1/s", Algorithm::TokenBucket));
    let _ = enter_all(&[(&throttle, Key::ALL); MAX_LIMITS + 1], &Call::at(at(0)));
}

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Enter { user: u32, cost: u32 },
    Refund(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(
        prop_oneof![
            2 => prop_oneof![Just(0), 1..200u64, 200..3000u64].prop_map(Step::Pass),
            8 => (0..40u32, prop_oneof![Just(1u32), 0..6u32]).prop_map(|(user, cost)| Step::Enter { user, cost }),
            2 => prop_oneof![Just(0usize), 0..40usize].prop_map(Step::Refund),
        ],
        1..300,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn with_far_too_little_room_no_key_exceeds_its_quota(
        steps in steps(), algorithm in proptest::sample::select(&ALGORITHMS), rate in proptest::sample::select(vec!["1/s", "3/s", "5/s"])
    ) {
        let quota = quota(rate, algorithm);
        // One bucket of seven for forty keys.
        let throttle = small(quota, 1);
        let (mut now, mut held) = (at(0), Vec::new());
        for step in &steps {
            match *step {
                Step::Pass(millis) => now += Duration::from_millis(millis),
                Step::Enter { user, cost } => {
                    if let Ok(permit) = throttle.try_enter(&Call::at(now).cost(cost), &key(user)) {
                        held.push((user, now, cost, permit));
                    }
                }
                Step::Refund(back) => {
                    if back < held.len() {
                        let (_, _, _, permit) = held.remove(held.len() - 1 - back);
                        permit.settle(Outcome::Unsent, now);
                    }
                }
            }
        }
        prop_assert!(throttle.stats().keys <= 7);
        let mut sent: HashMap<u32, Vec<(u64, u64)>> = HashMap::new();
        for (user, at, cost, _) in &held {
            sent.entry(*user).or_default().push((at.as_nanos(), u64::from(*cost)));
        }
        let (limit, period) = (u64::from(quota.limit()), 1_000_000_000);
        for sent in sent.values() {
            for (first, (from, _)) in sent.iter().enumerate() {
                let taken_to = |end: u64| sent[first..].iter().take_while(|(at, _)| *at < end).map(|(_, cost)| cost).sum::<u64>();
                match algorithm {
                    Algorithm::SlidingWindow => prop_assert!(taken_to(from + period) <= limit),
                    Algorithm::FixedWindow => prop_assert!(taken_to(from - from % period + period) <= limit),
                    Algorithm::TokenBucket => for (to, _) in &sent[first..] {
                        prop_assert!(taken_to(to + 1) * period <= limit * period + (to - from) * limit);
                    },
                }
            }
        }
    }

    #[test]
    fn several_limits_decide_as_counters_without_bound_do(
        calls in vec((0..2000u64, vec((0..3usize, 0..4u32), 1..6), 0..4u32), 1..120)
    ) {
        let quotas = [quota("3/s", Algorithm::TokenBucket), quota("5/s", Algorithm::TokenBucket), quota("9/2s", Algorithm::TokenBucket)];
        let throttles = quotas.map(|quota| small(quota, 5000));
        let mut model: HashMap<(usize, u32), Gcra> = HashMap::new();
        let mut now = at(0);
        for (pass, limits, cost) in calls {
            now += Duration::from_millis(pass / 4);
            let mut after = model.clone();
            let mut admits = true;
            for (limit, user) in &limits {
                let counter = after.entry((*limit, *user)).or_default();
                admits &= matches!(counter.take(&quotas[*limit], cost, now), Decision::Admit(_));
            }
            if admits {
                model = after;
            }
            let listed: Vec<_> = limits.iter().map(|(limit, user)| (&throttles[*limit], key(*user))).collect();
            let verdict = enter_all(&listed, &Call::at(now).cost(cost));
            prop_assert_eq!(verdict.refusal().is_none(), admits);
            for ((limit, user), standing) in limits.iter().zip(verdict.standings()).rev().take(1) {
                let left = model.get(&(*limit, *user)).copied().unwrap_or_default().standing(&quotas[*limit], now);
                prop_assert!(!admits || standing.remaining() == left.remaining);
            }
        }
    }
}
