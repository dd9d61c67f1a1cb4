//! The counters of a quota against slow models that are obviously right.

use std::{collections::HashMap, time::Duration};

use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestCaseResult};
use tidegate_core::{Algorithm, Counter, Decision, Fixed, Gcra, Grant, Instant, Quota, Rate, Sliding};

/// What happens to a counter. Times are in millionths of the quota's window, so that every rate is exercised alike.
#[derive(Clone, Debug)]
enum Step {
    Pass(u32),
    Take(u32),
    Wait {
        cost: u32,
        at_most: u32,
    },
    /// Of the grants still held, the one at this index, from the end.
    Refund(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let share = prop_oneof![Just(0), 1..100u32, 100..300_000u32, Just(1_000_000), 0..3_000_000u32];
    let cost = prop_oneof![4 => Just(1u32), 1 => Just(0), 3 => 1..12u32, 1 => any::<u32>()];
    vec(
        prop_oneof![
            3 => share.clone().prop_map(Step::Pass),
            5 => cost.clone().prop_map(Step::Take),
            2 => (cost, share).prop_map(|(cost, at_most)| Step::Wait { cost, at_most }),
            3 => prop_oneof![Just(0usize), 0..6usize].prop_map(Step::Refund),
        ],
        1..120,
    )
}

fn rates() -> impl Strategy<Value = Rate> {
    let count = prop_oneof![
        Just(1),
        Just(2),
        Just(3),
        1..40u32,
        Just(1000),
        Just(10_000),
        Just(70_001),
        Just(4_000_000_000),
        Just(u32::MAX)
    ];
    let period = select(vec![1, 7, 1000, 60_000, 86_400_000, 366 * 86_400_000]);
    (count, period).prop_map(|(count, millis)| {
        Rate::new(count, Duration::from_millis(millis)).expect("a period in range")
    })
}

fn buckets() -> impl Strategy<Value = Quota> {
    (rates(), prop_oneof![Just(None), (1..20u32).prop_map(Some)]).prop_map(|(rate, burst)| {
        let quota = Quota::of(rate);
        burst.map_or(quota, |burst| quota.burst(burst)).build().expect("a burst in range")
    })
}

fn windows(algorithm: Algorithm) -> impl Strategy<Value = Quota> {
    rates().prop_map(move |rate| Quota::of(rate).algorithm(algorithm).build().expect("a window of any rate"))
}

fn start() -> impl Strategy<Value = Instant> {
    prop_oneof![Just(0u64), Just(1), Just(1_790_000_000_123_456_789), 0..u64::MAX / 4]
        .prop_map(Instant::from_nanos)
}

/// Costs of any size become costs around the limit, so that large limits are reached as well.
fn scaled(cost: u32, quota: &Quota) -> u32 {
    let limit = quota.limit();
    if cost > 12 && limit > 1000 { cost % (limit - limit / 8) } else { cost }
}

fn share(quota: &Quota, millionths: u32) -> Duration {
    let nanos =
        quota.window().as_nanos().min(u128::from(u64::MAX / 1_000_000)) * u128::from(millionths) / 1_000_000;
    Duration::from_nanos(nanos as u64)
}

/// Runs the steps and answers with what was sent in the end: when, and how much.
fn run<C: Counter>(quota: &Quota, start: Instant, steps: &[Step]) -> Result<Vec<(u64, u32)>, TestCaseError> {
    let (mut cell, mut now, mut last) = (C::default(), start, start);
    let mut held: Vec<Grant> = Vec::new();
    for step in steps {
        match *step {
            Step::Pass(passed) => now += share(quota, passed),
            Step::Take(cost) => {
                let cost = scaled(cost, quota);
                let before = cell;
                match cell.take(quota, cost, now) {
                    Decision::Admit(grant) => {
                        prop_assert_eq!((grant.at(), grant.cost()), (now, cost));
                        prop_assert!(cost > 0 || before.standing(quota, now) == cell.standing(quota, now));
                        held.extend((cost > 0).then_some(grant));
                    }
                    Decision::Deny { retry_at } => retry_is_right(before, quota, cost, now, retry_at)?,
                    Decision::Impossible => prop_assert!(cost.max(1) > quota.limit()),
                }
            }
            Step::Wait { cost, at_most } => {
                let (cost, by) = (scaled(cost, quota), now + share(quota, at_most));
                if let Decision::Admit(grant) = cell.reserve(quota, cost, now, by) {
                    prop_assert!(now <= grant.at() && grant.at() <= by);
                    last = last.max(grant.at());
                    held.extend((cost > 0).then_some(grant));
                }
            }
            Step::Refund(back) => {
                if back < held.len() {
                    let grant = held.remove(held.len() - 1 - back);
                    cell.refund(quota, grant, now, now.max(last));
                }
            }
        }
        if cell.is_idle(quota, now) {
            prop_assert_eq!(
                cell.standing(quota, now),
                C::default().standing(quota, now),
                "idle, yet not fresh"
            );
        }
    }
    let mut sent: Vec<_> = held.iter().map(|grant| (grant.at().as_nanos(), grant.cost())).collect();
    sent.sort_unstable();
    Ok(sent)
}

/// Denied at `now`, it is admitted at `retry_at` and not a nanosecond sooner.
fn retry_is_right<C: Counter>(
    cell: C,
    quota: &Quota,
    cost: u32,
    now: Instant,
    retry_at: Instant,
) -> TestCaseResult {
    prop_assert!(retry_at > now);
    let sooner = retry_at - Duration::from_nanos(1);
    let denied = matches!({ cell }.take(quota, cost, sooner), Decision::Deny { .. });
    prop_assert!(denied, "admitted before {:?}", retry_at);
    if retry_at < Instant::NEVER {
        let admitted = matches!({ cell }.take(quota, cost, retry_at), Decision::Admit(_));
        prop_assert!(admitted, "denied at {:?}", retry_at);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_token_bucket_never_exceeds_burst_and_rate_in_any_span(quota in buckets(), start in start(), steps in steps()) {
        let sent = run::<Gcra>(&quota, start, &steps)?;
        let (period, count) = (quota.rate().period().as_nanos(), u128::from(quota.rate().count()));
        for (first, (from, _)) in sent.iter().enumerate() {
            let mut taken = 0;
            for (to, cost) in &sent[first..] {
                taken += u128::from(*cost);
                let allowed = u128::from(quota.limit()) * period + u128::from(to - from) * count;
                prop_assert!(taken * period <= allowed, "{} units in {} ns", taken, to - from);
            }
        }
    }

    #[test]
    fn a_fixed_window_never_admits_more_than_its_limit(
        quota in windows(Algorithm::FixedWindow), start in start(), steps in steps()
    ) {
        let mut windows: HashMap<u64, u64> = HashMap::new();
        for (at, cost) in run::<Fixed>(&quota, start, &steps)? {
            *windows.entry(at / quota.window().as_nanos() as u64).or_default() += u64::from(cost);
        }
        prop_assert!(windows.values().all(|taken| *taken <= u64::from(quota.limit())), "{:?}", windows);
    }

    #[test]
    fn a_sliding_window_never_admits_more_than_its_limit_in_any_span_of_a_period(
        quota in windows(Algorithm::SlidingWindow), start in start(), steps in steps()
    ) {
        let sent = run::<Sliding>(&quota, start, &steps)?;
        let period = quota.window().as_nanos() as u64;
        for (first, (from, _)) in sent.iter().enumerate() {
            let span = sent[first..].iter().take_while(|(at, _)| at - from < period);
            let taken: u64 = span.map(|(_, cost)| u64::from(*cost)).sum();
            prop_assert!(taken <= u64::from(quota.limit()), "{} from {}", taken, from);
        }
    }

    #[test]
    fn a_token_bucket_admits_all_that_its_envelope_allows(quota in buckets(), start in start(), steps in steps()) {
        // The model counts in 1/count of a nanosecond, without rounding or bound.
        let (period, count) = (quota.rate().period().as_nanos(), u128::from(quota.rate().count()));
        let (mut cell, mut full, mut now) = (Gcra::default(), 0u128, start);
        for step in &steps {
            match *step {
                Step::Pass(passed) => now += share(&quota, passed),
                Step::Take(cost) | Step::Wait { cost, .. } => {
                    let cost = scaled(cost, &quota).max(1);
                    let at = u128::from(now.as_nanos()) * count;
                    let next = full.max(at) + u128::from(cost) * period;
                    let admits = next <= at + u128::from(quota.limit()) * period;
                    if admits {
                        full = next;
                    }
                    let decision = cell.take(&quota, cost, now);
                    prop_assert_eq!(matches!(decision, Decision::Admit(_)), admits, "{:?}", decision);
                    let left = (at + u128::from(quota.limit()) * period - full.max(at)) / period;
                    prop_assert_eq!(u128::from(cell.standing(&quota, now).remaining), left);
                }
                Step::Refund(_) => {}
            }
        }
    }

    #[test]
    fn a_fixed_window_admits_all_that_its_limit_allows(
        quota in windows(Algorithm::FixedWindow), start in start(), steps in steps()
    ) {
        let (mut cell, mut now, mut windows) = (Fixed::default(), start, HashMap::<u64, u64>::new());
        for step in &steps {
            match *step {
                Step::Pass(passed) => now += share(&quota, passed),
                Step::Take(cost) | Step::Wait { cost, .. } => {
                    let cost = scaled(cost, &quota).max(1);
                    let taken = windows.entry(now.as_nanos() / quota.window().as_nanos() as u64).or_default();
                    let admits = *taken + u64::from(cost) <= u64::from(quota.limit());
                    *taken += if admits { u64::from(cost) } else { 0 };
                    prop_assert_eq!(matches!(cell.take(&quota, cost, now), Decision::Admit(_)), admits);
                    prop_assert_eq!(
                        u64::from(cell.standing(&quota, now).remaining), u64::from(quota.limit()) - *taken
                    );
                }
                Step::Refund(_) => {}
            }
        }
    }

    #[test]
    fn a_joined_counter_denies_what_either_denies(
        bucket in buckets(), fixed in windows(Algorithm::FixedWindow), sliding in windows(Algorithm::SlidingWindow),
        start in start(), one in steps(), other in steps(), later in 0..2_000_000u32, cost in 1..9u32,
    ) {
        joins::<Gcra>(&bucket, start, [&one, &other], later, cost)?;
        joins::<Fixed>(&fixed, start, [&one, &other], later, cost)?;
        joins::<Sliding>(&sliding, start, [&one, &other], later, cost)?;
    }

    #[test]
    fn after_a_change_the_new_envelope_holds(
        old in buckets(), new in buckets(), start in start(), before in steps(), after in steps()
    ) {
        let (mut cell, mut now) = played::<Gcra>(&old, start, &before);
        cell.update(&old, &new);
        let (period, count) = (new.rate().period().as_nanos(), u128::from(new.rate().count()));
        let (changed, mut taken) = (now, 0);
        for step in &after {
            match *step {
                Step::Pass(passed) => now += share(&new, passed),
                Step::Take(cost) | Step::Wait { cost, .. } => {
                    if let Decision::Admit(grant) = cell.take(&new, scaled(cost, &new), now) {
                        taken += u128::from(grant.cost());
                        let span = now.since(changed).as_nanos();
                        prop_assert!(taken * period <= u128::from(new.limit()) * period + span * count);
                    }
                }
                Step::Refund(_) => {}
            }
        }
    }
}

/// A counter after some takes, and the instant of the last.
fn played<C: Counter>(quota: &Quota, start: Instant, steps: &[Step]) -> (C, Instant) {
    let (mut cell, mut now) = (C::default(), start);
    for step in steps {
        match *step {
            Step::Pass(passed) => now += share(quota, passed) / 64,
            Step::Take(cost) | Step::Wait { cost, .. } => {
                let _ = cell.take(quota, scaled(cost, quota), now);
            }
            Step::Refund(_) => {}
        }
    }
    (cell, now)
}

fn joins<C: Counter>(
    quota: &Quota,
    start: Instant,
    steps: [&[Step]; 2],
    later: u32,
    cost: u32,
) -> TestCaseResult {
    let [(one, one_at), (other, other_at)] = steps.map(|steps| played::<C>(quota, start, steps));
    let now = one_at.max(other_at) + share(quota, later) / 64;
    if let Decision::Admit(_) = one.join(other, quota).take(quota, cost, now) {
        for mut each in [one, other] {
            let admitted = matches!(each.take(quota, cost, now), Decision::Admit(_));
            prop_assert!(admitted);
        }
    }
    Ok(())
}
