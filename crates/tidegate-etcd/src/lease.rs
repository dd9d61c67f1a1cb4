//! The one lease of a process, and the keys that live with it.
//!
//! What is wanted stands in a table; a task makes etcd equal to it: it grants the lease, renews it over one stream,
//! writes and deletes keys in batches, verifies them from time to time, and begins anew when the lease is lost.

mod keep_alive;
mod reconcile;
mod settings;
mod table;

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    select,
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

pub use self::settings::LeaseSettings;
pub(crate) use self::table::Told;
use self::{
    keep_alive::{Beat, Lease, keep_alive},
    table::{Owner, Table},
};
use crate::{
    Client, Error, ErrorKind,
    client::spread,
    error::Fault,
    pace::{Backoff, jitter},
    proto::{LeaseGrantRequest, LeaseRevokeRequest, lease_client::LeaseClient},
};

/// The keys of a process that live with its lease. Clones share them.
#[derive(Clone)]
pub(crate) struct SharedLease(Arc<Inner>);

struct Inner {
    client: Client,
    settings: LeaseSettings,
    /// All registrations of the fleet have keys with this prefix.
    fleet: Vec<u8>,
    table: Mutex<Table>,
    changed: Notify,
    running: watch::Sender<bool>,
}

/// A key that stands in etcd until this is dropped.
#[derive(Debug)]
pub(crate) struct Published {
    lease: SharedLease,
    key: Vec<u8>,
    owner: Owner,
}

impl SharedLease {
    pub(crate) fn new(client: Client, settings: LeaseSettings, fleet: Vec<u8>) -> Self {
        let (table, changed, running) = (Mutex::default(), Notify::new(), watch::channel(false).0);
        Self(Arc::new(Inner { client, settings, fleet, table, changed, running }))
    }

    /// Keeps a key in etcd. Returns at once; how it stands is told.
    ///
    /// # Errors
    /// When this process publishes the key already.
    pub(crate) fn publish(&self, key: &[u8], value: Arc<[u8]>) -> Result<Published, Error> {
        let Some(owner) = self.0.table.lock().publish(key, value) else {
            let key = String::from_utf8_lossy(key);
            return Err(Error::invalid(format!(
                "this process has registered {key:?} in etcd already; give each instance an id of its own"
            )));
        };
        self.0.changed.notify_one();
        if !self.0.running.send_replace(true) {
            tokio::spawn(run(self.clone()));
        }
        Ok(Published { lease: self.clone(), key: key.to_vec(), owner })
    }

    /// Takes everything back, and revokes the lease: one call.
    pub(crate) async fn close(&self) {
        self.0.table.lock().want_nothing();
        self.0.changed.notify_one();
        let mut running = self.0.running.subscribe();
        // The task ends by itself after the call's timeout at the latest.
        let _ = running.wait_for(|running| !running).await;
    }
}

impl Published {
    /// How it stands.
    pub(crate) fn told(&mut self) -> &mut watch::Receiver<Told> {
        &mut self.owner.told
    }

    /// Publishes another value, with the same lease.
    pub(crate) fn update(&self, value: Arc<[u8]>) {
        self.want(Some(value));
    }

    /// Takes the key back, and waits until it is gone from etcd.
    pub(crate) async fn withdraw(mut self) {
        self.want(None);
        let _ = self.owner.told.wait_for(|told| *told == Told::Gone).await;
    }

    fn want(&self, value: Option<Arc<[u8]>>) {
        self.lease.0.table.lock().want(&self.key, self.owner.id, value);
        self.lease.0.changed.notify_one();
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.want(None);
    }
}

impl fmt::Debug for SharedLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedLease").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

/// How an era, the time of one lease, ends.
enum End {
    /// Nobody wants anything any more.
    Empty,
    /// The lease is no more.
    Lost(Error),
}

/// From the first key to the last.
async fn run(lease: SharedLease) {
    let inner = &*lease.0;
    let mut end = TaskEnd { inner, early: true };
    let mut start = Start::First;
    loop {
        start = match inner.era(start).await {
            Ok(()) => Start::First,
            Err(error) => {
                tracing::warn!(%error, "the lease of this process's registrations is lost; registering anew");
                inner.client.counts().leases_lost.add(1);
                inner.table.lock().ended(Some(&error));
                Start::Again
            }
        };
        let table = inner.table.lock();
        if table.is_empty() {
            // Under the lock: whoever publishes next finds a task that runs, or starts one.
            end.early = false;
            inner.running.send_replace(false);
            return;
        }
    }
}

/// Why an era begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    First,
    /// The lease before was lost.
    Again,
}

/// A task that is cut off, by a panic or the end of its runtime, must not be believed to run.
struct TaskEnd<'a> {
    inner: &'a Inner,
    early: bool,
}

impl Drop for TaskEnd<'_> {
    fn drop(&mut self) {
        if self.early {
            self.inner.client.lease_ends(None);
            self.inner.running.send_replace(false);
        }
    }
}

