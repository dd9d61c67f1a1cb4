//! What is counted for each route: handles that the request path keeps, and their sums for whoever looks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tidegate_core::{By, Instant, Refused};

use super::{codes::Codes, histogram::Histogram, refusals::Refusals, shard::Sharded};
use crate::{
    record::{CallProtocol, Finished},
    state::{Durations, RefusalState, RouteState},
};

/// Every rule that refuses, in the order of [`Counts::refused`].
const RULES: [By; 12] = [
    By::Quota,
    By::InFlight,
    By::QueueFull,
    By::WaitTooLong,
    By::Breaker,
    By::Deadline,
    By::RetryBudget,
    By::Cooldown,
    By::Pressure,
    By::Nested,
    By::Closed,
    By::Store,
];
/// What refuses besides: a user's session and an upstream's token that can not be had now; and what is none of these.
const OTHERS: [&str; 3] = ["session", "token", "other"];
/// gRPC has the codes 0 to 16; one more place is for what is none of them.
const GRPC_CODES: usize = 18;

/// One thread's counters of one route.
#[derive(Debug, Default)]
struct Counts {
    codes: Codes,
    grpc: [AtomicU64; GRPC_CODES],
    protocols: [AtomicU64; CallProtocol::ALL.len()],
    refused: [AtomicU64; RULES.len() + OTHERS.len()],
    duration: Histogram,
    head: Histogram,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
}

/// The counters of one route to one upstream. Recording takes no lock and allocates nothing.
#[derive(Debug)]
pub struct RouteMetrics {
    route: Arc<str>,
    upstream: Arc<str>,
    counts: Sharded<Counts>,
    refusals: Arc<Refusals>,
}

impl RouteMetrics {
    pub(super) fn new(route: &str, upstream: &str, threads: usize, refusals: Arc<Refusals>) -> Self {
        Self { route: route.into(), upstream: upstream.into(), counts: Sharded::new(threads), refusals }
    }

    /// The name of the route.
    pub fn route(&self) -> &Arc<str> {
        &self.route
    }

    /// The name of the upstream.
    pub fn upstream(&self) -> &Arc<str> {
        &self.upstream
    }

    /// Counts a call that is over: every call once, refused ones too.
    pub fn finished(&self, call: &Finished) {
        let counts = self.counts.here();
        counts.codes.count(call.status);
        counts.protocols[call.protocol as usize].fetch_add(1, Relaxed);
        counts.duration.record(call.duration);
        if let Some(head) = call.head_duration {
            counts.head.record(head);
        }
        if let Some(code) = call.grpc_status {
            counts.grpc[usize::from(code).min(GRPC_CODES - 1)].fetch_add(1, Relaxed);
        }
        if call.request_bytes > 0 {
            counts.request_bytes.fetch_add(call.request_bytes, Relaxed);
        }
        if call.response_bytes > 0 {
            counts.response_bytes.fetch_add(call.response_bytes, Relaxed);
        }
    }

    /// Counts a refusal and remembers it for `/state`. `limit` names the limit that refused, if it was one.
    pub fn refused(&self, refused: Refused, limit: Option<&Arc<str>>, now: Instant) {
        self.note(refused.by.as_str(), limit, refused.retry_after, now);
    }

    /// The same of a call whose session or token could not be had: `by` is `session` or `token`.
    pub fn without(&self, by: &'static str, retry_after: Option<Duration>, now: Instant) {
        self.note(by, None, retry_after, now);
    }

    fn note(&self, by: &'static str, limit: Option<&Arc<str>>, retry_after: Option<Duration>, now: Instant) {
        let slot = names().position(|known| known == by).unwrap_or(RULES.len() + OTHERS.len() - 1);
        self.counts.here().refused[slot].fetch_add(1, Relaxed);
        self.refusals.note(now, || RefusalState {
            at_seconds: now.as_nanos() as f64 / 1e9,
            by,
            route: Arc::clone(&self.route),
            upstream: Arc::clone(&self.upstream),
            limit: limit.cloned(),
            retry_after_seconds: retry_after.map(|after| after.as_secs_f64()),
        });
    }

    /// The sums over all threads.
    pub(super) fn totals(&self) -> Totals {
        let sum = |of: fn(&Counts) -> &AtomicU64| self.counts.all().map(|c| of(c).load(Relaxed)).sum();
        let by_slot = |of: &dyn Fn(&Counts) -> u64| self.counts.all().map(of).sum::<u64>();
        Totals {
            codes: Codes::sum(self.counts.all().map(|counts| &counts.codes)),
            grpc: (0..GRPC_CODES)
                .map(|code| {
                    let name = if code + 1 < GRPC_CODES { code.to_string() } else { "other".into() };
                    (name, by_slot(&|counts| counts.grpc[code].load(Relaxed)))
                })
                .filter(|(_, total)| *total > 0)
                .collect(),
            protocols: CallProtocol::ALL
                .into_iter()
                .map(|p| (p.as_str(), by_slot(&|counts| counts.protocols[p as usize].load(Relaxed))))
                .filter(|(_, total)| *total > 0)
                .collect(),
            refused: names()
                .enumerate()
                .map(|(slot, by)| (by, by_slot(&|counts| counts.refused[slot].load(Relaxed))))
                .filter(|(_, total)| *total > 0)
                .collect(),
            duration: Histogram::sum(self.counts.all().map(|counts| &counts.duration)),
            head: Histogram::sum(self.counts.all().map(|counts| &counts.head)),
            request_bytes: sum(|counts| &counts.request_bytes),
            response_bytes: sum(|counts| &counts.response_bytes),
        }
    }

    /// Puts the sums into the route's entry of a state.
    pub(super) fn fill(&self, state: &mut RouteState) {
        let totals = self.totals();
        state.calls = totals.duration.count;
        state.responses = totals.codes.into_iter().collect::<BTreeMap<_, _>>();
        state.refused = totals.refused.into_iter().map(|(by, total)| (by.to_owned(), total)).collect();
        state.duration = totals.duration;
        state.head = totals.head;
        state.request_bytes = totals.request_bytes;
        state.response_bytes = totals.response_bytes;
    }
}

/// What refuses, in the order of [`Counts::refused`].
fn names() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|by| by.as_str()).chain(OTHERS)
}

/// A route's counters, summed over all threads; only what occurred.
pub(super) struct Totals {
    pub(super) codes: Vec<(String, u64)>,
    pub(super) grpc: Vec<(String, u64)>,
    pub(super) protocols: Vec<(&'static str, u64)>,
    pub(super) refused: Vec<(&'static str, u64)>,
    pub(super) duration: Durations,
    pub(super) head: Durations,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
}
