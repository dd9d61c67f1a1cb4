//! A node's side of a fleet's limit: spends the credit it holds, asks for more before it runs dry, and knows when asking
//! is of no use.
//!
//! A node spends only what the [ledger](crate::ledger) has granted to it, until a deadline on its own monotonic clock.
//! The deadline is counted from the instant at which the question was SENT, and the life of the credit is shortened by
//! how much the store's clock may run faster: the store decided later than that, so credit is over on the node
//! before it is over in the ledger, and no clock is compared with another.
//!
//! ```
//! use std::time::Duration;
//! use tidegate_core::{Algorithm, Instant, Quota};
//! use tidegate_core::credit::{Account, Spend, Terms};
//! use tidegate_core::ledger::{Book, Epoch, Rule};
//! use tidegate_core::lease::Node;
//!
//! let quota = Quota::of("1000/s".parse()?).algorithm(Algorithm::FixedWindow).build()?;
//! let rule = Rule::of(quota).build()?;
//! let (terms, mut account, mut book) = (Terms::of(&rule), Account::default(), Book::default());
//! let (now, of_store) = (Instant::from_nanos(1), 1_000_000);
//!
//! let Spend::Wait(Some(draft)) = account.spend(1, &terms, now) else { panic!("it holds nothing yet") };
//! let ask = draft.send(Node(1), 1);
//! let reply = book.grant(&rule, &ask, of_store, Epoch::WHOLE);
//! account.replied(&ask, &reply, &terms, now, now + Duration::from_millis(1));
//! assert!(matches!(account.spend(1, &terms, now), Spend::Allow | Spend::AllowAndAsk(_)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod account;
mod aside;
mod draft;
mod terms;
#[cfg(test)]
mod tests;

pub use account::{Account, Purse, Reserve, Source, Spend};
pub use aside::Aside;
pub use draft::Draft;
pub use terms::{DEFAULT_DRIFT, MAX_DRIFT, Terms};
