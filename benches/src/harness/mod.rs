//! Times operations, counts allocations, prints tables: all that the files of the guards need.
//!
//! ```ignore
//! suite.timings("limiter: enter + leave", |table| {
//!     table.ours("Limiter", limiter, |limiter| limiter.try_enter(&call, &()));        // one shared object
//!     table.peer("tokio Semaphore", semaphore, |semaphore| semaphore.try_acquire().is_ok());
//!     table.peer_with("tower", service, |s| s.clone(), |s| block_on(s.ready_and_call())); // and one clone a thread
//!     table.bar("<= tokio's acquire_owned");
//! });
//! ```

#![allow(dead_code, reason = "each file of a guard uses the rows it needs")]

mod allocations;
mod block_on;
mod counts;
mod measure;
mod options;
mod print;
mod suite;
mod timings;

pub(crate) use allocations::held_by;
pub(crate) use block_on::block_on;
pub(crate) use counts::Counts;
pub(crate) use options::Options;
pub(crate) use suite::Suite;
pub(crate) use timings::Timings;
