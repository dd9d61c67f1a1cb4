//! Weighted partitions of one limit, on a paused clock.
#![cfg(not(any(loom, shuttle)))]

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::future::join_all;
use tidegate::{
    By, Call, Outcome, Permit as _,
    clock::now,
    limiter::{Adaptive, Bounds, Fixed, Gradient, Limiter, Nested, Partition, Partitions, PartitionsBuilder},
};
use tokio::time::{advance, sleep};

const MS: Duration = Duration::from_millis(1);

fn call() -> Call {
    Call::at(now())
}

fn builder(limit: i64) -> PartitionsBuilder {
    Partitions::builder().limit(limit).max_wait(MS * 999_999).queue(9999)
}

fn two(limit: i64) -> (Partitions, Partition, Partition) {
    let all = builder(limit).partition("web", 3).partition("batch", 1).build().expect("valid settings");
    let (web, batch) = (all.get("web").expect("it is there"), all.get("batch").expect("it is there"));
    (all, web, batch)
}

#[test]
fn settings_that_would_give_nothing_are_errors() {
    let text = |builder: PartitionsBuilder| builder.build().err().unwrap().to_string();
    assert!(text(builder(0).partition("a", 1)).contains("a limit of 0"));
    assert!(text(Partitions::builder().partition("a", 1)).contains("no limit"));
    assert!(text(builder(1)).contains("no partition"));
    assert!(text(builder(1).partition("a", 0)).contains("\"a\" would get nothing"));
    assert!(text(builder(1).partition("a", 1).partition("a", 2)).contains("called \"a\""));
    assert!(builder(1).partition("a", 1).build().unwrap().get("b").is_none());
}

#[tokio::test(start_paused = true)]
async fn an_idle_share_is_borrowed_and_returns_first() {
    let (all, web, batch) = two(8);
    let mut borrowed: Vec<_> = (0..8).map(|_| batch.try_acquire(&call()).unwrap()).collect();
    assert_eq!((batch.in_flight(), all.in_flight()), (8, 8));
    assert_eq!(web.try_acquire(&call()).err().unwrap().by, By::InFlight, "the limit is exact");
    let calls = [call(); 16];
    let cx = &mut Context::from_waker(Waker::noop());
    let mut waiting: Vec<_> = calls
        .iter()
        .enumerate()
        .map(|(n, call)| Box::pin(if n < 8 { &web } else { &batch }.acquire(call)))
        .collect();
    for waiter in &mut waiting {
        assert!(waiter.as_mut().poll(cx).is_pending());
    }
    borrowed.truncate(2);
    assert_eq!((web.in_flight(), batch.in_flight()), (6, 2), "three to one, though batch had everything");
    borrowed.clear();
    assert_eq!((web.in_flight(), batch.in_flight(), all.in_flight()), (6, 2, 8));
    assert_eq!((web.queued(), batch.queued()), (2, 6));
    drop(waiting);
    assert_eq!((all.in_flight(), web.queued(), batch.queued()), (0, 0, 0), "grants nobody took went on");
}

#[tokio::test(start_paused = true)]
async fn under_load_each_gets_its_share_and_the_peak_is_the_limit() {
    let (all, web, batch) = two(8);
    let (live, peak) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let done = [Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0))];
    let callers = (0..4000).map(|n| {
        let (part, done) = if n % 2 == 0 { (&web, &done[0]) } else { (&batch, &done[1]) };
        let (part, done, live, peak) = (part.clone(), done.clone(), live.clone(), peak.clone());
        tokio::spawn(async move {
            let permit = part.acquire(&call()).await.unwrap();
            peak.fetch_max(live.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sleep(MS * 10).await;
            live.fetch_sub(1, Ordering::SeqCst);
            done.fetch_add(1, Ordering::SeqCst);
            drop(permit);
        })
    });
    let callers: Vec<_> = callers.collect();
    sleep(MS * 1005).await;
    let (web_done, batch_done) = (done[0].load(Ordering::SeqCst), done[1].load(Ordering::SeqCst));
    assert!(web_done.abs_diff(batch_done * 3) <= 24, "{web_done} and {batch_done}");
    assert!(join_all(callers).await.iter().all(Result::is_ok));
    assert_eq!((peak.load(Ordering::SeqCst), all.in_flight()), (8, 0));
}

