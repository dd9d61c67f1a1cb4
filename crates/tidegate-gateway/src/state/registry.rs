//! The registry of services now: what it tells, how old that is, and what it was asked.

use std::collections::BTreeMap;

use serde::Serialize;
use tidegate::registry::Registry;
use tidegate_core::recovery::Reach;
use tidegate_etcd::EtcdRegistry;

use super::Durations;

/// The registry of services.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RegistryState {
    /// Its URL, without a password.
    pub url: String,
    /// Whether it answers: `up`, `down`, or `probing` while one question tries whether it is back.
    pub reach: &'static str,
    /// Questions that were asked, by what came of them: `answered`, `failed`, `lost`.
    pub reads: BTreeMap<&'static str, u64>,
    /// Questions that were held back, by why: `budget` of questions, or the registry being `down`.
    pub held_back: BTreeMap<&'static str, u64>,
    /// Watches that ended, over all services.
    pub watch_restarts: u64,
    /// Endpoints that the registry no longer lists and that are kept for the grace, over all services.
    pub suspects: u64,
    /// What etcd was asked for; none of another registry.
    pub etcd: Option<EtcdState>,
    /// What is wrong with snapshots on disk.
    pub problems: Vec<String>,
    /// The services that upstreams are looked up as.
    pub services: Vec<ServiceState>,
}

/// What etcd was asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EtcdState {
    /// Calls sent, logins not included.
    pub calls: u64,
    /// Calls that another member, or a new connection, was asked for.
    pub failovers: u64,
    /// Logins sent.
    pub logins: u64,
    /// Logins that did not end with a token.
    pub login_failures: u64,
    /// Answers that the token is not valid any more.
    pub tokens_refused: u64,
    /// Watch streams opened.
    pub watch_streams: u64,
    /// Watches that had to read everything again.
    pub resyncs: u64,
}

/// A service that an upstream is looked up as.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ServiceState {
    /// The service's name in the registry.
    pub name: String,
    /// The upstream.
    pub upstream: String,
    /// How good the endpoints are: `live`, `fresh`, `stale`, `snapshot`; why there are none: `not-found`, `unavailable`,
    /// `throttled`, `closed`; or `pending`, before the first answer.
    pub provenance: &'static str,
    /// How old what is known is, in seconds; none while it is live.
    pub age_seconds: Option<f64>,
    /// The registry's revision of it.
    pub revision: u64,
    /// Its endpoints, suspects last.
    pub endpoints: Vec<RegistryEndpointState>,
    /// Endpoints that the registry no longer lists.
    pub suspects: u64,
    /// Entries of the registry that were no instances.
    pub malformed: u64,
    /// Endpoints whose addresses cannot be called.
    pub unusable: u64,
    /// What is wrong with them.
    pub problems: Vec<String>,
    /// Watches of it that ended.
    pub watch_restarts: u64,
    /// Why the registry could not be asked or watched, if it could not.
    pub error: Option<String>,
    /// Lookups for calls, by what they came to.
    pub lookups: BTreeMap<&'static str, u64>,
    /// How old the endpoints were that calls found stale or read from disk.
    pub ages: Durations,
}

/// One instance of a service.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RegistryEndpointState {
    /// Its id.
    pub id: String,
    /// Where it listens.
    pub address: String,
    /// The version it says it is.
    pub version: String,
    /// Its share of the calls.
    pub weight: u64,
    /// Its zone.
    pub zone: Option<String>,
    /// For how long it has been a suspect, in seconds: the registry does not list it any more, and it may be gone.
    pub suspect_seconds: Option<f64>,
    /// How long ago a call to it succeeded first since the registry has not listed it, in seconds.
    pub proven_seconds: Option<f64>,
}

impl RegistryState {
    /// What a registry did, without its services.
    pub(crate) fn of(guard: &Registry, etcd: Option<&EtcdRegistry>) -> Self {
        let stats = guard.stats();
        let lookups = &stats.lookups;
        let etcd = etcd.map(|etcd| {
            let stats = etcd.stats();
            EtcdState {
                calls: stats.calls,
                failovers: stats.failovers,
                logins: stats.logins,
                login_failures: stats.login_failures,
                tokens_refused: stats.tokens_refused,
                watch_streams: stats.watch_streams,
                resyncs: stats.resyncs,
            }
        });
        Self {
            url: guard.describe(),
            reach: match lookups.reach {
                Reach::Up => "up",
                Reach::Down { .. } => "down",
                Reach::Probing { .. } => "probing",
            },
            reads: [("answered", lookups.fetched), ("failed", lookups.failed), ("lost", lookups.lost)].into(),
            held_back: [("budget", lookups.throttled), ("down", lookups.unreachable)].into(),
            watch_restarts: stats.watch_restarts,
            suspects: stats.suspects as u64,
            etcd,
            problems: guard.problems(),
            services: Vec::new(),
        }
    }
}
