//! What reached an upstream, by key and time, and whether it was more than was agreed.
//!
//! A call was decided after its client sent it and before it arrived here. Clients, store and upstream share one machine
//! and so one clock, and a checker allows every order of events that these two times allow: what it calls over is over.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::Response;
use parking_lot::Mutex;

use super::{client, upstream::Upstream};

/// The header field that names the key of a call.
pub const KEY: &str = "x-key";
/// The header field that says when its client sent it, in microseconds since the Unix epoch.
pub const SENT: &str = "x-sent";

/// Microseconds since the Unix epoch, on the clock that the store reads as well.
pub fn micros() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64
}

/// A call that arrived.
#[derive(Clone, Copy, Debug)]
struct Call {
    sent: u64,
    arrived: u64,
}

/// What arrived so far.
#[derive(Clone, Default)]
pub struct Tally(Arc<Mutex<BTreeMap<String, Vec<Call>>>>);

impl Tally {
    /// An upstream that answers everything and counts it here.
    pub async fn upstream(&self) -> Upstream {
        let tally = self.clone();
        Upstream::start(move |request| {
            let arrived = micros();
            let field = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
            let key = field(KEY).unwrap_or_default().to_owned();
            let sent = field(SENT).and_then(|sent| sent.parse().ok()).unwrap_or(arrived);
            tally.0.lock().entry(key).or_default().push(Call { sent, arrived });
            async { Response::new(client::whole("hello")) }
        })
        .await
    }

    /// Forgets what arrived.
    pub fn clear(&self) {
        self.0.lock().clear();
    }

    /// Calls that arrived.
    pub fn calls(&self) -> usize {
        self.0.lock().values().map(Vec::len).sum()
    }

    /// Asserts that no window of `period` that begins at a multiple of it on the clock held more than `limit` of a key.
    pub fn assert_windows(&self, limit: usize, period: Duration) {
        let period = period.as_micros() as u64;
        self.each(|key, calls| {
            let spans = calls.iter().map(|call| (call.sent / period, call.arrived / period));
            if let Some(window) = overfull(spans, limit) {
                panic!("window {window} of {key:?} holds more than {limit}: {}", told(calls, period));
            }
        });
    }

    /// Asserts that no span of `period`, wherever it begins, held more than `limit` of a key.
    pub fn assert_sliding(&self, limit: usize, period: Duration) {
        self.assert_envelope(limit, 0.0, period);
    }

    /// Asserts that no span of time t up to `longest` held more than `burst` + `rate` a second × t of a key.
    pub fn assert_envelope(&self, burst: usize, rate: f64, longest: Duration) {
        let longest = longest.as_micros() as u64;
        self.each(|key, calls| {
            let mut calls = calls.to_vec();
            calls.sort_unstable_by_key(|call| call.arrived);
            for first in &calls {
                let inside = calls.iter().filter(|call| call.sent >= first.sent);
                for (count, last) in (1..).zip(inside) {
                    let span = last.arrived - first.sent;
                    if span >= longest {
                        break;
                    }
                    let most = burst as f64 + rate * span as f64 / 1e6;
                    assert!(
                        count as f64 <= most,
                        "{count} of {key:?} within {span} µs, and at most {most} may"
                    );
                }
            }
        });
    }

    fn each(&self, check: impl Fn(&str, &[Call])) {
        let calls = self.0.lock().clone();
        assert!(!calls.is_empty(), "nothing arrived, so nothing was checked");
        calls.iter().for_each(|(key, calls)| check(key, calls));
    }
}

/// A window that must hold more than `most`, whichever of the windows of its span each call belongs to.
fn overfull(spans: impl Iterator<Item = (u64, u64)>, most: usize) -> Option<u64> {
    let mut spans: Vec<(u64, u64)> = spans.collect();
    spans.sort_unstable();
    let mut spans = spans.into_iter().peekable();
    // By the last window that each may be put into: those that can wait least go first.
    let mut waiting: BinaryHeap<Reverse<u64>> = BinaryHeap::new();
    let mut window = spans.peek()?.0;
    loop {
        while let Some((_, last)) = spans.next_if(|(first, _)| *first <= window) {
            waiting.push(Reverse(last));
        }
        for _ in 0..most {
            waiting.pop();
        }
        if waiting.peek().is_some_and(|Reverse(last)| *last <= window) {
            return Some(window);
        }
        window = if waiting.is_empty() { spans.peek()?.0 } else { window + 1 };
    }
}

fn told(calls: &[Call], period: u64) -> String {
    let mut windows: BTreeMap<u64, usize> = BTreeMap::new();
    calls.iter().for_each(|call| *windows.entry(call.arrived / period).or_default() += 1);
    format!("by arrival {windows:?}")
}

#[test]
fn a_checker_blames_only_what_is_surely_over() {
    let two = |spans: &[(u64, u64)]| overfull(spans.iter().copied(), 2);
    assert_eq!(two(&[(1, 1), (1, 1), (2, 2)]), None);
    assert_eq!(two(&[(1, 1), (1, 1), (1, 1)]), Some(1));
    assert_eq!(two(&[(1, 1), (1, 2), (1, 1)]), None, "the second may belong to the next");
    assert_eq!(two(&[(1, 2), (1, 2), (1, 2), (2, 2), (2, 2)]), Some(2), "but not all of them");
    assert_eq!(two(&[(1, 5), (1, 1), (1, 1), (3, 3), (3, 3)]), None);
}
