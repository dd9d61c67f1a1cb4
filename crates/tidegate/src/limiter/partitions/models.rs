//! Very many interleavings (shuttle) of callers of several partitions that enter, wait, leave, go away and resize.
//! `RUSTFLAGS="--cfg shuttle" cargo test -p tidegate --lib --target-dir target/shuttle partitions`

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use shuttle::{
    future::block_on,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};
use tidegate_core::limit::Fixed;

use super::{acquire::Waiting, *};
use crate::limiter::waiters::Fate;

/// A caller that waits as a partition's does, but for the timer.
struct Enter<'a>(Waiting<'a>);

impl Future for Enter<'_> {
    type Output = PartitionPermit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<PartitionPermit> {
        let partition = self.0.partition;
        let let_in = if self.0.place.is_none() {
            self.0
                .join(Instant::NEVER, Instant::EPOCH, cx.waker())
                .expect("there is room, and time stands still")
        } else {
            self.0.poll(cx.waker()).is_some_and(|fate| fate == Fate::Granted)
        };
        if !let_in {
            return Poll::Pending;
        }
        Poll::Ready(PartitionPermit::new(&partition.shared, partition.at, Instant::EPOCH))
    }
}

struct World {
    all: Partitions,
    parts: Vec<Partition>,
    live: AtomicU32,
    most: u32,
}

impl World {
    /// Partition 0 may borrow, partition 1 too, partition 2 has one call at most.
    fn new(limit: i64, most: u32) -> Arc<Self> {
        let all = Partitions::builder().limit(limit).partition("web", 3).partition("batch", 1);
        let all = all.partition_up_to("streams", 1, 1).build().expect("valid settings");
        Arc::new(Self { parts: all.all().collect(), all, live: AtomicU32::new(0), most })
    }

    fn inside(&self, permit: PartitionPermit) {
        assert!(self.live.fetch_add(1, Ordering::SeqCst) < self.most, "more in flight than the limit");
        self.live.fetch_sub(1, Ordering::SeqCst);
        drop(permit);
    }

    fn enter(&self, at: usize) -> Enter<'_> {
        Enter(Waiting { partition: &self.parts[at], place: None })
    }

    fn wait(&self, at: usize) {
        self.inside(block_on(self.enter(at)));
    }

    fn try_once(&self, at: usize) {
        if let Ok(permit) = self.parts[at].try_acquire(&Call::at(Instant::EPOCH)) {
            self.inside(permit);
        }
    }

    /// Joins the line, and goes away without looking again.
    fn give_up(&self, at: usize) {
        let mut enter = std::pin::pin!(self.enter(at));
        if let Poll::Ready(permit) = enter.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            self.inside(permit);
        }
    }

    fn resize(&self, limit: i64) {
        self.all.resize(Fixed::new(limit).expect("it is positive"));
    }

    fn is_at_rest(&self) {
        assert_eq!(self.all.in_flight(), 0);
        for part in &self.parts {
            assert_eq!((part.in_flight(), part.queued()), (0, 0), "{}", part.name());
        }
    }
}

/// Runs all steps at once, each on a thread of its own, very many times; a step that never ends fails the run.
fn explore(limit: i64, most: u32, steps: &'static [fn(&World)]) {
    let check = move || {
        let world = World::new(limit, most);
        let threads: Vec<_> = steps
            .iter()
            .map(|step| {
                let world = Arc::clone(&world);
                thread::spawn(move || step(&world))
            })
            .collect();
        for thread in threads {
            thread.join().expect("a model ends at the first panic");
        }
        world.is_at_rest();
    };
    shuttle::check_random(check, 5000);
}

#[test]
fn a_permit_that_comes_back_reaches_whoever_waits_in_any_partition() {
    explore(
        1,
        1,
        &[|world| world.wait(0), |world| world.wait(1), |world| world.wait(1), |world| world.wait(2)],
    );
}

#[test]
fn a_waiter_that_goes_away_loses_no_permit_of_another_partition() {
    explore(
        1,
        1,
        &[
            |world| world.give_up(0),
            |world| world.give_up(1),
            |world| world.wait(1),
            |world| world.wait(0),
            |world| world.try_once(0),
        ],
    );
}

#[test]
fn a_partition_at_its_ceiling_holds_up_nobody() {
    explore(
        3,
        3,
        &[
            |world| world.wait(2),
            |world| world.wait(2),
            |world| world.give_up(2),
            |world| world.wait(0),
            |world| world.wait(1),
        ],
    );
}

#[test]
fn a_crowd_in_all_partitions_comes_to_rest_while_the_limit_changes() {
    explore(
        2,
        3,
        &[
            |world| world.wait(0),
            |world| world.wait(1),
            |world| world.wait(2),
            |world| world.give_up(0),
            |world| world.give_up(2),
            |world| world.try_once(1),
            |world| world.wait(1),
            |world| [1, 3, 1, 2].into_iter().for_each(|limit| world.resize(limit)),
        ],
    );
}

#[test]
fn a_raised_limit_reaches_whoever_joins_meanwhile() {
    shuttle::check_random(
        || {
            let world = World::new(1, 2);
            let held = world.parts[0].try_acquire(&Call::at(Instant::EPOCH)).expect("one is free");
            let waiter = {
                let world = Arc::clone(&world);
                thread::spawn(move || world.wait(1))
            };
            // The permit above is held until the waiter is in: only the raised limit can let it in.
            world.resize(2);
            waiter.join().expect("a model ends at the first panic");
            drop(held);
            world.is_at_rest();
        },
        5000,
    );
}
