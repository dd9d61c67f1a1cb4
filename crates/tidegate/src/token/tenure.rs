//! A lease that is renewed for as long as its work lasts.

use std::sync::Arc;

use tokio::task::AbortHandle;

use super::{
    SessionId, SessionStore, TokenEndpoint,
    refresher::Refresher,
    stats::count,
    store::{Fence, Phase},
};

/// Renews a lease until it is dropped.
pub(super) struct Tenure(AbortHandle);

impl Tenure {
    pub(super) fn begin<E: TokenEndpoint, S: SessionStore>(
        of: &Arc<Refresher<E, S>>,
        id: &SessionId,
        fence: Fence,
    ) -> Self {
        let (of, id, life) = (Arc::clone(of), id.clone(), of.settings.lease);
        let renewing = tokio::spawn(async move {
            loop {
                tokio::time::sleep(life / 3).await;
                // What the phase was it stays.
                match of.counters.store(of.store.renew(&id, fence, life, Phase::Held).await) {
                    Ok(true) | Err(_) => {}
                    Ok(false) => return count(&of.counters.leases_lost),
                }
            }
        });
        Self(renewing.abort_handle())
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        self.0.abort();
    }
}
