//! The limiter as a library, on a paused clock.
#![cfg(not(any(loom, shuttle)))]

#[path = "limiter/changes.rs"]
mod changes;
#[path = "limiter/waiting.rs"]
mod waiting;

use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_util::future::join_all;
use tidegate::{
    By, Call, Gate, Outcome, Permit as _,
    clock::now,
    limiter::{Adaptive, Bounds, Fixed, Gradient, Limiter, Nested, Order},
};
use tokio::time::{advance, sleep};

const MS: Duration = Duration::from_millis(1);

fn call() -> Call {
    Call::at(now())
}

fn limiter(limit: i64) -> Limiter {
    Limiter::builder().limit(limit).max_wait(Duration::from_secs(3600)).build().expect("valid settings")
}

fn refused(limiter: &Limiter, by: By) -> u64 {
    limiter.snapshot().refused.iter().find(|(reason, _)| *reason == by).expect("a rule of the limiter").1
}

#[test]
fn a_limit_that_admits_nothing_is_an_error_unless_off_is_written_out() {
    for (limit, text) in [
        (
            0,
            "a limit of 0 calls in flight would admit nothing; write a number from 1 to 1048575, or `off` for no limit",
        ),
        (
            -7,
            "a limit of -7 calls in flight would admit nothing; write a number from 1 to 1048575, or `off` for no limit",
        ),
    ] {
        assert_eq!(Limiter::new(limit).unwrap_err().to_string(), text);
    }
    assert!(Limiter::builder().build().unwrap_err().to_string().contains("set `limit`, or `off`"));
    assert!(
        Limiter::builder().limit(1).queue(u32::MAX).build().unwrap_err().to_string().contains("4294967295")
    );
    let off = Limiter::builder().off().build().unwrap();
    let permits: Vec<_> = (0..10_000).map(|_| off.try_acquire(&call()).unwrap()).collect();
    assert_eq!((off.limit(), off.in_flight()), (None, 10_000));
    drop(permits);
    assert_eq!(off.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_calls_peak_exactly_at_the_limit_and_all_complete() {
    let limiter = &Limiter::builder().limit(7).queue(10_000).max_wait(MS * 9_999_999).build().unwrap();
    let (live, peak, done) = (&AtomicU32::new(0), &AtomicU32::new(0), &AtomicU32::new(0));
    join_all((0..10_000u64).map(|n| async move {
        let permit = limiter.acquire(&call()).await.unwrap();
        peak.fetch_max(live.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        sleep(MS * (1 + n % 5) as u32).await;
        live.fetch_sub(1, Ordering::SeqCst);
        done.fetch_add(1, Ordering::SeqCst);
        permit.settle(Outcome::Success, now());
    }))
    .await;
    assert_eq!((peak.load(Ordering::SeqCst), done.load(Ordering::SeqCst)), (7, 10_000));
    let read = limiter.snapshot();
    assert_eq!((read.in_flight, read.queued, read.admitted, read.refused_in_all()), (0, 0, 10_000, 0));
    assert_eq!(read.wait.count(), 10_000 - 7);
}

#[tokio::test(start_paused = true)]
async fn a_call_past_its_deadline_is_never_admitted() {
    let limiter = limiter(1);
    let late = call().within(Duration::ZERO);
    assert_eq!(limiter.acquire(&late).await.unwrap_err().by, By::Deadline);
    assert_eq!(limiter.try_acquire(&late).unwrap_err().by, By::Deadline);

    let held = limiter.try_acquire(&call()).unwrap();
    let soon = call().within(MS * 10);
    let mut waiting = Box::pin(limiter.acquire(&soon));
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(cx).is_pending());
    drop(held);
    advance(MS * 20).await;
    let Poll::Ready(Err(refused)) = waiting.as_mut().poll(cx) else {
        panic!("granted in time, polled too late")
    };
    assert_eq!((refused.by, limiter.in_flight()), (By::Deadline, 0));
}

#[tokio::test(start_paused = true)]
async fn a_nested_call_does_not_wait_for_itself() {
    let limiter = limiter(1);
    let nested = limiter.run(&call(), async { limiter.acquire(&call()).await.map(drop) }).await.unwrap();
    assert_eq!(nested.unwrap_err().by, By::Nested);
    let two = self::limiter(2);
    two.run(&call(), async { two.acquire(&call()).await.map(drop) }).await.unwrap().unwrap();

    let once = Limiter::builder().limit(1).nested(Nested::CountOnce).build().unwrap();
    once.run(&call(), async {
        let _inner = once.acquire(&call()).await.unwrap();
        assert_eq!(once.in_flight(), 1);
    })
    .await
    .unwrap();
    assert_eq!((limiter.in_flight(), two.in_flight(), once.in_flight()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_inside_a_call_gives_its_permit_back() {
    let limiter = limiter(1);
    let inside = limiter.clone();
    let task = tokio::spawn(async move { inside.run(&call(), async { panic!("the handler broke") }).await });
    assert!(task.await.is_err());
    assert_eq!(limiter.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn permits_held_for_long_and_times_are_seen_when_asked_for() {
    let limiter =
        Limiter::builder().limit(3).measure_hold().watch_held_longer_than(MS * 100).build().unwrap();
    let old = limiter.try_acquire(&call()).unwrap();
    advance(MS * 200).await;
    let young = limiter.try_acquire(&call()).unwrap();
    assert_eq!(limiter.snapshot().held_long, Some(1));
    old.settle(Outcome::Success, now());
    assert_eq!(limiter.snapshot().held_long, Some(0));
    drop(young);
    let hold = limiter.snapshot().hold.unwrap();
    assert_eq!((hold.count(), hold.sum()), (2, MS * 200));
    let plain = self::limiter(1).snapshot();
    assert_eq!((plain.hold, plain.held_long), (None, None));
}

#[tokio::test(start_paused = true)]
async fn gates_in_a_tuple_are_taken_and_given_back_together() {
    let (outer, inner) = (limiter(2), limiter(1));
    let gates = (outer.clone(), inner.clone());
    let permit = gates.try_enter(&call(), "any key").unwrap();
    assert!(gates.try_enter(&call(), "any key").is_err());
    assert_eq!((outer.in_flight(), inner.in_flight()), (1, 1), "the outer permit went back unsent");
    permit.settle(Outcome::Success, now());
    assert_eq!((outer.in_flight(), inner.in_flight()), (0, 0));
}
