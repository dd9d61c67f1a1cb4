//! The throttle beside governor.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use governor::{
    DefaultKeyedRateLimiter, RateLimiter,
    clock::{Clock, DefaultClock, FakeRelativeClock},
};
use tidegate::{
    Call, Throttle, clock,
    throttle::{Algorithm, Key, Quota, enter_all},
};
use tokio::runtime;

use crate::harness::{Suite, Timings};

/// Fast enough that both sides always admit, which is the dearer answer.
const RATE: u32 = 4_000_000_000;

const KEYS: [(usize, &str, &str); 3] = [
    (1, "throttle: one hot key", "at most governor's keyed (dashmap), on 1 thread and on 2; 0 allocations"),
    (10_000, "throttle: 10 000 keys", "at most 1.2x governor's"),
    (1_000_000, "throttle: 1 000 000 keys", "at most 1.2x governor's; at most 100 bytes a key"),
];

pub(crate) fn tables(suite: &mut Suite) {
    for (keys, title, bar) in KEYS {
        suite.timings(title, |table| {
            keyed(table, keys);
            table.bar(bar);
        });
    }
    suite.timings("throttle: three limits on one call", several);
    suite.counts("throttle: 64 waiters for a rate slot", |table| {
        table.columns(["polls a waiter, most", "polls in all"]);
        let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime with a paused clock");
        for (name, polls) in
            [("tidegate Throttle", runtime.block_on(ours_waiting())), ("governor", governor_waiting())]
        {
            table.row(
                name,
                [polls.iter().max().unwrap_or(&0).to_string(), polls.iter().sum::<u32>().to_string()],
            );
        }
        table.bar("2 polls a waiter");
    });
}

/// Keys as a gateway finds them: short texts, hashed by both sides on every call.
pub(crate) fn names(keys: usize) -> Arc<[String]> {
    (0..keys).map(|key| format!("client-{key:08}")).collect()
}

/// One name after another, scattered; a place of its own for each thread.
pub(crate) struct Walk {
    names: Arc<[String]>,
    at: u64,
}

impl Walk {
    pub(crate) fn new(names: &Arc<[String]>) -> Self {
        static WALKS: AtomicU64 = AtomicU64::new(0);
        Self { names: Arc::clone(names), at: WALKS.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed) }
    }

    pub(crate) fn step(&mut self) -> &String {
        self.at = self.at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        &self.names[(self.at >> 33) as usize % self.names.len()]
    }
}

fn throttle(algorithm: Algorithm) -> Throttle {
    let rate = format!("{RATE}/s").parse().expect("a rate");
    Throttle::new(Quota::of(rate).algorithm(algorithm).build().expect("a quota"))
}

fn governor_quota() -> governor::Quota {
    governor::Quota::per_second(NonZeroU32::new(RATE).expect("not zero"))
}

fn keyed(table: &mut Timings, keys: usize) {
    let names = names(keys);
    let call = Call::at(clock::now());
    for (name, algorithm) in [
        ("Throttle, token bucket", Algorithm::TokenBucket),
        ("Throttle, fixed window", Algorithm::FixedWindow),
        ("Throttle, sliding window", Algorithm::SlidingWindow),
    ] {
        let throttle = throttle(algorithm);
        for name in &*names {
            let _ = throttle.try_enter(&call, &Key::of(name.as_bytes()));
        }
        let shared = (Arc::new(throttle), Arc::clone(&names));
        table.ours_with(
            name,
            shared,
            |(throttle, names)| (Arc::clone(throttle), Walk::new(names)),
            move |(throttle, walk)| throttle.try_enter(&call, &Key::of(walk.step().as_bytes())).is_ok(),
        );
    }
    let governor: Arc<DefaultKeyedRateLimiter<String>> = Arc::new(RateLimiter::keyed(governor_quota()));
    for name in &*names {
        let _ = governor.check_key(name);
    }
    table.peer_with(
        "governor keyed, its own clock",
        (governor, Arc::clone(&names)),
        |(governor, names)| (Arc::clone(governor), Walk::new(names)),
        |(governor, walk)| governor.check_key(walk.step()).is_ok(),
    );
    table.note("a reading of tidegate's clock, once a call for all guards", (), |()| clock::now());
    table.note("a reading of governor's clock", DefaultClock::default(), |clock| clock.now());
}

fn several(table: &mut Timings) {
    let call = Call::at(clock::now());
    let limits =
        [Algorithm::TokenBucket, Algorithm::FixedWindow, Algorithm::TokenBucket].map(throttle).map(Arc::new);
    table.ours("enter_all, all or none", limits, move |[client, tenant, backend]| {
        let limits = [
            (&**client, Key::of(b"client-00000001")),
            (&**tenant, Key::of(b"tenant-1")),
            (&**backend, Key::ALL),
        ];
        enter_all(&limits, &call).into_grants().is_ok()
    });
    let limits: [Arc<DefaultKeyedRateLimiter<&str>>; 3] =
        std::array::from_fn(|_| Arc::new(RateLimiter::keyed(governor_quota())));
    table.peer("governor keyed three times, one by one", limits, |[client, tenant, backend]| {
        client.check_key(&"client-00000001").is_ok()
            && tenant.check_key(&"tenant-1").is_ok()
            && backend.check_key(&"").is_ok()
    });
    table.bar("for comparison: governor charges the first limits though the last refuses");
}

/// Counts the polls of 64 waiters on tidegate's throttle, on a clock that jumps to the next timer.
async fn ours_waiting() -> Vec<u32> {
    let quota = Quota::of("1/10ms".parse().expect("a rate")).build().expect("a quota");
    let throttle = Arc::new(Throttle::new(quota));
    let call = Call::at(clock::now());
    let waiters = (0..64).map(|_| {
        let throttle = Arc::clone(&throttle);
        tokio::spawn(async move { polls(throttle.enter(&call, &Key::ALL)).await })
    });
    let mut polls = Vec::new();
    for waiter in waiters.collect::<Vec<_>>() {
        polls.push(waiter.await.expect("a waiter that does not panic"));
    }
    polls
}

/// The same on governor: each waiter asks, sleeps for as long as it is told, and asks again, as `until_ready` does.
fn governor_waiting() -> Vec<u32> {
    let clock = FakeRelativeClock::default();
    let quota = governor::Quota::with_period(Duration::from_millis(10)).expect("not zero");
    let governor = RateLimiter::direct_with_clock(quota, clock.clone());
    let (mut now, mut waiters) = (Duration::ZERO, [(0_u32, Some(Duration::ZERO)); 64]);
    while let Some(due) = waiters.iter().filter_map(|(_, due)| *due).min() {
        clock.advance(due - now);
        now = due;
        for (polls, turn) in waiters.iter_mut().filter(|(_, turn)| *turn == Some(due)) {
            *polls += 1;
            *turn = governor.check().err().map(|refused| now + refused.wait_time_from(clock.now()));
        }
    }
    waiters.map(|(polls, _)| polls).into()
}

async fn polls<F: Future>(future: F) -> u32 {
    let (mut future, mut polls) = (std::pin::pin!(future), 0);
    std::future::poll_fn(|context| {
        polls += 1;
        future.as_mut().poll(context)
    })
    .await;
    polls
}
