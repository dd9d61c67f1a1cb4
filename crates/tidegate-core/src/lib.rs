//! The decisions of Tidegate.
//!
//! Nothing here reads a clock, does IO, spawns, logs or rolls dice: `now` is an argument and an answer is an
//! enum, so that every decision can be tested in a table, proved with properties and run on virtual time. The crate
//! `tidegate` puts clocks, locks and wakers around them; use that one to guard calls, and this one to drive the
//! decisions yourself, in a simulation or another runtime.
//!
//! | to decide | look at |
//! |---|---|
//! | whether a call may go by a quota of calls per time | [`Quota`], and the counters [`Gcra`], [`Fixed`], [`Sliding`] |
//! | whether a call may go by a limit that a fleet shares, without asking | [`credit`] on a node, [`ledger`] in the store |
//! | how a fleet would fare under a limit | [`simulation`] |
//! | whether it goes, waits or is shed, by the calls in flight | [`gate`] |
//! | how large the limit on calls in flight should be | [`limit`]: fixed, AIMD, Vegas, gradient |
//! | whether a dependency is failing, and when to try it again | [`breaker`] |
//! | whether memory is short, and what is shed then | [`pressure`] |
//! | whether a retry is affordable | [`budget`] |
//! | whether a value is fresh, and when to fetch it again | [`keep`], [`Lifetime`], [`Backoff`] |
//! | what becomes of a session's access token | [`token`] |
//! | whether a source of values can be reached, and how often to ask it | [`recovery`], [`attempts`] |
//!
//! All of them speak of a [`Call`], the [`Outcome`] it came to, and why it was [`Refused`].
//!
//! ```
//! use std::time::Duration;
//! use tidegate_core::{Counter as _, Decision, Gcra, Instant, Quota};
//!
//! let quota = Quota::of("2/s".parse()?).build()?;
//! let now = Instant::from_nanos(1_000_000_000);
//! let mut counter = Gcra::default();
//! assert!(matches!(counter.take(&quota, 1, now), Decision::Admit(_)));
//! assert!(matches!(counter.take(&quota, 1, now), Decision::Admit(_)));
//! let Decision::Deny { retry_at } = counter.take(&quota, 1, now) else { panic!("a third one is too many") };
//! assert_eq!(retry_at.since(now), Duration::from_millis(500));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub mod attempts;
mod backoff;
pub mod breaker;
pub mod budget;
mod call;
pub mod credit;
mod freshness;
pub mod gate;
mod gcra;
mod instant;
pub mod keep;
pub mod lease;
pub mod ledger;
pub mod limit;
mod outcome;
pub mod pressure;
mod quota;
mod rate;
pub mod recovery;
mod refused;
pub mod share;
pub mod simulation;
mod sliding;
pub mod token;
mod window;

pub use backoff::{Backoff, Dice, InvalidBackoff};
pub use call::{Call, Priority};
pub use freshness::{Freshness, Lifetime, Term};
pub use gcra::Gcra;
pub use instant::{Instant, nanos};
pub use outcome::Outcome;
pub use quota::{Algorithm, Counter, Decision, Grant, InvalidQuota, Quota, QuotaBuilder, Standing};
pub use rate::{InvalidRate, MAX_PERIOD, Rate};
pub use refused::{By, Refused};
pub use window::{Fixed, Sliding};
