//! Every interleaving (loom, of the word) and very many (shuttle, of the line) of callers that enter, wait, leave, go
//! away, resize and close. The commands stand at the head of `permits.rs`.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

#[cfg(loom)]
use loom::{
    future::block_on,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};
#[cfg(shuttle)]
use shuttle::{
    future::block_on,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use super::*;

/// A caller that waits as the limiter does, but for the timer.
struct Enter<'a> {
    permits: &'a Permits,
    place: Option<usize>,
}

impl Future for Enter<'_> {
    type Output = Option<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<()>> {
        let Some(place) = self.place else {
            return match self.permits.join(Instant::NEVER, Instant::EPOCH, cx.waker()) {
                Joined::Admitted => Poll::Ready(Some(())),
                Joined::Waiting(place) => {
                    self.place = Some(place);
                    Poll::Pending
                }
                Joined::TooLong => panic!("time stands still"),
                Joined::Full | Joined::Closed => Poll::Ready(None),
            };
        };
        let fate = std::task::ready!(self.permits.poll(place, cx.waker()));
        self.place = None;
        Poll::Ready((fate == Fate::Granted).then_some(()))
    }
}

impl Drop for Enter<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.permits.depart(place);
        }
    }
}

struct World {
    permits: Permits,
    live: AtomicU32,
    most: u32,
}

impl World {
    fn new(limit: u32, most: u32) -> Arc<Self> {
        Arc::new(Self { permits: Permits::new(limit, 8, Order::Fifo), live: AtomicU32::new(0), most })
    }

    fn inside(&self) {
        assert!(self.live.fetch_add(1, Ordering::SeqCst) < self.most, "more in flight than the limit");
        self.live.fetch_sub(1, Ordering::SeqCst);
        self.permits.leave();
    }

    fn try_once(&self) {
        if self.permits.try_enter().is_some() {
            self.inside();
        }
    }

    /// Whether it was let in; it is unless the limiter is closed.
    fn wait(&self) -> bool {
        let entered = self.permits.try_enter().is_some()
            || block_on(Enter { permits: &self.permits, place: None }).is_some();
        if entered {
            self.inside();
        }
        entered
    }

    /// Joins the line, and goes away without looking again.
    fn give_up(&self) {
        let mut enter = std::pin::pin!(Enter { permits: &self.permits, place: None });
        if enter.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            self.inside();
        }
    }

    fn is_at_rest(&self) {
        let load = self.permits.load();
        assert_eq!((load.in_flight(), load.queued()), (0, 0));
    }
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    #[cfg(loom)]
    {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(check);
    }
    #[cfg(shuttle)]
    shuttle::check_random(check, 5000);
}

/// Runs each of `threads` and one more on this thread.
fn run(world: &Arc<World>, others: &[fn(&World)], here: fn(&World)) {
    let threads: Vec<_> = others
        .iter()
        .map(|other| {
            let (world, other) = (Arc::clone(world), *other);
            thread::spawn(move || other(&world))
        })
        .collect();
    here(world);
    for thread in threads {
        thread.join().expect("a model ends at the first panic");
    }
}

fn wait(world: &World) {
    assert!(world.wait(), "nobody closes it");
}

#[test]
fn the_word_never_admits_more_than_the_limit() {
    model(|| {
        let world = World::new(1, 1);
        run(&world, &[World::try_once, World::try_once], World::try_once);
        world.is_at_rest();
    });
}

#[test]
fn a_permit_that_comes_back_reaches_whoever_joins_meanwhile() {
    model(|| {
        let world = World::new(1, 1);
        run(&world, &[wait], wait);
        world.is_at_rest();
    });
}

#[test]
fn a_waiter_that_goes_away_loses_no_permit() {
    model(|| {
        let world = World::new(1, 1);
        run(&world, &[World::give_up, wait], World::try_once);
        world.is_at_rest();
    });
}

#[test]
fn a_raised_limit_reaches_whoever_joins_meanwhile() {
    model(|| {
        let world = World::new(1, 2);
        assert!(world.permits.try_enter().is_some());
        // The permit above is held until the waiter is in: only the raised limit can let it in.
        run(&world, &[wait], |world| world.permits.resize(2));
        world.permits.leave();
        world.is_at_rest();
    });
}

#[test]
fn a_limit_raised_while_a_call_leaves_loses_no_wake_up() {
    model(|| {
        let world = World::new(2, 2);
        assert!(world.permits.try_enter().is_some() && world.permits.try_enter().is_some());
        world.permits.resize(1);
        run(&world, &[wait, |world| world.permits.leave()], |world| world.permits.resize(2));
        world.permits.leave();
        world.is_at_rest();
    });
}

#[test]
fn closing_reaches_every_waiter_and_the_drain_ends() {
    model(|| {
        let world = World::new(1, 1);
        assert!(world.permits.try_enter().is_some());
        let drain = |world: &World| {
            world.permits.close();
            block_on(std::future::poll_fn(|cx| world.permits.poll_drained(cx.waker())));
        };
        run(&world, &[|world| _ = world.wait(), |world| world.permits.leave()], drain);
        world.is_at_rest();
        assert!(world.permits.try_enter().is_none());
    });
}

#[cfg(shuttle)]
#[test]
fn a_crowd_of_waiters_leavers_and_resizes_comes_to_rest() {
    model(|| {
        let world = World::new(2, 3);
        run(
            &world,
            &[wait, wait, World::give_up, World::give_up, wait, World::try_once, |world| {
                for limit in [1, 3, 1, 2] {
                    world.permits.resize(limit);
                }
            }],
            wait,
        );
        world.is_at_rest();
        assert_eq!(world.permits.limit(), 2);
    });
}
