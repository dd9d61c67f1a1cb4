//! The metrics of the registry of services.

use std::fmt;

use super::page::{NONE, Named, Page};
use crate::state::{EtcdState, RegistryState, ServiceState};

/// What a service can be for those who call it.
const STATES: [&str; 9] =
    ["live", "fresh", "stale", "snapshot", "not-found", "unavailable", "throttled", "closed", "pending"];

/// Writes them all.
pub(super) fn encode(page: &mut Page<'_>, state: &RegistryState) -> fmt::Result {
    let up = if state.reach == "up" { 1.0 } else { 0.0 };
    page.gauge("tidegate_registry_up", "Whether the registry answers", None, [(NONE, up)])?;
    page.counter(
        "tidegate_registry_reads",
        "Questions to the registry about a service, by what came of them",
        None,
        state.reads.iter().map(|(result, count)| ([("result", *result)], *count)),
    )?;
    page.counter(
        "tidegate_registry_held_back",
        "Questions not asked, by why",
        None,
        state.held_back.iter().map(|(why, count)| ([("why", *why)], *count)),
    )?;
    let restarts = state.watch_restarts;
    page.counter("tidegate_registry_watch_restarts", "Watches that ended", None, [(NONE, restarts)])?;
    if let Some(etcd) = &state.etcd {
        self::etcd(etcd, page)?;
    }
    services(&state.services, page)
}

fn etcd(state: &EtcdState, page: &mut Page<'_>) -> fmt::Result {
    let counters: [Named<EtcdState>; 7] = [
        ("tidegate_etcd_calls", "Calls sent to etcd, logins not included", |e| e.calls),
        ("tidegate_etcd_failovers", "Calls that another member of etcd was asked for", |e| e.failovers),
        ("tidegate_etcd_logins", "Logins sent to etcd", |e| e.logins),
        ("tidegate_etcd_login_failures", "Logins that etcd did not answer with a token", |e| {
            e.login_failures
        }),
        ("tidegate_etcd_tokens_refused", "Answers of etcd that the token is not valid any more", |e| {
            e.tokens_refused
        }),
        ("tidegate_etcd_watch_streams", "Watch streams opened", |e| e.watch_streams),
        ("tidegate_etcd_resyncs", "Watches that had to read everything again", |e| e.resyncs),
    ];
    for (name, help, of) in counters {
        page.counter(name, help, None, [(NONE, of(state))])?;
    }
    Ok(())
}

fn services(services: &[ServiceState], page: &mut Page<'_>) -> fmt::Result {
    let labels = |service: &'_ ServiceState| {
        [("service", service.name.clone()), ("upstream", service.upstream.clone())]
    };
    let states = services.iter().flat_map(|service| {
        STATES.map(|state| {
            let [name, upstream] = labels(service);
            let is = if state == service.provenance { 1.0 } else { 0.0 };
            ([name, upstream, ("state", state.to_owned())], is)
        })
    });
    page.gauge("tidegate_service_state", "1 for how good the endpoints of a service are", None, states)?;
    let age = |service: &ServiceState| (labels(service), service.age_seconds.unwrap_or(0.0));
    let ages = services.iter().map(age);
    page.gauge(
        "tidegate_service_age",
        "How old what is known of a service is; 0 while it is live",
        super::page::SECONDS,
        ages,
    )?;
    let gauges: [Named<ServiceState>; 3] = [
        ("tidegate_service_endpoints", "Endpoints of a service, suspects included", |s| {
            s.endpoints.len() as u64
        }),
        (
            "tidegate_service_suspects",
            "Endpoints that the registry no longer lists, kept for the grace",
            |s| s.suspects,
        ),
        ("tidegate_service_unusable", "Endpoints whose addresses cannot be called", |s| s.unusable),
    ];
    for (name, help, of) in gauges {
        let rows = services.iter().map(|service| (labels(service), of(service) as f64));
        page.gauge(name, help, None, rows)?;
    }
    let malformed = services.iter().map(|service| (labels(service), service.malformed));
    let help = "Entries of the registry that were no instances";
    page.counter("tidegate_service_malformed", help, None, malformed)?;
    let lookups = services.iter().flat_map(|service| {
        service.lookups.iter().map(move |(outcome, count)| {
            let [name, upstream] = labels(service);
            ([name, upstream, ("outcome", (*outcome).to_owned())], *count)
        })
    });
    page.counter("tidegate_lookups", "Lookups of a service for a call, by what they found", None, lookups)?;
    page.histogram(
        "tidegate_lookup_age",
        "How old the endpoints were that calls found stale or read from disk",
        services.iter().map(|service| (labels(service), &service.ages)),
    )
}
