//! A source that never changes: a list.

use std::{collections::BTreeMap, future::pending, sync::Arc};

use super::{Instance, Listing, Registrant, Revision, ServiceName, Source, SourceError, Update, Watch};

/// A source that tells what it was made with.
#[derive(Clone, Debug)]
pub struct StaticSource(BTreeMap<ServiceName, Vec<Arc<Instance>>>);

impl StaticSource {
    /// Makes a source of instances, of one service or several.
    pub fn new(instances: impl IntoIterator<Item = Instance>) -> Self {
        let mut services = BTreeMap::<_, Vec<_>>::new();
        for instance in instances {
            services.entry(instance.service.clone()).or_default().push(Arc::new(instance));
        }
        Self(services)
    }

    pub(super) fn listing(&self, service: &ServiceName) -> Listing {
        let instances = self.0.get(service).cloned().unwrap_or_default();
        Listing { revision: Revision::default(), instances, malformed: 0 }
    }

    pub(super) fn names(&self) -> Vec<ServiceName> {
        self.0.keys().cloned().collect()
    }
}

impl Source for StaticSource {
    type Watch = Once;

    fn describe(&self) -> String {
        "static list".to_owned()
    }

    async fn list(&self) -> Result<Vec<ServiceName>, SourceError> {
        Ok(self.names())
    }

    async fn get(&self, service: &ServiceName) -> Result<Listing, SourceError> {
        Ok(self.listing(service))
    }

    async fn watch(&self, service: &ServiceName) -> Result<Once, SourceError> {
        Ok(Once(Some(self.listing(service))))
    }

    fn register(&self, _registrant: Registrant) -> Result<(), SourceError> {
        Err(SourceError::unsupported("a static list takes no registrations; list the instance in it"))
    }
}

/// A watch that tells one listing and then is silent.
#[derive(Debug)]
pub struct Once(Option<Listing>);

impl Watch for Once {
    async fn next(&mut self) -> Result<Update, SourceError> {
        match self.0.take() {
            Some(listing) => Ok(Update::All(listing)),
            None => pending().await,
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::{
        Call, clock,
        registry::{LookupError, Provenance, Registry, Settings},
    };

    #[tokio::test(start_paused = true)]
    async fn a_static_list_is_live_and_takes_no_registrations() {
        let instance = Instance::new("orders".parse().unwrap(), "1", "10.0.0.1:80".parse().unwrap());
        let registry = Registry::new(StaticSource::new([instance.clone()]), Settings::default()).unwrap();
        let mut subscription = registry.watch(&instance.service);
        assert_eq!(subscription.next().await.unwrap().endpoints.len(), 1);
        let found = registry.lookup(&Call::at(clock::now()), &instance.service).await.unwrap();
        assert_eq!(found.provenance, Provenance::Live);
        let none = registry.lookup(&Call::at(clock::now()), &"none".parse().unwrap()).await;
        assert_eq!(none.unwrap_err(), LookupError::NotFound);
        assert!(registry.register(instance).unwrap_err().message.contains("list the instance in it"));
    }
}
