//! etcd as a source of the registry.

mod registration;
mod watch;

use std::{collections::BTreeSet, fmt, sync::Arc};

use tidegate::registry::{Listing, Registrant, Revision, ServiceName, Source, SourceError, SourceErrorKind};

use tokio::runtime::Handle;

pub use self::watch::EtcdWatch;
use crate::{
    Client, Error, ErrorKind, InvalidRegistryUrl, Layout, LeaseSettings, RegistryUrl, Settings, Stats,
    kv::Extent,
    layout::{Entry, KeySpace},
    lease::SharedLease,
    watch::KeyWatch,
};

/// A registry in etcd: it lists, gets, watches and registers. Clones share one.
///
/// All registrations of it live with one lease, which one long-lived stream renews: steady, a process sends etcd four
/// small messages in the life of a lease, and no login. What is deleted or lost is registered anew, at a pace that a
/// fleet of such processes can afford. It needs a tokio runtime.
///
/// # Examples
/// ```no_run
/// use tidegate::registry::{Instance, Source, registration};
/// use tidegate_etcd::EtcdRegistry;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = EtcdRegistry::connect(&"etcd://gate:hunter2@10.0.0.1,10.0.0.2/tidegate/".parse()?)?;
/// let instance = Instance::new("orders".parse()?, "orders-7", "10.0.0.7:9001".parse()?);
/// let (owner, registrant) = registration(instance);
/// registry.register(registrant)?;
/// owner.registered().await?;
/// // ... serve, and at the end:
/// registry.close().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct EtcdRegistry(Arc<Inner>);

struct Inner {
    client: Client,
    space: KeySpace,
    lease: SharedLease,
    name: String,
}

impl EtcdRegistry {
    /// The registry that a URL names, in Tidegate's layout, with defaults for the rest. It connects when it is first
    /// used.
    ///
    /// # Errors
    /// Of the kind [`Invalid`](ErrorKind::Invalid) when the URL names no etcd.
    pub fn connect(url: &RegistryUrl) -> Result<Self, Error> {
        let client = Settings::of(url).map_err(|why| Error::invalid(format!("{url}: {why}")))?.build()?;
        Self::new(client, url, Layout::default(), LeaseSettings::default())
    }

    /// A registry over a client, below the prefix of a URL. Its user must be allowed to read that prefix, and to write
    /// there if instances are registered.
    ///
    /// # Errors
    /// Of the kind [`Invalid`](ErrorKind::Invalid) when the URL names no etcd.
    pub fn new(
        client: Client,
        url: &RegistryUrl,
        layout: Layout,
        lease: LeaseSettings,
    ) -> Result<Self, Error> {
        let RegistryUrl::Etcd { prefix, .. } = url else {
            return Err(Error::invalid(format!("{url}: {}", InvalidRegistryUrl::Scheme)));
        };
        let space = KeySpace::new(layout, prefix);
        let lease = SharedLease::new(client.clone(), lease, space.root().to_vec());
        Ok(Self(Arc::new(Inner { client, space, lease, name: url.to_string() })))
    }

    /// What its client has done so far.
    pub fn stats(&self) -> Stats {
        self.0.client.stats()
    }

    /// Deregisters everything and revokes the lease, in one call. If etcd does not answer within a call's timeout, or
    /// two if a call is under way, the registrations end with the lease.
    ///
    /// # Cancel safety
    /// Dropping the future leaves that to the background.
    pub async fn close(&self) {
        self.0.lease.close().await;
    }
}

impl Source for EtcdRegistry {
    type Watch = EtcdWatch;

    fn describe(&self) -> String {
        self.0.name.clone()
    }

    async fn list(&self) -> Result<Vec<ServiceName>, SourceError> {
        let Inner { client, space, .. } = &*self.0;
        let extent = if space.keys_tell() { Extent::Keys } else { Extent::Entries };
        let reading = client.read(space.root(), extent).await.map_err(told)?;
        let mut malformed = 0;
        let names = reading.entries.iter().filter_map(|entry| {
            let name = space.service_in(&entry.key, &entry.value);
            malformed += u64::from(name.is_none());
            name
        });
        let names: BTreeSet<_> = names.collect();
        client.counts().malformed.add(malformed);
        Ok(names.into_iter().collect())
    }

    async fn get(&self, service: &ServiceName) -> Result<Listing, SourceError> {
        let Inner { client, space, .. } = &*self.0;
        let reading = client.read(&space.of_service(service), Extent::Entries).await.map_err(told)?;
        let mut listing = Listing { revision: Revision(reading.place), ..Listing::default() };
        for entry in &reading.entries {
            match space.decode(service, &entry.value) {
                Entry::Instance(instance) => listing.instances.push(instance),
                Entry::OfAnother => {}
                Entry::Malformed(why) => {
                    malformed(client, &entry.key, &why);
                    listing.malformed += 1;
                }
            }
        }
        Ok(listing)
    }

    async fn watch(&self, service: &ServiceName) -> Result<EtcdWatch, SourceError> {
        let Inner { client, space, .. } = &*self.0;
        let keys = KeyWatch::start(client.clone(), space.of_service(service)).await.map_err(told)?;
        Ok(EtcdWatch::new(client.clone(), keys, space.clone(), service.clone()))
    }

    fn register(&self, registrant: Registrant) -> Result<(), SourceError> {
        let Ok(runtime) = Handle::try_current() else {
            return Err(SourceError::unsupported(
                "nothing can be registered in etcd outside a tokio runtime",
            ));
        };
        runtime.spawn(registration::keep(self.0.lease.clone(), self.0.space.clone(), registrant));
        Ok(())
    }
}

/// Counts an entry that is no instance, and says which.
fn malformed(client: &Client, key: &[u8], why: &str) {
    client.counts().malformed.add(1);
    tracing::debug!(key = %String::from_utf8_lossy(key), why, "an entry in etcd is no instance");
}

/// An error as the registry knows it.
fn told(error: Error) -> SourceError {
    let kind = match error.kind() {
        ErrorKind::Credentials | ErrorKind::Denied => SourceErrorKind::Denied,
        ErrorKind::Invalid | ErrorKind::TooLarge => SourceErrorKind::Malformed,
        ErrorKind::Throttled => SourceErrorKind::Throttled,
        ErrorKind::Unavailable | ErrorKind::Compacted | ErrorKind::LeaseLost => SourceErrorKind::Unavailable,
    };
    let told = SourceError::new(kind, error.to_string());
    match error.retry_after() {
        Some(after) => told.retry_after(after),
        None => told,
    }
}

impl fmt::Debug for EtcdRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdRegistry")
            .field("url", &self.0.name)
            .field("space", &self.0.space)
            .finish_non_exhaustive()
    }
}
