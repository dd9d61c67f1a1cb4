//! How a store is spoken to: deadlines and bounds, each with a name and a default.

use std::{num::NonZeroU32, time::Duration};

use tidegate::breaker;

use crate::watch::NOTICED_WITHIN;

/// The longest time between two looks at a server.
pub const LONGEST_HEARTBEAT: Duration = NOTICED_WITHIN.checked_div(2).expect("2 is not 0");

/// How a store is spoken to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Longest wait for one operation, redirections included. Default: 50 ms.
    pub deadline: Duration,
    /// Operations under way at once; one more is refused at once. Default: 1024.
    pub in_flight: usize,
    /// Longest wait for a connection to be open, logged in and checked. Default: 1 s.
    pub connect_timeout: Duration,
    /// How often a connection is probed, a sentinel asked who the master is, and a cluster, while something is wrong,
    /// who owns which slot, and which ledger it is looked at. A server that leaves a probe unanswered for as long is given
    /// up. At most 500 ms, so that a node that does not ask notices a lost ledger before anything is granted.
    /// Default: 500 ms.
    pub heartbeat: Duration,
    /// Longest wait before a server that was lost is tried again; the wait is random, and shorter at first.
    /// Default: 1 s.
    pub reconnect_within: Duration,
    /// When a server that does not answer is no longer asked. Default: 5 failures in 10 s, for 250 ms, 1 probe.
    pub breaker: breaker::Settings,
    /// Certificates (PEM) that vouch for the servers, in place of the system's. Default: none.
    pub authorities: Option<Vec<u8>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_millis(50),
            in_flight: 1024,
            connect_timeout: Duration::from_secs(1),
            heartbeat: LONGEST_HEARTBEAT,
            reconnect_within: Duration::from_secs(1),
            breaker: breaker::Settings {
                open_for: Duration::from_millis(250),
                probes: NonZeroU32::MIN,
                ..breaker::Settings::default()
            },
            authorities: None,
        }
    }
}

/// What is wrong with [`Settings`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// A time is zero.
    #[error("store: {0} is 0; write a time, like 50ms")]
    Zero(&'static str),
    /// Losses would be noticed too late.
    #[error(
        "store: heartbeat is {0:?}; it is at most {LONGEST_HEARTBEAT:?}, so that a lost ledger is noticed in time"
    )]
    Heartbeat(Duration),
    /// Nothing could ever be asked.
    #[error("store: in_flight is 0; at least one operation must be able to run")]
    InFlight,
    /// The breaker's settings.
    #[error(transparent)]
    Breaker(#[from] breaker::InvalidSettings),
    /// The certificates.
    #[error("store: the certificates of the authorities are not PEM: {0}; write the certificate of the CA")]
    Authorities(String),
}

impl Settings {
    /// Checks them.
    ///
    /// # Errors
    /// [`InvalidSettings`], the first one.
    pub fn check(&self) -> Result<(), InvalidSettings> {
        for (name, time) in [
            ("deadline", self.deadline),
            ("connect_timeout", self.connect_timeout),
            ("heartbeat", self.heartbeat),
            ("reconnect_within", self.reconnect_within),
        ] {
            if time.is_zero() {
                return Err(InvalidSettings::Zero(name));
            }
        }
        if self.heartbeat > LONGEST_HEARTBEAT {
            return Err(InvalidSettings::Heartbeat(self.heartbeat));
        }
        if self.in_flight == 0 {
            return Err(InvalidSettings::InFlight);
        }
        if let Some(pem) = &self.authorities {
            use rustls::pki_types::{CertificateDer, pem::PemObject};
            let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            match read {
                Ok(certificates) if !certificates.is_empty() => {}
                Ok(_) => return Err(InvalidSettings::Authorities("no certificate in it".into())),
                Err(error) => return Err(InvalidSettings::Authorities(error.to_string())),
            }
        }
        self.breaker.check()?;
        Ok(())
    }
}