#[tokio::test(start_paused = true)]
async fn a_ceiling_keeps_long_streams_from_borrowing_for_ever() {
    let all = builder(4).partition("calls", 1).partition_up_to("streams", 1, 2).build().unwrap();
    let (calls, streams) = (all.get("calls").unwrap(), all.get("streams").unwrap());
    let _two = [streams.try_acquire(&call()).unwrap(), streams.try_acquire(&call()).unwrap()];
    assert!(streams.try_acquire(&call()).is_err());
    let one = call();
    let mut third = Box::pin(streams.acquire(&one));
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(third.as_mut().poll(cx).is_pending());
    let _calls = [calls.try_acquire(&call()).unwrap(), calls.try_acquire(&call()).unwrap()];
    all.resize(Fixed::new(9).unwrap());
    assert!(third.as_mut().poll(cx).is_pending(), "a raised limit does not raise a ceiling");
}

#[tokio::test(start_paused = true)]
async fn a_wait_in_a_partition_is_bounded() {
    let all = Partitions::builder().limit(1).queue(1).max_wait(MS * 50).partition("a", 1).partition("b", 1);
    let all = all.build().unwrap();
    let (a, b) = (all.get("a").unwrap(), all.get("b").unwrap());
    let held = a.try_acquire(&call()).unwrap();
    assert_eq!(b.acquire(&call().within(MS * 10)).await.err().unwrap().by, By::Deadline);
    assert_eq!(b.acquire(&call()).await.err().unwrap().by, By::WaitTooLong);
    let (first, second) = (call(), call());
    let cx = &mut Context::from_waker(Waker::noop());
    let mut waiting = Box::pin(b.acquire(&first));
    assert!(waiting.as_mut().poll(cx).is_pending());
    assert_eq!(b.acquire(&second).await.err().unwrap().by, By::QueueFull);
    // The first is too late, and the permit stays free for the next.
    advance(MS * 60).await;
    drop(held);
    assert!(matches!(waiting.as_mut().poll(cx), Poll::Ready(Err(refused)) if refused.by == By::WaitTooLong));
    assert!(b.try_acquire(&call()).is_ok());
    assert_eq!(all.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn weights_and_limit_change_live_and_permits_and_places_stay() {
    let (all, web, batch) = two(4);
    let held: Vec<_> = (0..4).map(|_| web.try_acquire(&call()).unwrap()).collect();
    let one = call();
    let cx = &mut Context::from_waker(Waker::noop());
    let mut waiting = Box::pin(batch.acquire(&one));
    assert!(waiting.as_mut().poll(cx).is_pending());
    all.reconfigure(builder(2).partition("web", 1).partition("batch", 1)).unwrap();
    assert_eq!((all.limit(), all.in_flight(), batch.queued()), (Some(2), 4, 1));
    let others = all.reconfigure(builder(9).partition("web", 1)).unwrap_err().to_string();
    assert!(others.contains("keep their names"), "{others}");
    assert_eq!(all.limit(), Some(2), "nothing was changed");
    drop(held);
    let Poll::Ready(Ok(permit)) = waiting.as_mut().poll(cx) else { panic!("it kept its place") };
    assert_eq!((all.in_flight(), batch.snapshot().limit), (1, Some(1)));
    drop(permit);
    assert_eq!(all.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_happens_in_each_partition_is_counted_apart_and_together() {
    let settings = Limiter::builder().limit(1).queue(1).max_wait(MS * 50).measure_hold();
    let settings = settings.watch_held_longer_than(MS * 20);
    let all = Partitions::with(settings).partition("a", 1).partition("b", 1).build().unwrap();
    let (a, b) = (all.get("a").unwrap(), all.get("b").unwrap());
    let held = a.acquire(&call()).await.unwrap();
    let (one, two) = (call(), call());
    let cx = &mut Context::from_waker(Waker::noop());
    let mut first = Box::pin(b.acquire(&one));
    assert!(first.as_mut().poll(cx).is_pending());
    assert_eq!(b.acquire(&two).await.err().unwrap().by, By::QueueFull);
    drop(first);
    let mut second = Box::pin(b.acquire(&two));
    assert!(second.as_mut().poll(cx).is_pending());
    advance(MS * 30).await;
    assert_eq!((a.snapshot().held_long, b.snapshot().held_long), (Some(1), Some(0)));
    held.settle(Outcome::Success, now());
    let Poll::Ready(Ok(permit)) = second.as_mut().poll(cx) else { panic!("its turn has come") };
    permit.settle(Outcome::Success, now());
    let (a, b, sum) = (a.snapshot(), b.snapshot(), all.snapshot());
    assert_eq!((a.admitted, b.admitted, sum.admitted), (1, 1, 2));
    assert_eq!((a.refused_in_all(), b.refused_in_all(), sum.refused_in_all()), (0, 1, 1));
    assert_eq!((b.cancelled_in_queue, b.wait.count(), b.wait.sum()), (1, 1, MS * 30));
    let holds = sum.hold.expect("it is measured");
    assert_eq!((holds.count(), holds.sum()), (2, MS * 30));
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_is_shared_by_its_partitions() {
    let law = Gradient::new(Bounds::new(4, 64).unwrap());
    let settings = Limiter::builder().adaptive(Adaptive::new(law)).queue(9999).max_wait(MS * 999_999);
    let all = Partitions::with(settings).partition("web", 3).partition("batch", 1).build().unwrap();
    let (web, batch) = (all.get("web").unwrap(), all.get("batch").unwrap());
    let callers: Vec<_> = (0..64)
        .map(|n| {
            let part = if n % 2 == 0 { web.clone() } else { batch.clone() };
            tokio::spawn(async move {
                for _ in 0..200 {
                    let permit = part.acquire(&call()).await.unwrap();
                    sleep(MS * 10).await;
                    permit.settle(Outcome::Success, now());
                }
            })
        })
        .collect();
    assert!(join_all(callers).await.iter().all(Result::is_ok));
    assert!(all.limit().unwrap() > 16, "{:?}", all.limit());
    let grown = all.limit().unwrap();
    for _ in 0..40 {
        let hung: Vec<_> = (0..4).map(|_| web.try_acquire(&call()).unwrap()).collect();
        sleep(MS * 300).await;
        drop(hung);
    }
    assert!(all.limit().unwrap() < grown / 2, "{grown} and {:?} after calls hung", all.limit());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_cannot_wait_long_enough_is_refused_at_the_door() {
    let partitions = Partitions::builder().limit(1).max_wait(MS * 9999).partition("a", 1).build().unwrap();
    let a = partitions.get("a").unwrap();
    let mut held = a.try_acquire(&call()).unwrap();
    let patient = call();
    let mut line: Vec<_> = (0..4).map(|_| Box::pin(a.acquire(&patient))).collect();
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
    let refused = a.acquire(&call().within(MS * 150)).await.expect_err("one is ahead: 200 ms");
    assert_eq!((refused.by, now().since(began)), (By::WaitTooLong, Duration::ZERO));
    assert_eq!((refused.retry_after, a.queued()), (Some(MS * 200), 1));
    let can_wait = call().within(MS * 500);
    assert!(Box::pin(a.acquire(&can_wait)).as_mut().poll(cx).is_pending());
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_nested_call_does_not_wait_for_the_permits_of_its_own_partitions() {
    let (all, web, batch) = two(1);
    let inside = async { (web.acquire(&call()).await.map(drop), batch.acquire(&call()).await.map(drop)) };
    let (same, other) = web.run(&call(), inside).await.unwrap();
    assert_eq!((same.unwrap_err().by, other.unwrap_err().by), (By::Nested, By::Nested));
    assert_eq!((web.snapshot().refused_in_all(), batch.snapshot().refused_in_all()), (1, 1));

    let mut spawned = None;
    let spawns = async {
        let batch = batch.clone();
        // What a call spawns is not inside it, and waits as others do.
        spawned = Some(tokio::spawn(async move { batch.acquire(&call()).await.map(drop) }));
    };
    web.run(&call(), spawns).await.unwrap();
    assert!(spawned.unwrap().await.unwrap().is_ok());
    assert_eq!(all.in_flight(), 0);

    let once = Partitions::with(Limiter::builder().limit(1).nested(Nested::CountOnce));
    let once = once.partition("a", 1).partition("b", 1).build().unwrap();
    let (a, b) = (once.get("a").unwrap(), once.get("b").unwrap());
    let outer = call();
    let twice = a.run(&outer, async {
        let nested = b.acquire(&call()).await.unwrap();
        let seen = once.in_flight();
        nested.settle(Outcome::Success, now());
        (seen, once.in_flight())
    });
    assert_eq!(twice.await.unwrap(), (1, 1));
    assert_eq!((once.in_flight(), once.snapshot().admitted), (0, 1));
}
