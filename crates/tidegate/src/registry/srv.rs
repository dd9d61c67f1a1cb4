//! A source that is the SRV records of a name.

use std::{collections::BTreeMap, fmt, net::SocketAddr, sync::Arc, time::Duration};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
    proto::rr::{RData, rdata::SRV},
};
use tokio::time::timeout;

use super::{
    Address, Instance, Listing, Registrant, Revision, ServiceName, Source, SourceError, SourceErrorKind,
    dns::{PATIENCE, PLACEHOLDER},
    fixed::Once,
};

/// How long one server of names may take.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The SRV records of a name (RFC 2782): targets, ports and weights. `{service}` in the name stands for the service that
/// is looked up; without it every service has the same instances.
///
/// The instances are the targets of the lowest priority number, as names that whoever calls resolves; a weight of 0 is
/// one of 1 here. Nothing is kept between readings: a name is read again by the registry's `ttl`. A name that does not
/// exist, or has no such records, is a service without instances; servers that do not answer are an error.
#[derive(Clone)]
pub struct SrvSource {
    name: Arc<str>,
    resolver: TokioResolver,
    servers: Arc<[SocketAddr]>,
}

impl fmt::Debug for SrvSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SrvSource").field("name", &self.name).field("servers", &self.servers).finish()
    }
}

impl SrvSource {
    /// A name, like `_http._tcp.orders.example` or `_{service}._tcp.internal.example`, as the system's servers know it.
    ///
    /// # Errors
    /// [`SourceErrorKind::Malformed`] when the system's configuration of names cannot be read.
    pub fn new(name: impl Into<Arc<str>>) -> Result<Self, SourceError> {
        let mut builder = TokioResolver::builder_tokio().map_err(unusable)?;
        let options = builder.options_mut();
        (options.timeout, options.cache_size) = (ATTEMPT, 0);
        let resolver = builder.build().map_err(unusable)?;
        Ok(Self { name: name.into(), resolver, servers: [].into() })
    }

    /// A name as these servers know it, like Consul's on port 8600.
    ///
    /// # Errors
    /// [`SourceErrorKind::Malformed`] when there is no server.
    pub fn at(
        name: impl Into<Arc<str>>,
        servers: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<Self, SourceError> {
        let servers: Arc<[SocketAddr]> = servers.into_iter().collect();
        if servers.is_empty() {
            return Err(unusable("there is no server to ask; name one, like 127.0.0.1:53"));
        }
        let config = servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_name_servers(config.collect());
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        (options.timeout, options.cache_size) = (ATTEMPT, 0);
        let resolver = builder.build().map_err(unusable)?;
        Ok(Self { name: name.into(), resolver, servers })
    }
}

fn unusable(why: impl fmt::Display) -> SourceError {
    SourceError::new(SourceErrorKind::Malformed, format!("srv: names cannot be asked for: {why}"))
}

impl Source for SrvSource {
    type Watch = Once;

    fn describe(&self) -> String {
        format!("srv:{}", self.name)
    }

    async fn list(&self) -> Result<Vec<ServiceName>, SourceError> {
        Err(SourceError::unsupported("DNS does not list services; name them"))
    }

    async fn get(&self, service: &ServiceName) -> Result<Listing, SourceError> {
        let name = self.name.replace(PLACEHOLDER, service.as_str());
        let found = match timeout(PATIENCE, self.resolver.srv_lookup(&*name)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) if error.is_no_records_found() => return Ok(Listing::default()),
            Ok(Err(error)) => return Err(SourceError::unavailable(format!("{name}: {error}"))),
            Err(_) => {
                return Err(SourceError::unavailable(format!("{name}: not resolved within {PATIENCE:?}")));
            }
        };
        let records = found.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(record) => Some(record),
            _ => None,
        });
        Ok(listing(service, records))
    }

    async fn watch(&self, _service: &ServiceName) -> Result<Once, SourceError> {
        Err(SourceError::unsupported("DNS does not tell changes; names are resolved again by the ttl"))
    }

    fn register(&self, _registrant: Registrant) -> Result<(), SourceError> {
        Err(SourceError::unsupported("DNS takes no registrations; use a registry that does, like etcd"))
    }
}

/// The targets of the lowest priority number. A target that is the root says that there is no such service.
fn listing<'a>(service: &ServiceName, records: impl Iterator<Item = &'a SRV>) -> Listing {
    let records: Vec<_> = records.filter(|record| !record.target.is_root()).collect();
    let first = records.iter().map(|record| record.priority).min();
    let (mut instances, mut malformed) = (BTreeMap::new(), 0);
    for record in records.into_iter().filter(|record| Some(record.priority) == first) {
        let target = record.target.to_ascii();
        match Address::parse(&format!("{}:{}", target.trim_end_matches('.'), record.port)) {
            Ok(address) => {
                let mut instance = Instance::new(service.clone(), address.as_str(), address.clone());
                instance.weight = record.weight.max(1).into();
                instances.insert(instance.id.clone(), Arc::new(instance));
            }
            Err(_) => malformed += 1,
        }
    }
    Listing { revision: Revision::default(), instances: instances.into_values().collect(), malformed }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
