//! What other processes tell through the store: what they changed, what they sent, what the endpoint asked them for. All of
//! it may be lost; then it is found when a session is looked at again.

use std::{sync::Weak, time::Duration};

use tidegate_core::{keep::Landed, token::Over};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::timeout_at,
};

use super::{
    SessionStore, TokenEndpoint, answer::Known, orphans::Orphans, refresher::Refresher, store::Change,
};
use crate::{keeper, sync::now};

/// Passes on what others changed, and takes over what they left, for as long as the coordinator lives.
pub(super) async fn listen<E: TokenEndpoint, S: SessionStore>(
    refresher: Weak<Refresher<E, S>>,
    mut changes: Receiver<Change>,
    lease: Duration,
) {
    let mut orphans = Orphans::new(lease);
    loop {
        let change = match orphans.next() {
            Some(by) => timeout_at(crate::clock::timer_at(by), changes.recv()).await.ok(),
            None => Some(changes.recv().await),
        };
        let Some(refresher) = refresher.upgrade() else { return };
        match change {
            Some(Ok(change)) => refresher.learn_of(change, &mut orphans),
            // What was missed is found when sessions are looked at again.
            Some(Err(RecvError::Lagged(_))) | None => {}
            Some(Err(RecvError::Closed)) => return,
        }
        while let Some(id) = orphans.due(now()) {
            // It goes on by itself; that none begins after the shutdown is fine.
            let _ = refresher.run(&id);
        }
    }
}

impl<E: TokenEndpoint, S: SessionStore> Refresher<E, S> {
    fn learn_of(&self, change: Change, orphans: &mut Orphans) {
        let keeper = self.keeper.get().and_then(keeper::WeakKeeper::upgrade);
        match change {
            Change::Written { id, version } => {
                orphans.heard(&id);
                if let Some(waiting) = self.arrivals.lock().get(&id) {
                    waiting.notify_one();
                }
                let Some(keeper) = keeper else { return };
                match keeper.peek(&id).as_deref() {
                    Some(Known::Good(good)) if good.version != version => {
                        if good.version < version || version == 1 {
                            keeper.refresh(&id, now());
                        }
                    }
                    Some(Known::Good(_) | Known::Over(Over::Refused | Over::Unknown)) => {}
                    // It begins anew under its old name: a look under way may have found that it is gone.
                    None | Some(Known::Over(_)) if version == 1 && !self.openings.has(&id) => {
                        self.forget(&id);
                    }
                    // It is there again, or is as it was, which the store tells.
                    Some(Known::Over(Over::Gone)) => keeper.clear(&id),
                    None | Some(Known::Over(_)) => {}
                }
            }
            Change::Removed(id) => {
                orphans.heard(&id);
                if let Some(waiting) = self.arrivals.lock().get(&id) {
                    waiting.notify_one();
                }
                let Some(keeper) = keeper else { return };
                let is_known = keeper.peek(&id).is_some();
                // A look under way may have seen it still.
                self.forget(&id);
                if is_known {
                    let _: Landed = keeper.put(&id, self.gone().fetched(now()));
                }
            }
            // Later it may not be repeated; where it always may be, the next caller is soon enough.
            Change::Sent(id) => {
                if self.settings.repeats_in_time() && !self.runs.has(&id) {
                    orphans.sent(id, now());
                }
            }
            Change::Pause { endpoint, pause } => {
                if endpoint == self.settings.endpoint {
                    self.health.pause(pause, now());
                }
            }
        }
    }
}
