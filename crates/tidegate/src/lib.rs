//! Guards that keep a shared dependency alive, as plain async functions and as `tower` layers over `http` types.

#![forbid(unsafe_code)]

pub mod breaker;
pub mod classify;
pub mod clock;
pub mod event;
mod gate;
pub mod grpc;
pub mod layer;
pub mod limiter;
pub mod retry_budget;
mod secret;
mod server_url;
mod sync;
pub mod throttle;

pub use breaker::Breaker;
pub use classify::{ByStatus, Classify, Judged};
pub use event::{Event, Observer};
pub use gate::{Gate, Permit};
pub use limiter::Limiter;
pub use retry_budget::RetryBudget;
pub use secret::{REDACTED, Secret};
pub use server_url::{Credentials, InvalidServerUrl, Server, ServerUrl, redacted_url};
pub use throttle::Throttle;
pub use tidegate_core::{By, Call, Instant, Outcome, Priority, Rate, Refused};
