//! How long registrations outlive their process, and how fast they come back.

use std::time::Duration;

use crate::{Client, client::spread};

/// The lease that a process's registrations live with.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    ttl: Option<Duration>,
    pub(super) verify: Duration,
    pub(super) registrations: u32,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self { ttl: None, verify: Duration::from_secs(60), registrations: 100 }
    }
}

impl LeaseSettings {
    /// How long registrations outlive a process that ends without a word; whole seconds.
    ///
    /// Default: 30 s. In a large fleet that logs in it is longer: three times what the fleet needs to log in again, for
    /// etcd 3.7 renews no lease without a token and forgets all tokens when it restarts.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How often it is verified that the keys still stand in etcd. Default: 60 s.
    #[must_use]
    pub fn verify_every(mut self, interval: Duration) -> Self {
        self.verify = interval;
        self
    }

    /// How many clients per second of the whole fleet may register anew after all have lost their leases. Default: 100.
    #[must_use]
    pub fn fleet_registrations(mut self, per_second: u32) -> Self {
        self.registrations = per_second.max(1);
        self
    }

    /// What the lease of this client should live.
    pub(super) fn ttl_for(&self, client: &Client) -> Duration {
        let settings = client.settings();
        match self.ttl {
            Some(ttl) => ttl,
            None if settings.credentials.is_none() => SHORTEST_TTL,
            None => (spread(client.fleet(), settings.fleet_logins) * 3).clamp(SHORTEST_TTL, LONGEST_TTL),
        }
    }

    /// How long the logins of the fleet take, if a lease that was asked for may end before them.
    pub(super) fn outlived_by_logins(&self, client: &Client) -> Option<Duration> {
        let settings = client.settings();
        let logins = spread(client.fleet(), settings.fleet_logins);
        (settings.credentials.is_some() && self.ttl? <= logins).then_some(logins)
    }
}

const SHORTEST_TTL: Duration = Duration::from_secs(30);
const LONGEST_TTL: Duration = Duration::from_secs(1800);

#[cfg(test)]
mod tests {
    use tidegate::{Credentials, Secret, Server};

    use super::*;
    use crate::Settings;

    #[tokio::test]
    async fn a_lease_outlives_the_logins_of_its_fleet_unless_told_otherwise() {
        let settings = || Settings::new([Server { host: "localhost".into(), port: 2379 }]);
        let user = Credentials { user: "gate".into(), password: Secret::new("hunter2") };
        let ttl =
            |settings: Settings, lease: LeaseSettings| lease.ttl_for(&settings.build().unwrap()).as_secs();
        let lease = LeaseSettings::default;
        assert_eq!(ttl(settings().fleet(4000), lease()), 30, "nobody logs in");
        assert_eq!(ttl(settings().fleet(40).credentials(user.clone()), lease()), 30);
        assert_eq!(ttl(settings().fleet(4000).credentials(user.clone()), lease()), 600);
        assert_eq!(ttl(settings().fleet(4000).fleet_logins(100).credentials(user.clone()), lease()), 120);
        let told = lease().ttl(Duration::from_secs(15));
        assert_eq!(ttl(settings().fleet(4000).credentials(user), told), 15);
    }

    #[tokio::test]
    async fn a_lease_that_ends_before_its_fleet_has_logged_in_again_is_noticed() {
        let settings = || Settings::new([Server { host: "localhost".into(), port: 2379 }]).fleet(2000);
        let user = Credentials { user: "gate".into(), password: Secret::new("hunter2") };
        let short = LeaseSettings::default().ttl(Duration::from_secs(90));
        let noticed = |lease: &LeaseSettings, settings: Settings| {
            lease.outlived_by_logins(&settings.build().unwrap()).map(|logins| logins.as_secs())
        };
        assert_eq!(noticed(&short, settings().credentials(user.clone())), Some(100));
        assert_eq!(noticed(&short, settings().credentials(user.clone()).fleet_logins(40)), None);
        assert_eq!(noticed(&short, settings()), None, "nobody logs in");
        assert_eq!(noticed(&LeaseSettings::default(), settings().credentials(user)), None);
    }
}
