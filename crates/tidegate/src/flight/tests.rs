//! Who learns what, and who disturbs nobody.

use std::{
    future::{pending, ready},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use tokio::{runtime, sync::oneshot, task::yield_now};
use tokio_test::{assert_pending, assert_ready, task::spawn};

use super::*;

#[tokio::test]
async fn all_who_wait_learn_the_same_end_with_two_polls_each() {
    let (end, ended) = oneshot::channel();
    let flight = Flight::detached(async move { ended.await.unwrap() });
    let mut waiters: Vec<_> = (0..100).map(|_| spawn(flight.join())).collect();
    waiters.iter_mut().for_each(|waiter| assert_pending!(waiter.poll()));
    end.send(7).unwrap();
    while !waiters[0].is_woken() {
        yield_now().await;
    }
    for waiter in &mut waiters {
        assert!(waiter.is_woken());
        assert_eq!(assert_ready!(waiter.poll()), Ok(7));
    }
    assert_eq!(flight.join().await, Ok(7), "who comes late learns it too");
}

#[tokio::test]
async fn a_dropped_caller_does_not_stop_the_work() {
    let done = Arc::new(AtomicUsize::new(0));
    let (end, ended) = oneshot::channel::<()>();
    let flight = Flight::detached({
        let done = Arc::clone(&done);
        async move {
            ended.await.unwrap();
            done.fetch_add(1, SeqCst);
        }
    });
    let mut first = spawn(flight.join());
    let mut second = spawn(flight.join());
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    drop(first);
    end.send(()).unwrap();
    assert_eq!(second.await, Ok(()));
    assert_eq!(done.load(SeqCst), 1);
}

#[tokio::test]
async fn a_panic_reaches_all_as_an_error() {
    let flight = Flight::<()>::detached(async { panic!("the cat is on the keys") });
    let (first, second) = tokio::join!(flight.join(), flight.join());
    let expected = Err(Crash::Panicked("the cat is on the keys".into()));
    assert_eq!((&first, &second), (&expected, &expected));
}

#[test]
fn who_waits_learns_that_the_runtime_took_the_work_along() {
    let runtime = runtime::Builder::new_current_thread().build().unwrap();
    let flight = runtime.block_on(async { Flight::<()>::detached(pending()) });
    let mut waiter = spawn(flight.join());
    assert_pending!(waiter.poll());
    drop(runtime);
    assert!(waiter.is_woken());
    assert_eq!(assert_ready!(waiter.poll()), Err(Crash::Lost));
}

#[test]
fn places_that_were_left_are_used_again() {
    let (flight, lander) = Flight::<()>::new();
    let mut stays = spawn(flight.join());
    assert_pending!(stays.poll());
    for _ in 0..1000 {
        let mut waiter = spawn(flight.join());
        assert_pending!(waiter.poll());
    }
    assert_eq!(flight.0.waiters.lock().places(), 2);
    assert_pending!(stays.poll());
    lander.land(Ok(()));
    assert_eq!(assert_ready!(stays.poll()), Ok(()));
}

#[test]
fn the_first_place_is_taken_again_when_the_first_to_wait_has_left() {
    let (flight, lander) = Flight::<()>::new();
    let mut waiters: Vec<_> = (0..3).map(|_| spawn(flight.join())).collect();
    waiters.iter_mut().for_each(|waiter| assert_pending!(waiter.poll()));
    drop(waiters.remove(0));
    let mut late = spawn(flight.join());
    assert_pending!(late.poll());
    waiters.push(late);
    assert_eq!(flight.0.waiters.lock().places(), 3);
    lander.land(Ok(()));
    for waiter in &mut waiters {
        assert!(waiter.is_woken());
        assert_eq!(assert_ready!(waiter.poll()), Ok(()));
    }
}

#[tokio::test]
async fn a_panic_with_a_formatted_message_keeps_it() {
    assert_eq!(caught(ready(1)).await, Ok(1));
    let number = 3;
    let panic = caught(async move { assert_eq!(number, 4, "not {number}") }).await;
    assert!(panic.unwrap_err().contains("not 3"));
}
