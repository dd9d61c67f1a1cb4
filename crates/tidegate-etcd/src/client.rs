//! The client: one call after another member, with a token that is renewed once, within one deadline.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};
use tonic::{
    Request, Response, Status,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

use crate::{
    Error, Settings, Stats,
    error::{Fault, told},
    history::History,
    login::{Login, Stamp},
    members::{Member, Members},
    stats::Counts,
};

/// A client of etcd. Clones share one: its connections, its login, and its counts.
///
/// Every call has a deadline, asks another member when one fails, and logs in anew when etcd says that the token is
/// not valid: once per call, and once for all calls that need it at the time. All it sends may be sent twice without
/// harm.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    settings: Settings,
    members: Members,
    login: Login,
    counts: Counts,
    history: History,
    fleet: AtomicU64,
    lease_ends: Mutex<Option<Instant>>,
}

impl Client {
    pub(crate) fn new(settings: Settings, endpoints: Vec<Endpoint>) -> Self {
        Self(Arc::new(Shared {
            members: Members::new(endpoints),
            login: Login::new(settings.credentials.clone()),
            counts: Counts::default(),
            history: History::default(),
            lease_ends: Mutex::default(),
            fleet: AtomicU64::new(settings.fleet.unwrap_or(1)),
            settings,
        }))
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        self.0.counts.stats()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(crate) fn members(&self) -> &Members {
        &self.0.members
    }

    pub(crate) fn login(&self) -> &Login {
        &self.0.login
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.0.counts
    }

    pub(crate) fn history(&self) -> &History {
        &self.0.history
    }

    /// How many clients there are, as far as this one knows.
    pub(crate) fn fleet(&self) -> u64 {
        self.0.fleet.load(Ordering::Relaxed)
    }

    /// So many were counted. Who was told a number keeps to that.
    pub(crate) fn counted(&self, fleet: u64) {
        if self.0.settings.fleet.is_none() {
            self.0.fleet.store(fleet.max(1), Ordering::Relaxed);
        }
    }

    /// Over how long this client's next login is spread, so that the fleet's logins stay within their rate; but within
    /// half of the time that its lease has left, for newer etcd renews no lease without a token.
    pub(crate) fn login_spread(&self) -> Duration {
        let wanted = spread(self.fleet(), self.0.settings.fleet_logins);
        match *self.0.lease_ends.lock() {
            Some(end) => wanted.min(end.saturating_duration_since(Instant::now()) / 2),
            None => wanted,
        }
    }

    /// When the lease of this client ends unless it is renewed; `None` without a lease.
    pub(crate) fn lease_ends(&self, end: Option<Instant>) {
        *self.0.lease_ends.lock() = end;
    }

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.0.settings.call_timeout
    }

    /// Sends a call, and to another member if one fails, until the deadline.
    ///
    /// # Cancel safety
    /// Dropping the future gives the call up. A login that it began goes on.
    pub(crate) async fn call<M, T, F>(
        &self,
        what: &str,
        message: &M,
        send: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<T, Error>
    where
        M: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = self.deadline();
        let (mut renewed, mut attempts) = (false, 0);
        loop {
            let stamp = self.login().stamp(self, deadline).await?;
            let member = self.members().pick();
            let cut = deadline.min(Instant::now() + self.0.settings.attempt_timeout);
            let mut request = stamped(message.clone(), &stamp);
            request.set_timeout(cut.saturating_duration_since(Instant::now()));
            self.counts().calls.add(1);
            attempts += 1;
            let answer = timeout_at(cut, send(member.channel.clone(), request)).await;
            let (status, late) = match answer {
                Ok(Ok(answer)) => {
                    self.members().succeeded(member.index);
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) => (status, false),
                Err(_) => (Status::deadline_exceeded("no answer in time"), true),
            };
            match Fault::of(&status) {
                Fault::Token => {
                    self.counts().tokens_refused.add(1);
                    self.login().refused(&stamp)?;
                    if renewed {
                        return Err(Error::of(what, &status));
                    }
                    renewed = true;
                }
                Fault::Unreachable => {
                    self.members().failed(member.index);
                    // A member that hangs is not asked twice in one call; one that broke a connection is, for it may
                    // have been restarted.
                    let all = self.members().count();
                    let most = if late { all } else { all.max(2) };
                    if attempts >= most || Instant::now() >= deadline {
                        return Err(self.gone(what, &member, &status));
                    }
                    self.counts().failovers.add(1);
                }
                _ => return Err(Error::of(what, &status)),
            }
        }
    }

    /// The error of a member that did not answer.
    pub(crate) fn gone(&self, what: &str, member: &Member, status: &Status) -> Error {
        let uri = self.members().uri(member.index);
        Error::unavailable(format!("{what} at {uri} failed: {}", told(status)))
    }
}

/// The time over which `fleet` events are spread to come at `per_second`.
pub(crate) fn spread(fleet: u64, per_second: u32) -> Duration {
    // Beyond this, waiting costs more than the burst.
    const MOST: f64 = 600.0;
    #[expect(clippy::cast_precision_loss, reason = "a number of clients is far below 2^53")]
    Duration::from_secs_f64((fleet as f64 / f64::from(per_second.max(1))).min(MOST))
}

/// A request with the token, and with the demand that the member knows a leader: one that is cut off from its cluster
/// must say so, not answer from what it remembers.
pub(crate) fn stamped<M>(message: M, stamp: &Stamp) -> Request<M> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("hasleader", MetadataValue::from_static("true"));
    if let Some(token) = &stamp.token {
        metadata.insert("token", token.clone());
    }
    request
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("settings", &self.0.settings).field("stats", &self.stats()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_spreads_over_the_time_that_its_rate_allows_and_no_longer_than_ten_minutes() {
        for (fleet, per_second, seconds) in
            [(1, 20, 0.05), (4000, 20, 200.0), (4000, 100, 40.0), (1 << 40, 20, 600.0)]
        {
            assert_eq!(spread(fleet, per_second), Duration::from_secs_f64(seconds));
        }
    }
}
