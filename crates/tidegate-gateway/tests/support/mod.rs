//! What tests of the real binary share: the gateway as a process, upstreams to put behind it, clients to put before it.

pub mod client;
pub mod clock;
pub mod dpop;
pub mod gateway;
pub mod grpc;
pub mod idp;
pub mod load;
pub mod nginx;
pub mod oidc_provider;
pub mod process;
pub mod raw;
pub mod scripted;
pub mod tally;
pub mod upstream;

use std::{future::Future, time::Duration};

pub(crate) use crate::servers::ports;

/// Longer than anything here takes on a busy machine. A wait that ends so is a failure, never a way to pass.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// Between two looks at something that cannot be waited for: another process.
pub const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Waits for a future that must end.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing happened within {PATIENCE:?}"),
    }
}

/// Looks until something is so.
pub async fn eventually(what: &str, mut look: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !look().await {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
}