impl Inner {
    /// One lease, from its grant to its end. An error says why it was lost.
    async fn era(&self, start: Start) -> Result<(), Error> {
        if start == Start::Again {
            // All of the fleet have lost their leases, most likely.
            let wait = jitter(spread(self.client.fleet(), self.settings.registrations));
            select! {
                () = sleep(wait) => {}
                () = self.left() => {}
            }
        }
        let granted = select! {
            granted = self.grant() => granted,
            () = self.left() => {
                self.table.lock().ended(None);
                return Ok(());
            }
        };
        let end = select! {
            error = keep_alive(&self.client, granted, |beat| self.beat(beat)) => End::Lost(error),
            end = self.reconcile(granted) => end,
        };
        self.client.lease_ends(None);
        match end {
            End::Lost(error) => Err(error),
            End::Empty => {
                self.revoke(granted).await;
                Ok(())
            }
        }
    }

    /// Waits until nobody wants anything.
    async fn left(&self) {
        while !self.table.lock().is_leaving() {
            self.changed.notified().await;
        }
    }

    fn beat(&self, beat: Beat<'_>) {
        match beat {
            Beat::Alive => self.table.lock().confirm(),
            Beat::Late(error) => self.table.lock().doubt(error),
        }
    }

    /// Grants a lease, however long that takes.
    async fn grant(&self) -> Lease {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        // The id is ours, so that a grant whose answer was lost is not a second lease.
        let id = fastrand::i64(1..);
        loop {
            match self.try_grant(id).await {
                Ok(lease) => return lease,
                Err(error) => {
                    self.table.lock().doubt(&error);
                    let delay = backoff.failed().max(error.retry_after().unwrap_or_default());
                    tracing::debug!(%error, ?delay, "no lease");
                    sleep(delay).await;
                }
            }
        }
    }

    async fn try_grant(&self, id: i64) -> Result<Lease, Error> {
        self.count().await;
        let wanted = self.settings.ttl_for(&self.client);
        if let Some(logins) = self.settings.outlived_by_logins(&self.client) {
            tracing::warn!(
                ttl = ?wanted,
                ?logins,
                "the lease may end before this fleet has logged in again after a restart of etcd; raise ttl or fleet_logins"
            );
        }
        let seconds = i64::try_from(wanted.as_secs().max(1)).unwrap_or(i64::MAX);
        let request = LeaseGrantRequest { ttl: seconds, id };
        let sent = Instant::now();
        let granted = self.client.call("granting a lease", &request, |channel, request| async move {
            match LeaseClient::new(channel).lease_grant(request).await {
                Err(status) if Fault::of(&status) == Fault::LeaseExists => Ok(tonic::Response::new(None)),
                answer => answer.map(|answer| answer.map(Some)),
            }
        });
        let ttl = match granted.await? {
            Some(granted) if granted.error.is_empty() => granted.ttl,
            Some(granted) => return Err(Error::invalid(format!("etcd grants no lease: {}", granted.error))),
            // The answer to an earlier attempt was lost.
            None => seconds,
        };
        self.client.counts().leases_granted.add(1);
        let ttl = Duration::from_secs(u64::try_from(ttl).unwrap_or(1).max(1));
        self.client.lease_ends(Some(sent + ttl));
        Ok(Lease { id, ttl, ends: sent + ttl })
    }

    /// Counts the fleet, if that was not told. It is a guess; that it fails changes nothing.
    async fn count(&self) {
        if self.client.settings().fleet.is_none() {
            match self.client.count(&self.fleet).await {
                Ok(count) => self.client.counted(count),
                Err(error) => tracing::debug!(%error, "the registrations cannot be counted"),
            }
        }
    }

    /// Gives the lease back, and with it all keys that are left. If that fails for as long as a call may take, they end
    /// with the lease: minutes later in a large fleet, so that one slow answer is no reason to give up.
    async fn revoke(&self, lease: Lease) {
        let request = LeaseRevokeRequest { id: lease.id };
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
        let mut last = Error::unavailable("etcd did not answer in time");
        let revoked = async {
            loop {
                let revoked =
                    self.client.call("revoking the lease", &request, |channel, request| async move {
                        LeaseClient::new(channel).lease_revoke(request).await
                    });
                match revoked.await {
                    Ok(_) => return true,
                    Err(error) => match error.kind() {
                        ErrorKind::LeaseLost => return true,
                        ErrorKind::Unavailable | ErrorKind::Throttled => {
                            last = error;
                            sleep(backoff.failed()).await;
                        }
                        ErrorKind::Credentials
                        | ErrorKind::Denied
                        | ErrorKind::Compacted
                        | ErrorKind::TooLarge
                        | ErrorKind::Invalid => {
                            last = error;
                            return false;
                        }
                    },
                }
            }
        };
        if !timeout(self.client.settings().call_timeout, revoked).await.unwrap_or(false) {
            tracing::warn!(error = %last, ttl = ?lease.ttl, "the lease is not revoked; it ends by itself");
        }
        // Whoever published meanwhile is of the next era.
        self.table.lock().ended(None);
    }
}
