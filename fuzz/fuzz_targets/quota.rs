//! Any quota, and any life of a counter of it.
#![cfg_attr(fuzzing, no_main)]

use std::time::Duration;

use tidegate_core::{Algorithm, Counter, Decision, Fixed, Gcra, Grant, Instant, Quota, Rate, Sliding};

fn quota(data: &[u8]) {
    let mut input = Input(data);
    let Some(first) = input.quota() else { return };
    match first.algorithm() {
        Algorithm::TokenBucket => live::<Gcra>(first, input),
        Algorithm::FixedWindow => live::<Fixed>(first, input),
        Algorithm::SlidingWindow => live::<Sliding>(first, input),
    }
}

fn live<C: Counter>(mut quota: Quota, mut input: Input<'_>) {
    let (mut cell, mut now) = (C::default(), Instant::from_nanos(input.number()));
    let (mut last, mut held) = (now, Vec::<Grant>::new());
    while !input.0.is_empty() {
        match input.byte() % 5 {
            0 => now += Duration::from_nanos(input.number()),
            1 => {
                let (before, cost) = (cell, input.number() as u32);
                match cell.take(&quota, cost, now) {
                    Decision::Admit(grant) => held.push(grant),
                    Decision::Deny { retry_at } => {
                        assert!(retry_at > now || retry_at == Instant::NEVER);
                        let kept = matches!({ before }.take(&quota, cost, retry_at), Decision::Admit(_));
                        assert!(kept || retry_at == Instant::NEVER);
                    }
                    Decision::Impossible => assert!(cost.max(1) > quota.limit()),
                }
            }
            2 => {
                let by = now + Duration::from_nanos(input.number());
                if let Decision::Admit(grant) = cell.reserve(&quota, input.number() as u32, now, by) {
                    assert!(now <= grant.at() && grant.at() <= by);
                    last = last.max(grant.at());
                    held.push(grant);
                }
            }
            3 => {
                if let Some(grant) = held.pop() {
                    cell.refund(&quota, grant, now, now.max(last));
                }
            }
            _ => {
                if let Some(new) = input.quota().filter(|new| new.algorithm() == quota.algorithm()) {
                    cell.update(&quota, &new);
                    quota = new;
                }
            }
        }
        let standing = cell.standing(&quota, now);
        assert!(standing.remaining <= quota.limit() && standing.reset_at >= now);
        if cell.is_idle(&quota, now) {
            assert_eq!(standing, C::default().standing(&quota, now));
        }
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number of as many bytes as its first byte says.
    fn number(&mut self) -> u64 {
        let bytes = self.byte() % 9;
        (0..bytes).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    fn quota(&mut self) -> Option<Quota> {
        let (count, period, burst) = (self.number(), self.number(), self.number());
        let rate = Rate::new(count as u32, Duration::from_nanos(period)).ok()?;
        let quota = Quota::of(rate);
        let quota = if burst == 0 { quota } else { quota.burst(burst as u32) };
        let algorithm = [Algorithm::TokenBucket, Algorithm::FixedWindow, Algorithm::SlidingWindow];
        quota.algorithm(algorithm[usize::from(self.byte() % 3)]).build().ok()
    }
}

tidegate_fuzz::target!(quota);
