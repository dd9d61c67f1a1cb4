//! A registry, instances, and a look into etcd past the client that is tested.

use std::time::Duration;

use tidegate::registry::{Instance, Listing, Registration, Source as _, registration};
use tidegate_etcd::{
    EtcdRegistry, Layout, LeaseSettings, RegistryUrl, Settings,
    proto::{
        AuthUserAddRequest, AuthUserChangePasswordRequest, AuthenticateRequest, CompactionRequest,
        DeleteRangeRequest, KeyValue, LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
        PutRequest, RangeRequest, auth_client::AuthClient, kv_client::KvClient, lease_client::LeaseClient,
    },
};
use tonic::{Request, transport::Channel};

use crate::server::{Etcd, PATIENCE};

/// The shortest life that etcd grants to a lease.
pub(crate) const TTL: Duration = Duration::from_secs(2);

/// A registry with leases that end soon and are verified often.
pub(crate) fn registry(settings: Settings) -> EtcdRegistry {
    with_layout(settings, Layout::Tidegate)
}

/// A registry whose leases outlive what a busy machine does to their renewal.
pub(crate) fn lasting(settings: Settings) -> EtcdRegistry {
    let client = settings.build().unwrap();
    EtcdRegistry::new(client, &url(), Layout::Tidegate, LeaseSettings::default()).unwrap()
}

pub(crate) fn with_layout(settings: Settings, layout: Layout) -> EtcdRegistry {
    let lease = LeaseSettings::default().ttl(TTL).verify_every(Duration::from_secs(1));
    EtcdRegistry::new(settings.build().unwrap(), &url(), layout, lease).unwrap()
}

pub(crate) fn url() -> RegistryUrl {
    "etcd://127.0.0.1:1/".parse().unwrap()
}

pub(crate) fn instance(service: &str, id: &str) -> Instance {
    Instance::new(service.parse().unwrap(), id, "10.0.0.7:9001".parse().unwrap())
}

/// Registers, and waits until that is so.
pub(crate) async fn registered(registry: &EtcdRegistry, instance: Instance) -> Registration {
    let (owner, registrant) = registration(instance);
    registry.register(registrant).unwrap();
    soon("it is registered", owner.registered()).await.unwrap();
    owner
}

pub(crate) async fn get(registry: &EtcdRegistry, service: &str) -> Listing {
    registry.get(&service.parse().unwrap()).await.unwrap()
}

/// The addresses of a service, sorted.
pub(crate) async fn addresses(registry: &EtcdRegistry, service: &str) -> Vec<String> {
    let listing = get(registry, service).await;
    let mut all: Vec<_> = listing.instances.iter().map(|one| one.address.to_string()).collect();
    all.sort();
    all
}

/// Waits for an event that must come.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, event).await.unwrap_or_else(|_| panic!("{PATIENCE:?} and not: {what}"))
}

/// Lets real time pass, for what must not happen meanwhile.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// A look into etcd as its root sees it.
pub(crate) struct Root {
    channel: Channel,
    token: String,
}

impl Root {
    /// Logs in if authentication is on.
    pub(crate) async fn of(etcd: &Etcd) -> Self {
        let channel = etcd.channel();
        let request = AuthenticateRequest { name: "root".into(), password: "hunter2".into() };
        let answer = AuthClient::new(channel.clone()).authenticate(request).await;
        Self { channel, token: answer.map(|answer| answer.into_inner().token).unwrap_or_default() }
    }

    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if !self.token.is_empty() {
            request.metadata_mut().insert("token", self.token.parse().unwrap());
        }
        request
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    pub(crate) fn leases(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    pub(crate) async fn all(&self, prefix: &str) -> Vec<KeyValue> {
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().unwrap() += 1;
        let request = RangeRequest { key: prefix.into(), range_end: end, ..RangeRequest::default() };
        self.kv().range(self.request(request)).await.unwrap().into_inner().kvs
    }

    pub(crate) async fn put(&self, key: &str, value: &[u8], lease: i64) -> i64 {
        let request = PutRequest { key: key.into(), value: value.into(), lease, prev_kv: false };
        let answer = self.kv().put(self.request(request)).await.unwrap();
        answer.into_inner().header.unwrap().revision
    }

    pub(crate) async fn delete(&self, key: &[u8]) {
        let request = DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() };
        self.kv().delete_range(self.request(request)).await.unwrap();
    }

    pub(crate) async fn compact(&self, revision: i64) {
        let request = CompactionRequest { revision, physical: true };
        self.kv().compact(self.request(request)).await.unwrap();
    }

    pub(crate) async fn grant(&self, ttl: i64) -> i64 {
        let request = LeaseGrantRequest { ttl, id: 0 };
        self.leases().lease_grant(self.request(request)).await.unwrap().into_inner().id
    }

    pub(crate) async fn revoke(&self, id: i64) {
        self.leases().lease_revoke(self.request(LeaseRevokeRequest { id })).await.unwrap();
    }

    /// The seconds that a lease has left; -1 when there is none.
    pub(crate) async fn left(&self, id: i64) -> i64 {
        let request = LeaseTimeToLiveRequest { id, keys: false };
        self.leases().lease_time_to_live(self.request(request)).await.unwrap().into_inner().ttl
    }

    /// Changes the users, and so their revision. With the same password too.
    pub(crate) async fn change_password(&self, user: &str, password: &str) {
        let request = AuthUserChangePasswordRequest { name: user.into(), password: password.into() };
        AuthClient::new(self.channel.clone()).user_change_password(self.request(request)).await.unwrap();
    }

    /// Adds a user who may do nothing.
    pub(crate) async fn add_user(&self, user: &str) {
        let request = AuthUserAddRequest { name: user.into(), password: "hunter2".into() };
        AuthClient::new(self.channel.clone()).user_add(self.request(request)).await.unwrap();
    }
}
