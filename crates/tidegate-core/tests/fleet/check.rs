//! What a fleet spent, against what it may.

use proptest::{prop_assert, test_runner::TestCaseError};
use tidegate_core::ledger::{Law, Micros, Rule};

/// What a call spent, by the store's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    pub(crate) at: Micros,
    pub(crate) cost: u32,
}

/// What a ledger that was lost at `at` could not be told, as nobody who is left has seen it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    pub(crate) at: Micros,
    pub(crate) units: u64,
}

/// No window that begins at one of `starts` spends more than the limit of its time.
pub(crate) fn windows(
    starts: impl Iterator<Item = Micros>,
    period: Micros,
    spent: &[Spent],
    allowances: &[Allowance],
    limit: impl Fn(Micros, Micros) -> u64,
) -> Result<(), TestCaseError> {
    for start in starts {
        let end = start + period;
        let within = spent.iter().filter(|spent| (start..end).contains(&spent.at));
        let sum: u64 = within.map(|spent| u64::from(spent.cost)).sum();
        // What was lost counted in the window it was lost in and, sliding, in those that touch it.
        let lost = allowances.iter().filter(|lost| (start..end + period).contains(&lost.at));
        let allowed = limit(start, end) + lost.map(|lost| lost.units).sum::<u64>();
        prop_assert!(sum <= allowed, "{sum} of {allowed} from {start}");
    }
    Ok(())
}

/// In no time is more spent than the burst and what flows in: followed by a bucket that counts in fractions of a unit.
pub(crate) fn envelope(rule: &Rule, spent: &[Spent], allowances: &[Allowance]) -> Result<(), TestCaseError> {
    let Law::Bucket { count, period, .. } = rule.law() else { panic!("{rule:?}") };
    let (count, period) = (u128::from(count), u128::from(period));
    // Units times the period: what flows in in a microsecond is the count.
    let tolerance = rule.tolerance().as_micros() * count;
    let lost: u64 = allowances.iter().map(|lost| lost.units).sum();
    let burst = u128::from(rule.limit()) * period + tolerance + u128::from(lost) * period;
    let (mut level, mut last) = (0_u128, 0);
    for spent in spent {
        level = level.saturating_sub(u128::from(spent.at - last) * count);
        level += u128::from(spent.cost) * period;
        last = spent.at;
        prop_assert!(level <= burst, "{level} of {burst} at {last}, parts of a unit: {period}");
    }
    Ok(())
}
