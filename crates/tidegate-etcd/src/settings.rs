//! How etcd is reached.

use std::{net::Ipv6Addr, time::Duration};

use tidegate::{Credentials, Secret, Server};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::{Client, Error, InvalidRegistryUrl, LoginBudget, RegistryUrl};

/// How etcd is reached: members, identity, and bounds.
///
/// # Examples
/// ```
/// # use std::time::Duration;
/// use tidegate_etcd::{RegistryUrl, Settings};
///
/// let url: RegistryUrl = "etcd://gate:hunter2@10.0.0.1,10.0.0.2/tidegate/".parse()?;
/// let client = Settings::of(&url)?.call_timeout(Duration::from_secs(3)).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Settings {
    members: Vec<Server>,
    tls: Option<Tls>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) call_timeout: Duration,
    pub(crate) attempt_timeout: Duration,
    pub(crate) login_timeout: Duration,
    pub(crate) login_budget: LoginBudget,
    pub(crate) fleet: Option<u64>,
    pub(crate) fleet_logins: u32,
    pub(crate) largest_answer: usize,
}

/// Certificates for connections over TLS, all in PEM.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    authorities: Vec<String>,
    identity: Option<(String, Secret)>,
    name: Option<String>,
}

impl Tls {
    /// Trusts what the system trusts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authorities of this PEM, and the system's no longer.
    #[must_use]
    pub fn authority(mut self, pem: impl Into<String>) -> Self {
        self.authorities.push(pem.into());
        self
    }

    /// Shows this certificate, with its chain, when etcd asks for one.
    #[must_use]
    pub fn identity(mut self, certificates: impl Into<String>, key: Secret) -> Self {
        self.identity = Some((certificates.into(), key));
        self
    }

    /// The name that the members' certificates must have. Default: the host of the URL.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    fn config(&self) -> ClientTlsConfig {
        let mut config = ClientTlsConfig::new();
        if self.authorities.is_empty() {
            config = config.with_native_roots();
        }
        config = config.ca_certificates(self.authorities.iter().map(Certificate::from_pem));
        if let Some((certificates, key)) = &self.identity {
            config = config.identity(Identity::from_pem(certificates, key.expose()));
        }
        match &self.name {
            Some(name) => config.domain_name(name),
            None => config,
        }
    }
}

impl Settings {
    /// Reaches these members, in plain text and without a login.
    pub fn new(members: impl IntoIterator<Item = Server>) -> Self {
        Self {
            members: members.into_iter().collect(),
            tls: None,
            credentials: None,
            call_timeout: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(2),
            login_timeout: Duration::from_secs(5),
            login_budget: LoginBudget::of_process(),
            fleet: None,
            fleet_logins: 20,
            largest_answer: 16 << 20,
        }
    }

    /// Reaches what an `etcd://` or `etcds://` URL names.
    ///
    /// # Errors
    /// [`InvalidRegistryUrl::Scheme`] for a registry that is no etcd.
    pub fn of(url: &RegistryUrl) -> Result<Self, InvalidRegistryUrl> {
        let RegistryUrl::Etcd { members, tls, credentials, prefix: _ } = url else {
            return Err(InvalidRegistryUrl::Scheme);
        };
        let mut settings = Self::new(members.iter().cloned());
        settings.credentials = credentials.clone();
        settings.tls = tls.then(Tls::new);
        Ok(settings)
    }

    /// Connects over TLS.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Logs in as this user, when etcd has authentication on.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// How long a call may take in all, failover and login included. Default: 5 s.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// How long one member may take before the next is asked; also to connect. Default: 2 s.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// How long a login may take at one member, where checking a password is slow on purpose. Default: 5 s.
    #[must_use]
    pub fn login_timeout(mut self, timeout: Duration) -> Self {
        self.login_timeout = timeout;
        self
    }

    /// The budget that logins are taken from. Default: [the process's](LoginBudget::of_process).
    #[must_use]
    pub fn login_budget(mut self, budget: LoginBudget) -> Self {
        self.login_budget = budget;
        self
    }

    /// How many clients there are in the fleet. When etcd forgets its tokens, all of them log in again, spread over the
    /// time in which [`fleet_logins`](Self::fleet_logins) allows that. Default: the number of registrations, as a
    /// registering client counts it from time to time; 1 before that.
    #[must_use]
    pub fn fleet(mut self, clients: u64) -> Self {
        self.fleet = Some(clients);
        self
    }

    /// How many logins per second the whole fleet may cause. Default: 20.
    #[must_use]
    pub fn fleet_logins(mut self, per_second: u32) -> Self {
        self.fleet_logins = per_second.max(1);
        self
    }

    /// The most bytes of one answer. Larger prefixes are read in smaller pages. Default: 16 MiB.
    #[must_use]
    pub fn largest_answer(mut self, bytes: usize) -> Self {
        self.largest_answer = bytes;
        self
    }

    /// Makes the client. It connects when it is first used.
    ///
    /// # Errors
    /// Of the kind [`Invalid`](crate::ErrorKind::Invalid) when there is no member, or a certificate cannot be read.
    pub fn build(self) -> Result<Client, Error> {
        let tls = self.tls.as_ref().map(Tls::config);
        let endpoints = self.members.iter().map(|member| self.endpoint(member, tls.as_ref()));
        let endpoints: Vec<_> = endpoints.collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err(Error::invalid(
                "etcd has no members to ask; name at least one, like etcd://10.0.0.1:2379",
            ));
        }
        Ok(Client::new(self, endpoints))
    }

    fn endpoint(&self, member: &Server, tls: Option<&ClientTlsConfig>) -> Result<Endpoint, Error> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let host = match member.host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => member.host.clone(),
        };
        let wrong = |why: &dyn std::error::Error| {
            let cause = why.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            Error::invalid(format!("etcd at {member} cannot be reached like this: {why}{cause}"))
        };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{host}:{}", member.port))
            .map_err(|why| wrong(&why))?
            .connect_timeout(self.attempt_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            // etcd takes no pings more often than every 5 s, and none without a stream. A member that hangs is known by
            // a ping without an answer.
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING_ANSWER)
            .keep_alive_while_idle(false);
        if let Some(tls) = tls {
            endpoint = endpoint.tls_config(tls.clone()).map_err(|why| wrong(&why))?;
        }
        Ok(endpoint)
    }
}

const PING: Duration = Duration::from_secs(10);
const PING_ANSWER: Duration = Duration::from_secs(5);
