//! The limiter as a library, on a paused clock.
#![cfg(not(any(loom, shuttle)))]

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

/// Counts how often it is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
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
async fn waiters_are_let_in_in_the_order_they_came_and_polled_twice() {
    let limiter = limiter(1);
    let held = limiter.try_acquire(&call()).unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let polls = Arc::new(AtomicUsize::new(0));
    let waiters: Vec<_> = (0..50)
        .map(|n| {
            let (limiter, order, polls) = (limiter.clone(), order.clone(), polls.clone());
            tokio::spawn(async move {
                let mut acquire = std::pin::pin!(async { limiter.acquire(&call()).await });
                let permit = std::future::poll_fn(|cx| {
                    polls.fetch_add(1, Ordering::SeqCst);
                    acquire.as_mut().poll(cx)
                })
                .await;
                order.lock().unwrap().push(n);
                drop(permit.unwrap());
            })
        })
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(limiter.queued(), 50);
    drop(held);
    join_all(waiters).await;
    assert_eq!(*order.lock().unwrap(), (0..50).collect::<Vec<_>>());
    assert_eq!(polls.load(Ordering::SeqCst), 100);
}

#[tokio::test(start_paused = true)]
async fn the_newest_goes_first_while_more_wait_than_may_run() {
    let limiter = Limiter::builder().limit(1).order(Order::LifoWhenBusy).max_wait(MS * 9999).build().unwrap();
    let held = limiter.try_acquire(&call()).unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiters = Vec::new();
    for n in 0..4 {
        let (limiter, order) = (limiter.clone(), order.clone());
        waiters.push(tokio::spawn(async move {
            let permit = limiter.acquire(&call()).await.unwrap();
            order.lock().unwrap().push(n);
            drop(permit);
        }));
    }
    tokio::task::yield_now().await;
    drop(held);
    join_all(waiters).await;
    assert_eq!(*order.lock().unwrap(), [3, 2, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn nobody_overtakes_those_who_wait() {
    let limiter = limiter(1);
    let held = limiter.try_acquire(&call()).unwrap();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    let first = call();
    let mut waiting = Box::pin(limiter.acquire(&first));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(held);
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    assert_eq!(
        limiter.try_acquire(&call()).unwrap_err().by,
        By::InFlight,
        "the permit is the waiter's already"
    );
    assert_eq!((limiter.in_flight(), limiter.queued()), (1, 0));
    let Poll::Ready(Ok(permit)) = waiting.as_mut().poll(&mut Context::from_waker(&waker)) else {
        panic!("it was granted")
    };
    drop(permit);
    assert_eq!(limiter.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_waiter_frees_its_place_and_passes_on_a_grant_that_raced() {
    let limiter = limiter(1);
    let held = limiter.try_acquire(&call()).unwrap();
    let cx = &mut Context::from_waker(Waker::noop());
    let calls = [call(); 3];
    let mut waiting: Vec<_> = calls.iter().map(|call| Box::pin(limiter.acquire(call))).collect();
    for waiter in &mut waiting {
        assert!(waiter.as_mut().poll(cx).is_pending());
    }
    drop(waiting.remove(1));
    assert_eq!((limiter.queued(), limiter.snapshot().cancelled_in_queue), (2, 1));
    drop(held);
    assert_eq!(
        (limiter.in_flight(), limiter.queued()),
        (1, 1),
        "granted to the first, which has not seen it yet"
    );
    drop(waiting.remove(0));
    assert_eq!((limiter.in_flight(), limiter.queued()), (1, 0));
    let Poll::Ready(Ok(permit)) = waiting[0].as_mut().poll(cx) else { panic!("the grant was passed on") };
    drop(permit);
    assert_eq!(limiter.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_max_wait_or_at_the_deadline() {
    let limiter = Limiter::builder().limit(1).max_wait(MS * 100).build().unwrap();
    let _held = limiter.try_acquire(&call()).unwrap();
    for (deadline, waited, by) in [
        (None, 100, By::WaitTooLong),
        (Some(MS * 500), 100, By::WaitTooLong),
        (Some(MS * 30), 30, By::Deadline),
    ] {
        let began = now();
        let call = deadline.map_or(call(), |deadline| call().within(deadline));
        assert_eq!(limiter.acquire(&call).await.unwrap_err().by, by);
        let took = now().since(began).as_millis();
        assert!((waited..=waited + 2).contains(&took), "{took} ms for {waited} ms");
    }
    assert_eq!(
        (limiter.queued(), refused(&limiter, By::WaitTooLong), refused(&limiter, By::Deadline)),
        (0, 2, 1)
    );
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
async fn a_permit_does_not_go_to_a_waiter_whose_time_is_over() {
    let limiter = limiter(1);
    let held = limiter.try_acquire(&call()).unwrap();
    let (soon, later) = (call().within(MS * 10), call());
    let cx = &mut Context::from_waker(Waker::noop());
    let mut impatient = Box::pin(limiter.acquire(&soon));
    let mut patient = Box::pin(limiter.acquire(&later));
    assert!(impatient.as_mut().poll(cx).is_pending() && patient.as_mut().poll(cx).is_pending());
    advance(MS * 20).await;
    drop(held);
    let Poll::Ready(Ok(_permit)) = patient.as_mut().poll(cx) else { panic!("the first live waiter gets it") };
    let Poll::Ready(Err(refused)) = impatient.as_mut().poll(cx) else { panic!("its time is over") };
    assert_eq!(refused.by, By::Deadline);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_cannot_wait_long_enough_is_refused_at_the_door() {
    let limiter = limiter(1);
    let mut held = limiter.try_acquire(&call()).unwrap();
    let patient = call();
    let mut line: Vec<_> = (0..6).map(|_| Box::pin(limiter.acquire(&patient))).collect();
    let cx = &mut Context::from_waker(Waker::noop());
    for waiter in &mut line {
        assert!(waiter.as_mut().poll(cx).is_pending());
    }
    for waiter in line.iter_mut().take(3) {
        advance(MS * 100).await;
        drop(held);
        let Poll::Ready(Ok(permit)) = waiter.as_mut().poll(cx) else { panic!("one permit each 100 ms") };
        held = permit;
    }
    let began = now();
    let refused = limiter.acquire(&call().within(MS * 250)).await.unwrap_err();
    assert_eq!(
        (refused.by, now().since(began)),
        (By::WaitTooLong, Duration::ZERO),
        "three are ahead: 400 ms"
    );
    assert_eq!(refused.retry_after, Some(MS * 400));
    let can_wait = call().within(MS * 500);
    assert!(Box::pin(limiter.acquire(&can_wait)).as_mut().poll(cx).is_pending());
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn the_queue_has_a_bound() {
    let limiter = Limiter::builder().limit(1).queue(2).max_wait(MS * 9999).build().unwrap();
    let _held = limiter.try_acquire(&call()).unwrap();
    let calls = [call(); 3];
    let cx = &mut Context::from_waker(Waker::noop());
    let mut line: Vec<_> = calls.iter().map(|call| Box::pin(limiter.acquire(call))).collect();
    assert!(line[0].as_mut().poll(cx).is_pending() && line[1].as_mut().poll(cx).is_pending());
    let Poll::Ready(Err(refused)) = line[2].as_mut().poll(cx) else { panic!("two wait already") };
    assert_eq!((refused.by, limiter.queued()), (By::QueueFull, 2));

    let no_queue = Limiter::builder().limit(1).queue(0).build().unwrap();
    let _held = no_queue.try_acquire(&call()).unwrap();
    assert_eq!(no_queue.acquire(&call()).await.unwrap_err().by, By::InFlight);
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_resized_live_and_waiters_keep_their_places() {
    let limiter = limiter(4);
    let mut held: Vec<_> = (0..4).map(|_| limiter.try_acquire(&call()).unwrap()).collect();
    let calls = [call(); 3];
    let cx = &mut Context::from_waker(Waker::noop());
    let mut line: Vec<_> = calls.iter().map(|call| Box::pin(limiter.acquire(call))).collect();
    for waiter in &mut line {
        assert!(waiter.as_mut().poll(cx).is_pending());
    }
    limiter.resize(Fixed::new(2).unwrap());
    assert_eq!((limiter.in_flight(), limiter.queued(), limiter.limit()), (4, 3, Some(2)));
    held.truncate(2);
    assert_eq!((limiter.in_flight(), limiter.queued()), (2, 3), "what comes back is absorbed");
    held.truncate(1);
    assert_eq!((limiter.in_flight(), limiter.queued()), (2, 2));
    limiter.resize(Fixed::new(9).unwrap());
    assert_eq!((limiter.in_flight(), limiter.queued()), (4, 0), "a raised limit lets waiters in at once");
    for waiter in &mut line {
        assert!(matches!(waiter.as_mut().poll(cx), Poll::Ready(Ok(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_limiter_refuses_those_who_wait_and_drains_those_in_flight() {
    let limiter = limiter(1);
    let held = limiter.try_acquire(&call()).unwrap();
    let waiter = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.acquire(&call()).await.map(drop) }
    });
    tokio::task::yield_now().await;
    let drained = tokio::spawn(limiter.close());
    assert_eq!(waiter.await.unwrap().unwrap_err().by, By::Closed);
    assert_eq!(limiter.acquire(&call()).await.unwrap_err().by, By::Closed);
    assert_eq!(limiter.try_acquire(&call()).unwrap_err().by, By::Closed);
    limiter.resize(Fixed::Off);
    assert_eq!(
        limiter.try_acquire(&call()).unwrap_err().by,
        By::Closed,
        "a new limit does not open it again"
    );
    assert!(!drained.is_finished());
    drop(held);
    drained.await.unwrap();
    limiter.close().await;
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

fn adaptive(floor: u32, ceiling: u32) -> Limiter {
    let law = Gradient::new(Bounds::new(floor, ceiling).expect("valid bounds"));
    Limiter::builder().adaptive(Adaptive::new(law)).queue(0).build().expect("valid settings")
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_grows_while_calls_are_fast_and_falls_while_they_hang() {
    let limiter = adaptive(2, 40);
    assert_eq!(limiter.limit(), Some(2));
    for _ in 0..200 {
        let calls: Vec<_> = std::iter::from_fn(|| limiter.try_acquire(&call()).ok()).collect();
        advance(MS * 20).await;
        for permit in calls {
            permit.settle(Outcome::Success, now());
        }
    }
    let grown = limiter.limit().unwrap();
    assert!(grown > 20, "{grown}");
    // Impatient callers say nothing: the calls were as fast as ever.
    for _ in 0..200 {
        let calls: Vec<_> = std::iter::from_fn(|| limiter.try_acquire(&call()).ok()).collect();
        advance(MS * 20).await;
        drop(calls);
    }
    assert_eq!(limiter.limit(), Some(grown));
    for _ in 0..200 {
        let calls: Vec<_> = std::iter::from_fn(|| limiter.try_acquire(&call()).ok()).collect();
        advance(MS * 1000).await;
        drop(calls);
    }
    assert_eq!(limiter.limit(), Some(2), "200 rounds hung until their callers gave up");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_grows_by_itself_lets_waiters_in() {
    let law = Gradient::new(Bounds::new(1, 9).unwrap());
    let limiter = Limiter::builder().adaptive(Adaptive::new(law)).max_wait(MS * 99_999).build().unwrap();
    let peak = &AtomicU32::new(0);
    join_all((0..500).map(|_| async {
        let permit = limiter.acquire(&call()).await.unwrap();
        peak.fetch_max(limiter.in_flight(), Ordering::SeqCst);
        sleep(MS * 10).await;
        permit.settle(Outcome::Success, now());
    }))
    .await;
    assert!((6..=9).contains(&peak.load(Ordering::SeqCst)), "{peak:?}");
    assert_eq!(limiter.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn settings_change_live_and_permits_places_and_counts_stay() {
    let limiter = Limiter::builder().limit(2).queue(1).max_wait(MS * 1000).build().unwrap();
    let held = [limiter.try_acquire(&call()).unwrap(), limiter.try_acquire(&call()).unwrap()];
    let cx = &mut Context::from_waker(Waker::noop());
    let calls = [call(); 3];
    let mut first = Box::pin(limiter.acquire(&calls[0]));
    assert!(first.as_mut().poll(cx).is_pending());
    assert!(limiter.acquire(&call()).await.is_err(), "the queue is full");
    let wider = || {
        let settings = Limiter::builder().limit(1).queue(5).order(Order::LifoWhenBusy).max_wait(MS * 60_000);
        settings.watch_held_longer_than(MS * 10)
    };
    limiter.reconfigure(wider()).unwrap();
    assert_eq!((limiter.limit(), limiter.in_flight(), limiter.queued()), (Some(1), 2, 1));
    let mut second = Box::pin(limiter.acquire(&calls[1]));
    assert!(second.as_mut().poll(cx).is_pending(), "the longer queue has room");
    drop(held);
    let Poll::Ready(Ok(newest)) = second.as_mut().poll(cx) else { panic!("the newest goes first now") };
    assert!(first.as_mut().poll(cx).is_pending());
    advance(MS * 20).await;
    let now = limiter.snapshot();
    assert_eq!((now.admitted, now.refused_in_all(), now.held_long), (3, 1, Some(1)));
    // No longer watched: the permit that was still gives its place back.
    limiter.reconfigure(Limiter::builder().limit(1).queue(5)).unwrap();
    drop(newest);
    assert!(matches!(first.as_mut().poll(cx), Poll::Ready(Ok(_))));
    limiter.reconfigure(Limiter::builder()).unwrap();
    assert_eq!(limiter.limit(), Some(1), "settings without a limit leave it");
    assert!(limiter.reconfigure(Limiter::builder().limit(0)).is_err());
    assert_eq!(limiter.limit(), Some(1), "nothing was changed");
}

#[tokio::test(start_paused = true)]
async fn a_law_is_put_on_a_running_limiter_and_taken_off_again() {
    let limiter = Limiter::builder().limit(40).build().unwrap();
    let law = Gradient::new(Bounds::new(10, 80).unwrap()).beginning_at(40);
    limiter.reconfigure(Limiter::builder().adaptive(Adaptive::new(law))).unwrap();
    assert_eq!(limiter.limit(), Some(40), "it begins where the limit was");
    for _ in 0..40 {
        let hung: Vec<_> = (0..5).map(|_| limiter.try_acquire(&call()).unwrap()).collect();
        sleep(MS * 1500).await;
        drop(hung);
    }
    assert_eq!(limiter.limit(), Some(10));
    limiter.reconfigure(Limiter::builder().limit(40)).unwrap();
    for _ in 0..4 {
        drop(limiter.try_acquire(&call()).unwrap());
        sleep(MS * 1500).await;
    }
    assert_eq!(limiter.limit(), Some(40), "nothing moves it any more");
}
