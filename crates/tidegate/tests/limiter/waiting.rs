//! Those who wait: their order, their patience, and what becomes of their places.

use super::*;

/// Counts how often it is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
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
