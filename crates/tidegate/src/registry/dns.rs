//! A source that is a name: its addresses, on one port.

use std::{collections::BTreeSet, net::ToSocketAddrs, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    Address, Instance, Listing, Registrant, Revision, ServiceName, Source, SourceError, SourceErrorKind,
    fixed::Once,
};

/// The longest a resolution may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What stands for the service in a name.
pub(super) const PLACEHOLDER: &str = "{service}";

/// The A and AAAA records of a name, as the system resolves them. `{service}` in the name stands for the service that is
/// looked up; without it every service has the same instances.
///
/// The system's resolver tells neither lifetimes nor changes, so a name is resolved again by the registry's `ttl`; and it
/// does not tell a name that does not exist from one that could not be asked for, so both are errors.
#[derive(Clone, Debug)]
pub struct DnsSource {
    host: Arc<str>,
    port: u16,
}

impl DnsSource {
    /// A name, like `orders.example` or `{service}.internal.example`, and a port.
    pub fn new(host: impl Into<Arc<str>>, port: u16) -> Self {
        Self { host: host.into(), port }
    }
}

impl Source for DnsSource {
    type Watch = Once;

    fn describe(&self) -> String {
        format!("dns:{}:{}", self.host, self.port)
    }

    async fn list(&self) -> Result<Vec<ServiceName>, SourceError> {
        Err(SourceError::unsupported("DNS does not list services; name them"))
    }

    async fn get(&self, service: &ServiceName) -> Result<Listing, SourceError> {
        let host = self.host.replace(PLACEHOLDER, service.as_str());
        let port = self.port;
        let asked = host.clone();
        let resolving = tokio::task::spawn_blocking(move || {
            (asked.as_str(), port).to_socket_addrs().map(BTreeSet::from_iter)
        });
        let addresses: BTreeSet<_> = match timeout(PATIENCE, resolving).await {
            Ok(Ok(Ok(addresses))) => addresses,
            Ok(Ok(Err(error))) => return Err(SourceError::unavailable(format!("{host}: {error}"))),
            Ok(Err(_)) => {
                return Err(SourceError::unavailable(format!("{host}: resolving it was cut short")));
            }
            Err(_) => {
                return Err(SourceError::unavailable(format!("{host}: not resolved within {PATIENCE:?}")));
            }
        };
        let instances = addresses.iter().map(|address| {
            let address = Address::parse(&address.to_string())
                .map_err(|error| SourceError::new(SourceErrorKind::Malformed, error.to_string()))?;
            Ok(Arc::new(Instance::new(service.clone(), address.as_str(), address.clone())))
        });
        let instances: Vec<_> = instances.collect::<Result<_, _>>()?;
        if instances.is_empty() {
            return Err(SourceError::unavailable(format!("{host}: the resolver knows no address of it")));
        }
        Ok(Listing { revision: Revision::default(), instances, malformed: 0 })
    }

    async fn watch(&self, _service: &ServiceName) -> Result<Once, SourceError> {
        Err(SourceError::unsupported("DNS does not tell changes; names are resolved again by the ttl"))
    }

    fn register(&self, _registrant: Registrant) -> Result<(), SourceError> {
        Err(SourceError::unsupported("DNS takes no registrations; use a registry that does, like etcd"))
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_its_addresses_on_the_port() {
        let source = DnsSource::new("{service}", 9001);
        let listing = source.get(&"127.0.0.1".parse().unwrap()).await.unwrap();
        let found: Vec<_> = listing.instances.iter().map(|instance| instance.address.as_str()).collect();
        assert_eq!(found, ["127.0.0.1:9001"]);
        let listing = source.get(&"::1".parse().unwrap()).await.unwrap();
        assert_eq!(listing.instances[0].address.as_str(), "[::1]:9001");
    }

    #[tokio::test]
    async fn what_cannot_be_resolved_is_an_error_and_never_an_empty_service() {
        let source = DnsSource::new("no such host", 1);
        let error = source.get(&"orders".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind, SourceErrorKind::Unavailable);
        assert!(error.message.starts_with("no such host: "), "{}", error.message);
        assert!(source.list().await.is_err() && source.watch(&"orders".parse().unwrap()).await.is_err());
    }
}
