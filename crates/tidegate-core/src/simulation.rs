//! A fleet on virtual time: the real [`Account`](crate::credit::Account)s and the real [`Book`](crate::ledger::Book),
//! with made-up nodes, calls, latencies and faults in between, so that people choose limits by looking.
//!
//! The same seed gives the same run. A second of a busy fleet takes milliseconds.
//!
//! ```
//! use std::time::Duration;
//! use tidegate_core::{Algorithm, Quota, ledger::Rule, simulation::{Fleet, Load, Scenario}};
//!
//! let quota = Quota::of("1000/s".parse()?).algorithm(Algorithm::FixedWindow).build()?;
//! let scenario = Scenario::new(Rule::of(quota).build()?);
//! let load = Load { nodes: 4, calls_per_second: 2000.0, ..Load::default() };
//! let length = Duration::from_secs(3);
//! let report = Fleet::new(scenario, 4).run(load.calls(length), length, |_| {});
//! assert_eq!(report.over, 0);
//! assert!(report.windows.iter().all(|window| window.admitted >= 990));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod dice;
mod fleet;
mod judge;
mod load;
mod report;
mod scenario;
#[cfg(test)]
mod tests;

pub use dice::Dice;
pub use fleet::Fleet;
pub use load::{Call, Load, Zipf};
pub use report::{Progress, Report, Window};
pub use scenario::{Fault, Scenario};
