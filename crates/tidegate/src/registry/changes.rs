//! A service as a stream of endpoints that come and go, as balancers want it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::{Instance, Snapshot, Subscription};

/// One endpoint that came, changed or went: what `tower::discover::Change` says too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointChange {
    /// It came, or it is another than the one with the same id before.
    Insert(Arc<Instance>),
    /// The one with this id went.
    Remove(String),
}

/// The changes of one service, from [`Subscription::changes`].
pub struct Changes {
    subscription: Subscription,
    known: BTreeMap<String, Arc<Instance>>,
    queue: VecDeque<EndpointChange>,
}

impl Subscription {
    /// The endpoints that come and go, from those that are there. A suspect has not gone yet.
    pub fn changes(self) -> Changes {
        Changes { subscription: self, known: BTreeMap::new(), queue: VecDeque::new() }
    }
}

impl Changes {
    /// Waits for the next change; `None` when the registry has ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<EndpointChange> {
        loop {
            if let Some(change) = self.queue.pop_front() {
                return Some(change);
            }
            let snapshot = self.subscription.next().await?;
            self.compare(&snapshot);
        }
    }

    /// Queues what tells a snapshot from what was told: first those who come, so that a balancer is never empty between.
    fn compare(&mut self, snapshot: &Snapshot) {
        for endpoint in &snapshot.endpoints {
            let instance = &endpoint.instance;
            if self.known.get(&instance.id) != Some(instance) {
                self.known.insert(instance.id.clone(), Arc::clone(instance));
                self.queue.push_back(EndpointChange::Insert(Arc::clone(instance)));
            }
        }
        let there: BTreeSet<_> = snapshot.endpoints.iter().map(|endpoint| &endpoint.instance.id).collect();
        let queue = &mut self.queue;
        self.known.retain(|id, _| {
            let stays = there.contains(id);
            if !stays {
                queue.push_back(EndpointChange::Remove(id.clone()));
            }
            stays
        });
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::registry::{Registry, Settings, testing::FakeRegistry};

    fn instance(id: &str, port: u16) -> Instance {
        let address = format!("10.0.0.1:{port}").parse().expect("an address");
        Instance::new("orders".parse().expect("a name"), id, address)
    }

    #[tokio::test(start_paused = true)]
    async fn endpoints_come_change_and_go_and_those_who_come_are_told_first() {
        let fake = FakeRegistry::new();
        fake.put([instance("1", 1), instance("2", 2), instance("3", 3)]);
        let registry = Registry::new(fake.clone(), Settings::default()).unwrap();
        let mut changes = registry.watch(&"orders".parse().unwrap()).changes();
        let insert = |id: &str, port| Some(EndpointChange::Insert(Arc::new(instance(id, port))));
        for (id, port) in [("1", 1), ("2", 2), ("3", 3)] {
            assert_eq!(changes.next().await, insert(id, port));
        }
        let service = "orders".parse().unwrap();
        fake.change(
            &service,
            vec![
                crate::registry::Change::Removed("1".into()),
                crate::registry::Change::Put(Arc::new(instance("2", 7))),
                crate::registry::Change::Put(Arc::new(instance("4", 4))),
            ],
        );
        assert_eq!(changes.next().await, insert("2", 7));
        assert_eq!(changes.next().await, insert("4", 4));
        assert_eq!(changes.next().await, Some(EndpointChange::Remove("1".into())));
        drop(registry);
        assert_eq!(changes.next().await, None);
    }
}
