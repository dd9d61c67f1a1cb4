//! A source that is the SRV records of a name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
    proto::rr::{RData, rdata::SRV},
};
use tokio::{task::JoinSet, time::timeout};

use super::{
    Address, Instance, Listing, Registrant, Revision, ServiceName, Source, SourceError, SourceErrorKind,
    dns::{PATIENCE, PLACEHOLDER},
    fixed::Once,
};

/// How long one server of names may take.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Targets whose addresses are asked for at once.
const AT_ONCE: usize = 16;

/// The SRV records of a name (RFC 2782): targets, ports and weights. `{service}` in the name stands for the service that
/// is looked up; without it every service has the same instances.
///
/// The instances are the targets of the lowest priority number; a weight of 0 is one of 1 here. As the system's servers
/// know the name they know the targets, which are names that whoever calls resolves; where servers were given, they are
/// asked for the addresses of the targets too, and each address is an instance. Nothing is kept between readings: a name is read again by the registry's `ttl`. A name that does not
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

    /// A name as these servers know it, and its targets, like Consul's on port 8600.
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
        options.use_hosts_file = ResolveHosts::Never;
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
        let servers: Vec<_> = self.servers.iter().map(ToString::to_string).collect();
        match &*servers {
            [] => format!("srv:{}", self.name),
            servers => format!("srv://{}/{}", servers.join(","), self.name),
        }
    }

    async fn list(&self) -> Result<Vec<ServiceName>, SourceError> {
        Err(SourceError::unsupported("DNS does not list services; name them"))
    }

    async fn get(&self, service: &ServiceName) -> Result<Listing, SourceError> {
        let name = self.name.replace(PLACEHOLDER, service.as_str());
        match timeout(PATIENCE, self.ask(&name, service)).await {
            Ok(listing) => listing,
            Err(_) => Err(SourceError::unavailable(format!("{name}: not resolved within {PATIENCE:?}"))),
        }
    }

    async fn watch(&self, _service: &ServiceName) -> Result<Once, SourceError> {
        Err(SourceError::unsupported("DNS does not tell changes; names are resolved again by the ttl"))
    }

    fn register(&self, _registrant: Registrant) -> Result<(), SourceError> {
        Err(SourceError::unsupported("DNS takes no registrations; use a registry that does, like etcd"))
    }
}

impl SrvSource {
    async fn ask(&self, name: &str, service: &ServiceName) -> Result<Listing, SourceError> {
        let records = match self.resolver.srv_lookup(name).await {
            Ok(records) => records,
            Err(error) if error.is_no_records_found() => return Ok(Listing::default()),
            Err(error) => return Err(SourceError::unavailable(format!("{name}: {error}"))),
        };
        let records = records.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(record) => Some(record),
            _ => None,
        });
        let targets = first(records);
        if self.servers.is_empty() {
            let named =
                targets.iter().map(|target| (format!("{}:{}", target.host, target.port), target.weight));
            return Ok(listing(service, named));
        }
        let addresses = self.addresses(targets.iter().map(|target| target.host.clone()).collect()).await?;
        let mut lost = 0;
        let mut all = Vec::with_capacity(targets.len());
        for target in &targets {
            let addresses = &addresses[&target.host];
            lost += u32::from(addresses.is_empty());
            let sockets = addresses.iter().map(|address| SocketAddr::new(*address, target.port));
            all.extend(sockets.map(|socket| (socket.to_string(), target.weight)));
        }
        let found = listing(service, all.into_iter());
        Ok(Listing { malformed: found.malformed + lost, ..found })
    }

    /// The addresses of targets, none of one that has none. That one could not be asked for is an error: a part is not
    /// the whole.
    async fn addresses(
        &self,
        hosts: BTreeSet<String>,
    ) -> Result<BTreeMap<String, BTreeSet<IpAddr>>, SourceError> {
        let (mut waiting, mut asking, mut found) = (hosts.into_iter(), JoinSet::new(), BTreeMap::new());
        loop {
            while asking.len() < AT_ONCE
                && let Some(host) = waiting.next()
            {
                let resolver = self.resolver.clone();
                asking.spawn(async move {
                    // As a whole name: nothing is appended to it.
                    let name = format!("{host}.");
                    let (v4, v6) = tokio::join!(resolver.ipv4_lookup(&*name), resolver.ipv6_lookup(&*name));
                    (host, [v4, v6])
                });
            }
            let Some(asked) = asking.join_next().await else { return Ok(found) };
            let (host, answers) =
                asked.map_err(|_| SourceError::unavailable("resolving a target was cut short"))?;
            let (mut addresses, mut failure) = (BTreeSet::new(), None);
            for answer in answers {
                match answer {
                    Ok(answer) => {
                        let records = answer.answers().iter();
                        addresses.extend(records.filter_map(|record| record.data.ip_addr()));
                    }
                    Err(error) if error.is_no_records_found() => {}
                    Err(error) => failure = Some(error),
                }
            }
            // One family is enough; none, of which one could not be asked for, is not known to be none.
            match failure.filter(|_| addresses.is_empty()) {
                Some(error) => return Err(SourceError::unavailable(format!("{host}: {error}"))),
                None => drop(found.insert(host, addresses)),
            }
        }
    }
}

/// Where a record leads.
struct Target {
    host: String,
    port: u16,
    weight: u32,
}

/// The targets of the lowest priority number. A target that is the root says that there is no such service.
fn first<'a>(records: impl Iterator<Item = &'a SRV>) -> Vec<Target> {
    let records: Vec<_> = records.filter(|record| !record.target.is_root()).collect();
    let first = records.iter().map(|record| record.priority).min();
    let targets = records.into_iter().filter(|record| Some(record.priority) == first).map(|record| Target {
        host: record.target.to_ascii().trim_end_matches('.').to_owned(),
        port: record.port,
        weight: record.weight.max(1).into(),
    });
    targets.collect()
}

fn listing(service: &ServiceName, all: impl Iterator<Item = (String, u32)>) -> Listing {
    let (mut instances, mut malformed) = (BTreeMap::new(), 0);
    for (address, weight) in all {
        match Address::parse(&address) {
            Ok(address) => {
                let mut instance = Instance::new(service.clone(), address.as_str(), address.clone());
                instance.weight = weight;
                instances.insert(instance.id.clone(), Arc::new(instance));
            }
            Err(_) => malformed += 1,
        }
    }
    Listing { revision: Revision::default(), instances: instances.into_values().collect(), malformed }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
