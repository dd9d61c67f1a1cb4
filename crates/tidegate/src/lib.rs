//! Guards that keep a shared dependency alive, as plain async functions and as `tower` layers over `http` types.
//!
//! A guard answers one question: may this call go, now? It says yes with a permit, or no with a [`Refused`] that tells
//! who refused, when to come back, and that nothing was sent. Whatever is admitted is given back exactly once: by
//! [`Permit::settle`] with an [`Outcome`], or by drop.
//!
//! | guard | what it bounds | as a layer |
//! |---|---|---|
//! | [`Limiter`] | calls in flight, with a bounded queue; a fixed limit or one that adapts | [`layer::limit`] |
//! | [`Throttle`] | calls per time and key: token bucket, fixed or sliding window | |
//! | [`FleetThrottle`](fleet::FleetThrottle) | the same over a fleet, exactly, on credit from a shared ledger | |
//! | [`Breaker`] | calls to a dependency that keeps failing | [`layer::breaker`] |
//! | [`Pressure`] | sheddable calls, while memory is short | |
//! | [`RetryBudget`] | retries, as a share of all calls | |
//!
//! Each of them is a [`Gate`], so that code can be written for any guard; [`Unsent`](Outcome::Unsent) calls give back
//! what they took. Clones share one guard. Only what a fleet shares spawns tasks, and admitting a call at once allocates nothing.
//!
//! What a guard knows of a call stands in [`Call`]: the time, which is read once, a deadline, a priority and a cost.
//!
//! # Calls in flight
//!
//! ```
//! use std::time::Duration;
//! use tidegate::{Call, Limiter, Outcome, Permit as _, clock};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limiter = Limiter::builder().limit(50).queue(100).build()?;
//! let call = Call::at(clock::now()).within(Duration::from_secs(2));
//! let permit = limiter.acquire(&call).await?; // waits in line, at most two seconds
//! // ... call the service
//! permit.settle(Outcome::Success, clock::now());
//! # Ok(()) }
//! ```
//!
//! # Calls per time
//!
//! ```
//! use tidegate::{Call, Throttle, clock, throttle::{Key, Quota}};
//!
//! let throttle = Throttle::new(Quota::of("100/s".parse()?).burst(10).build()?);
//! match throttle.try_enter(&Call::at(clock::now()), &Key::of(b"alice")) {
//!     Ok(_permit) => println!("it may go"),
//!     Err(refused) => println!("come back in {:?}", refused.retry_after),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`throttle::enter_all`] decides several limits at once, all or none.
//!
//! # A dependency that fails
//!
//! ```
//! use tidegate::{Breaker, Call, Outcome, Permit as _, breaker::Settings, clock};
//!
//! let breaker = Breaker::new(Settings::default())?;
//! let permit = breaker.admit(&Call::at(clock::now())).expect("a new breaker is closed");
//! let answer: Result<(), std::io::Error> = Ok(()); // ... call the service
//! let outcome = if answer.is_ok() { Outcome::Success } else { Outcome::Overload { retry_after: None } };
//! permit.settle(outcome, clock::now());
//! # Ok::<(), tidegate::breaker::InvalidSettings>(())
//! ```
//!
//! # Retries
//!
//! ```
//! use tidegate::{RetryBudget, clock, retry_budget::Settings};
//!
//! let budget = RetryBudget::new(Settings::default())?;
//! budget.deposit(clock::now()); // with every first attempt
//! if budget.withdraw(clock::now()).is_ok() {
//!     // try once more
//! }
//! # Ok::<(), tidegate::retry_budget::InvalidSettings>(())
//! ```
//!
//! # Who serves what
//!
//! [`Registry`] answers from what it knows of a registry of services while that is slow, wrong or gone, and asks it no
//! more than agreed; [`registry`] shows it. It is a [`Keeper`]: values by key, fetched once for all who ask, refreshed
//! before they end, served with their age while the source fails. These two work in tasks of their own.
//!
//! # Whose token
//!
//! [`TokenCoordinator`] keeps the access tokens of sessions good: one grant an expiry over all processes that share a
//! [`SessionStore`](token::SessionStore), and nobody logged out by it; [`ServiceTokens`](token::ServiceTokens) those of
//! the client itself. [`token`] shows both.
//!
//! # Layers
//!
//! [`layer::limit::LimitLayer`] and [`layer::breaker::BreakerLayer`] guard a `tower` service, of a client or a server,
//! of plain HTTP or gRPC. A permit rides in the response body to the end of its stream, and gRPC statuses are read
//! from trailers. The programs in `examples/` show them with tonic.
//!
//! The decisions behind the guards, without clocks and locks, are in [`tidegate_core`]. There are no cargo features.

#![forbid(unsafe_code)]

pub mod breaker;
pub mod classify;
pub mod clock;
pub mod event;
pub mod fleet;
pub mod flight;
mod gate;
pub mod grpc;
pub mod keeper;
pub mod layer;
pub mod limiter;
pub mod pressure;
pub mod registry;
pub mod retry_budget;
mod secret;
mod server_url;
mod sync;
pub mod throttle;
pub mod token;

pub use breaker::Breaker;
pub use classify::{ByStatus, Classify, Judged};
pub use event::{Event, Observer};
pub use gate::{Gate, Permit};
pub use keeper::Keeper;
pub use limiter::Limiter;
pub use pressure::Pressure;
pub use registry::Registry;
pub use retry_budget::RetryBudget;
pub use secret::{REDACTED, Secret};
pub use server_url::{Credentials, InvalidServerUrl, Server, ServerUrl, redacted_url};
pub use throttle::Throttle;
pub use tidegate_core::{By, Call, Instant, Outcome, Priority, Rate, Refused};
pub use token::TokenCoordinator;
