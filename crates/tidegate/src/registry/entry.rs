//! The books of one service: what is known, who is told, and the task that follows the source.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::watch, task::AbortHandle};

use super::{Preservation, ServiceName, Snapshot, SourceError, service::Service, snapshot::Origin};
use crate::Instant;

pub(super) struct Entry {
    name: ServiceName,
    known: Mutex<Known>,
    tell: watch::Sender<Option<Arc<Snapshot>>>,
    /// The one task that follows the source.
    follower: Mutex<Option<AbortHandle>>,
}

/// What is known of a service, and how.
pub(super) struct Known {
    pub(super) service: Service,
    pub(super) origin: Origin,
    /// Counts what was told of it.
    pub(super) version: u64,
    /// Watches that ended.
    pub(super) watch_restarts: u64,
    /// Why the last watch ended, or did not begin, until one tells something.
    pub(super) trouble: Option<SourceError>,
}

impl Entry {
    pub(super) fn new(name: ServiceName, rule: Preservation, now: Instant) -> Self {
        let service = Service::new(name.clone(), rule, now);
        Self {
            name,
            known: Mutex::new(Known {
                service,
                origin: Origin::Read,
                version: 0,
                watch_restarts: 0,
                trouble: None,
            }),
            tell: watch::Sender::new(None),
            follower: Mutex::new(None),
        }
    }

    pub(super) fn name(&self) -> &ServiceName {
        &self.name
    }

    /// Decides under the lock.
    pub(super) fn change<R>(&self, decide: impl FnOnce(&mut Known) -> R) -> R {
        decide(&mut self.known.lock())
    }

    /// Tells the subscribers; called under the lock of `known`, so that they hear in order.
    pub(super) fn tell(&self, known: &Known) {
        if self.tell.receiver_count() > 0 || self.tell.borrow().is_some() {
            self.tell.send_replace(Some(Arc::new(known.service.snapshot())));
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        let known = self.known.lock();
        let mut receiver = self.tell.subscribe();
        if known.service.as_of().is_some() {
            self.tell.send_replace(Some(Arc::new(known.service.snapshot())));
        }
        receiver.mark_changed();
        receiver
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.tell.receiver_count() > 0
    }

    /// The place of the one follower.
    pub(super) fn follower(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.follower.lock()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(follower) = self.follower.get_mut().take() {
            follower.abort();
        }
    }
}
