//! The fleet's throttle on credit in hand beside governor, which shares nothing.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use governor::{DefaultKeyedRateLimiter, RateLimiter};
use tidegate::{
    Call, clock,
    fleet::{FleetThrottle, LocalLedger, Rule},
    throttle::{Algorithm, Key, Quota},
};
use tokio::runtime;

use crate::{
    harness::{Suite, Timings},
    throttle::{Walk, names},
};

/// More than is spent in a run, so that both sides always admit.
const RATE: u32 = 4_000_000_000;

const KEYS: [(usize, &str, &str); 2] = [
    (
        1,
        "fleet throttle: credit in hand, one hot key",
        "at most governor's keyed (dashmap), on 1 thread and on 2; 0 allocations",
    ),
    (10_000, "fleet throttle: credit in hand, 10 000 keys", "at most 1.2x governor's"),
];

pub(crate) fn tables(suite: &mut Suite) {
    for (keys, title, bar) in KEYS {
        suite.timings(title, |table| {
            keyed(table, keys);
            table.bar(bar);
        });
    }
}

fn keyed(table: &mut Timings, keys: usize) {
    let (names, call) = (names(keys), Call::at(clock::now()));
    let runtime = runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let rate = format!("{RATE}/d").parse().expect("a rate");
    let quota = Quota::of(rate).algorithm(Algorithm::FixedWindow).build().expect("a quota");
    let rule = Rule::of(quota).life(Duration::from_secs(3600)).build().expect("a rule");
    let throttle = runtime.block_on(async {
        let throttle = FleetThrottle::builder("limit", rule, LocalLedger::new()).build().expect("a runtime");
        // Credit for all the calls of the run: what is measured is the decision, not the questions.
        let credit = call.cost(RATE / 4 / keys as u32 * 3);
        for name in &*names {
            let permit = throttle.enter(&credit, &Key::of(name.as_bytes())).await.expect("it is there");
            tidegate::Permit::settle(permit, tidegate::Outcome::Unsent, call.now);
        }
        throttle
    });
    let shared = (throttle, Arc::clone(&names));
    table.ours_with(
        "FleetThrottle, fixed window",
        shared,
        |(throttle, names)| (throttle.clone(), Walk::new(names)),
        move |(throttle, walk)| throttle.try_enter(&call, &Key::of(walk.step().as_bytes())).is_ok(),
    );
    let quota = governor::Quota::per_second(NonZeroU32::new(RATE).expect("not zero"));
    let governor: Arc<DefaultKeyedRateLimiter<String>> = Arc::new(RateLimiter::keyed(quota));
    for name in &*names {
        let _ = governor.check_key(name);
    }
    table.peer_with(
        "governor keyed, its own clock",
        (governor, names),
        |(governor, names)| (Arc::clone(governor), Walk::new(names)),
        |(governor, walk)| governor.check_key(walk.step()).is_ok(),
    );
}
