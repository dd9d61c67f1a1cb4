//! The guards as `tower` layers over `http` types: a layer polls, the guard does the thinking.

mod body;
pub mod breaker;
mod direction;
mod idle;
pub mod limit;

pub use body::GuardedBody;
pub use direction::{RequestBody, RequestHalf, ResponseHalf, halves};
pub use idle::{IdleBody, StreamError};
