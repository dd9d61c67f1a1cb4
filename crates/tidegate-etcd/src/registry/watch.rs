//! A watch of one service.

use std::{collections::HashMap, fmt, sync::Arc};

use tidegate::registry::{Change, Listing, Revision, ServiceName, SourceError, Update, Watch};

use super::{malformed, told};
use crate::{
    Client,
    kv::Reading,
    layout::{Entry, KeySpace},
    proto::{Event, event::EventType},
    watch::{KeyWatch, Seen},
};

/// A watch of one service in etcd. It goes on over failovers without a gap, from the revision after the last it saw.
///
/// A connection that is cut off is noticed within 15 s, and the watch is given up if it cannot go on for 10 s more. A
/// stream that etcd has forgotten is noticed within 80 s.
pub struct EtcdWatch {
    client: Client,
    keys: KeyWatch,
    space: KeySpace,
    service: ServiceName,
    /// The id of the instance that each key holds: a deletion tells the key alone.
    ids: HashMap<Vec<u8>, Arc<str>>,
}

impl EtcdWatch {
    pub(super) fn new(client: Client, keys: KeyWatch, space: KeySpace, service: ServiceName) -> Self {
        Self { client, keys, space, service, ids: HashMap::new() }
    }

    fn all(&mut self, reading: Reading) -> Listing {
        self.ids.clear();
        let mut listing = Listing { revision: Revision(reading.place), ..Listing::default() };
        for entry in reading.entries {
            match self.space.decode(&self.service, &entry.value) {
                Entry::Instance(instance) => {
                    self.ids.insert(entry.key, instance.id.as_str().into());
                    listing.instances.push(instance);
                }
                Entry::OfAnother => {}
                Entry::Malformed(why) => {
                    malformed(&self.client, &entry.key, &why);
                    listing.malformed += 1;
                }
            }
        }
        listing
    }

    /// What one event changes: every event of a batch counts, and none of them needs what stood there before.
    fn changes(&mut self, event: Event, changes: &mut Vec<Change>) {
        let deleted = event.r#type() == EventType::Delete;
        let Some(entry) = event.kv else { return };
        if deleted {
            if let Some(id) = self.ids.remove(&entry.key) {
                changes.push(Change::Removed((*id).to_owned()));
            }
            return;
        }
        match self.space.decode(&self.service, &entry.value) {
            Entry::Instance(instance) => {
                let former = self.ids.insert(entry.key, instance.id.as_str().into());
                if let Some(former) = former.filter(|former| **former != *instance.id) {
                    changes.push(Change::Removed((*former).to_owned()));
                }
                changes.push(Change::Put(instance));
            }
            Entry::OfAnother => {
                // The key belongs to another service now, whose keys look the same.
                if let Some(id) = self.ids.remove(&entry.key) {
                    changes.push(Change::Removed((*id).to_owned()));
                }
            }
            Entry::Malformed(why) => {
                malformed(&self.client, &entry.key, &why);
                let id = self.ids.get(&entry.key).map(|id| (**id).to_owned());
                changes.push(Change::Malformed(id.unwrap_or_else(|| self.space.id_in(&entry.key))));
            }
        }
    }
}

impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<Update, SourceError> {
        match self.keys.next().await.map_err(told)? {
            Seen::All(reading) => Ok(Update::All(self.all(reading))),
            Seen::Changes { place, events } => {
                let mut changes = Vec::with_capacity(events.len());
                for event in events {
                    self.changes(event, &mut changes);
                }
                let revision = Revision(place);
                Ok(if changes.is_empty() {
                    Update::Caught(revision)
                } else {
                    Update::Changes { revision, changes }
                })
            }
            Seen::Caught { place } => Ok(Update::Caught(Revision(place))),
        }
    }
}

impl fmt::Debug for EtcdWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdWatch").field("service", &self.service).finish_non_exhaustive()
    }
}
