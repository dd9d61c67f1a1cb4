//! Limits that change: by hand, by a law, and at the end.

use super::*;

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
