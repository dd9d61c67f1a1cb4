//! What a gateway tells of itself: whether it is ready, its state, and the counters of its limits.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use tidegate::{clock, limiter};

use super::Gateway;
use crate::{
    admin::AdminSource,
    config,
    counter::{Change, CounterChange, CounterError, CounterState, KeyParts},
    in_flight::Pools,
    limit::Limit,
    state::{
        BreakerState, ConnectionsState, EndpointState, InFlightState, LimitState, ListenerState,
        PartitionState, RegistryState, RouteState, State, UpstreamState,
    },
    table::{Route, Service, Table},
    upstream::Endpoint,
};

impl AdminSource for Gateway {
    fn ready(&self) -> Result<(), String> {
        match (self.draining_since.get(), self.listening.get()) {
            (Some(_), _) => Err("draining: finishing what is in flight".into()),
            (None, None) => Err("starting: not listening yet".into()),
            (None, Some(_)) => Ok(()),
        }
    }

    fn state(&self) -> State {
        let table = self.stack.table.load();
        let config = self.running.lock().state.clone();
        let registry = self.registry(&table);
        let mut state = State {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            config,
            listeners: self.listeners(),
            routes: table.all.iter().map(|route| route_state(route)).collect(),
            store: self.running.lock().store.state(),
            limits: self.limits(),
            registry,
            upstreams: table.services.values().map(|service| service_state(service)).collect(),
            tokens: table.tokens.values().map(|token| token.state()).collect(),
            sessions: table.sessions.values().map(|session| session.state()).collect(),
            pressure: table.pressure.as_ref().map(|pressure| pressure.state()),
            ..State::default()
        };
        state.telemetry.access_log_lines = self.stack.scribe.log.lines();
        state.telemetry.access_log_dropped = self.stack.scribe.log.dropped();
        self.stack.scribe.tracer.fill(&mut state.telemetry);
        state
    }

    fn config(&self) -> String {
        config::redacted_yaml(&self.running.lock().config)
    }

    fn limits(&self) -> Vec<LimitState> {
        self.stack.table.load().limits.values().map(|limit| limit.state()).collect()
    }

    fn counter(&self, limit: String, key: KeyParts) -> BoxFuture<'_, Result<CounterState, CounterError>> {
        async move { self.limit(limit)?.counter(key).await }.boxed()
    }

    fn change(
        &self,
        limit: String,
        key: KeyParts,
        change: Change,
        by: IpAddr,
    ) -> BoxFuture<'_, Result<CounterChange, CounterError>> {
        async move { self.limit(limit)?.change(key, change, by).await }.boxed()
    }
}

impl Gateway {
    fn limit(&self, name: String) -> Result<Arc<Limit>, CounterError> {
        let table = self.stack.table.load();
        table.limits.get(&name).cloned().ok_or_else(|| {
            let known: Vec<_> = table.limits.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            CounterError::NoLimit { name, known }
        })
    }

    fn registry(&self, table: &Table) -> Option<RegistryState> {
        let registry = self.running.lock().registry.clone()?;
        let resolvers = table.services.values().filter_map(|service| service.resolver.as_ref());
        let all = registry.guard().services();
        let mut services: Vec<_> = resolvers.map(|resolver| resolver.state(&all)).collect();
        services.sort_by(|a, b| (&a.name, &a.upstream).cmp(&(&b.name, &b.upstream)));
        Some(RegistryState { services, ..registry.state() })
    }

    fn listeners(&self) -> Vec<ListenerState> {
        let Some(listening) = self.listening.get() else { return Vec::new() };
        let stats = &listening.stats;
        let http = ListenerState {
            name: "http".into(),
            address: listening.http.to_string(),
            tls: self.tls.is_some(),
            accepting: self.draining_since.get().is_none(),
            connections: stats.open.load(Relaxed) as u64,
            max_connections: self.limits.load().connections as u64,
            accepted: stats.accepted.load(Relaxed),
            refused: stats.refused.load(Relaxed),
            resting: stats.resting.load(Relaxed) as u64,
            closed: [
                ("accept-error", &stats.accept_errors),
                ("tls", &stats.tls_failures),
                ("protocol", &stats.protocol_errors),
                ("slow", &stats.slow_closed),
                ("idle", &stats.idle_closed),
                ("cut-off", &stats.cut_off),
            ]
            .map(|(reason, count)| (reason, count.load(Relaxed)))
            .into(),
        };
        let admin = ListenerState {
            name: "admin".into(),
            address: listening.admin.to_string(),
            accepting: true,
            connections: listening.admin_stats.open(),
            max_connections: listening.admin_stats.most(),
            accepted: listening.admin_stats.accepted(),
            ..ListenerState::default()
        };
        vec![http, admin]
    }
}

fn route_state(route: &Route) -> RouteState {
    RouteState {
        name: route.name.clone(),
        upstream: route.service.name.clone(),
        limits: route.limits.iter().map(|limit| limit.name.to_string()).collect(),
        in_flight: route.limiter.as_ref().map(|limiter| InFlightState::of(&limiter.snapshot(), "fixed")),
        ..RouteState::default()
    }
}

fn service_state(service: &Service) -> UpstreamState {
    let pools = service.pools.as_ref();
    let law = pools.map_or("fixed", Pools::law);
    let partition_state = |(name, snapshot): (&str, limiter::Snapshot)| PartitionState {
        name: name.to_owned(),
        in_flight: InFlightState::of(&snapshot, law),
    };
    UpstreamState {
        name: service.name.clone(),
        in_flight: pools.map(|pools| InFlightState::of(&pools.calls(), pools.law())),
        streams: pools.and_then(Pools::streams).map(|streams| InFlightState::of(&streams, "fixed")),
        partitions: pools.into_iter().flat_map(Pools::partitions).map(partition_state).collect(),
        retries: service.retries.load(Relaxed),
        endpoints: service
            .upstream
            .endpoints()
            .iter()
            .map(|endpoint| endpoint_state(service, endpoint))
            .collect(),
    }
}

fn endpoint_state(service: &Service, endpoint: &Endpoint) -> EndpointState {
    let now = clock::now();
    EndpointState {
        authority: endpoint.authority().to_string(),
        in_flight: endpoint.in_flight().into(),
        breaker: service.breaker(endpoint).map(|breaker| BreakerState::of(&breaker.snapshot(now), now)),
        connections: ConnectionsState::of(endpoint.connections(), service.config.connections.max.get()),
    }
}
