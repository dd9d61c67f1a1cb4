//! A state to look at.

use super::*;

/// A state with one of everything, for tests and screenshots.
pub(crate) fn example() -> State {
    let durations = Durations::from_buckets(vec![(0.001, 90), (0.01, 9), (f64::INFINITY, 1)], 0.25);
    let pool = |limit, in_flight| InFlightState {
        limit,
        law: "fixed",
        in_flight,
        wait: durations.clone(),
        hold: durations.clone(),
        ..InFlightState::default()
    };
    let endpoint = |authority: &str, breaker| EndpointState {
        authority: authority.into(),
        in_flight: 21,
        breaker: Some(breaker),
        connections: ConnectionsState { open: 24, idle: 3, http2: 2, streams: 20, waiting: 0, max: 250 },
    };
    let open = BreakerState {
        state: BreakerPhase::Open,
        since_seconds: 1.5,
        retry_in_seconds: Some(3.5),
        failures: 0,
        opened: 2,
        refused: 17,
    };
    State {
        version: "0.1.0".into(),
        uptime_seconds: 93_784.0,
        not_ready: None,
        config: ConfigState {
            source: "/etc/tidegate.yaml".into(),
            hash: "9f86d081".into(),
            loaded_at_seconds: 1_700_000_000.0,
            reloads: 3,
            failed_reloads: 1,
            last_reload_error: Some("line 3: unknown key `upsteams`; did you mean `upstreams`?".into()),
            needs_restart: vec!["listen.http", "workers"],
        },
        listeners: vec![ListenerState {
            name: "http".into(),
            address: "127.0.0.1:8080".into(),
            tls: false,
            accepting: true,
            connections: 118,
            max_connections: 20_000,
            accepted: 5021,
            refused: 0,
            resting: 61,
            closed: [("slow", 3), ("tls", 0)].into(),
        }],
        routes: vec![RouteState {
            name: "orders".into(),
            upstream: "orders".into(),
            limits: vec!["per-client".into(), "backend".into()],
            in_flight: Some(pool(Some(20), 3)),
            ..RouteState::default()
        }],
        store: StoreState {
            url: "redis://app:***@store.internal:6379/0".into(),
            namespace: "prod".into(),
            state: StorePhase::Away,
            in_flight: 3,
            max_in_flight: 1024,
            servers: vec![StoreServerState {
                server: Some("store.internal:6379".into()),
                state: StorePhase::Away,
                run_id: None,
                error: Some("store store.internal:6379 did not answer within 50ms".into()),
            }],
        },
        limits: vec![
            LimitState {
                name: "backend".into(),
                rate: "5000/s".into(),
                algorithm: "fixed-window".into(),
                shadow: true,
                keys: 1,
                max_keys: 1_000_000,
                admitted: 120_000,
                shadow_refused: 12,
                over_admission_possible: Some(0),
                credit: Some(CreditState {
                    on_store_failure: "deny",
                    life_seconds: 1.0,
                    in_hand: 210,
                    stranded: 3,
                    outstanding: 213,
                    away_seconds: Some(12.5),
                    away_share: 1.0,
                    outages: 2,
                    local: 119_000,
                    waited: 1012,
                    asking: 1,
                    operations: 2400,
                    operations_per_decision: 0.02,
                    failures: [("late", 4), ("unreachable", 0)].into(),
                    latency_seconds: 0.000_4,
                    latency: Durations::from_buckets(
                        vec![(0.000_512, 2300), (0.001_024, 95), (f64::INFINITY, 5)],
                        1.1,
                    ),
                    ..CreditState::default()
                }),
                ..LimitState::default()
            },
            LimitState {
                name: "per-client".into(),
                rate: "1000/s".into(),
                burst: Some(1000),
                algorithm: "token-bucket".into(),
                key: vec!["header:x-api-key".into()],
                shadow: false,
                keys: 412_003,
                max_keys: 1_000_000,
                admitted: 119_958,
                refused: 42,
                over_admission_possible: Some(0),
                ..LimitState::default()
            },
        ],
        registry: Some(registry()),
        upstreams: vec![UpstreamState {
            name: "orders".into(),
            in_flight: Some(InFlightState {
                limit: Some(50),
                law: "gradient",
                in_flight: 42,
                queued: 7,
                queue: 1000,
                admitted: 119_900,
                refused: [("queue-full".to_owned(), 40), ("wait-too-long".to_owned(), 18)].into(),
                cancelled: 3,
                wait: durations.clone(),
                hold: durations.clone(),
                held_long: 1,
            }),
            streams: Some(pool(None, 12)),
            partitions: vec![PartitionState {
                name: "gold".into(),
                in_flight: InFlightState { law: "gradient", ..pool(Some(37), 30) },
            }],
            retries: 4,
            endpoints: vec![
                endpoint(
                    "127.0.0.1:9001",
                    BreakerState { since_seconds: 93_000.0, ..BreakerState::default() },
                ),
                endpoint("127.0.0.1:9002", open),
            ],
        }],
        tokens: vec![TokenState {
            name: "billing".into(),
            issuer: "https://idp.example".into(),
            grant: "client_credentials",
            state: TokenPhase::Fresh,
            expires_in_seconds: Some(280.0),
            keys: 1,
            grants: [("success", 12), ("transient", 1)].into(),
            rejected: 1,
            ..TokenState::default()
        }],
        sessions: vec![SessionsState {
            name: "idp".into(),
            issuer: "https://idp.example".into(),
            kept: "store",
            provider: "paused",
            paused_seconds: Some(12.0),
            sessions: 4,
            waiting: 2,
            in_flight: 1,
            queued: 1,
            held_back: 3,
            shared: 7,
            over: 1,
            refreshes: [("success", 20)].into(),
            logins: [("begun", 6), ("success", 5)].into(),
            ..SessionsState::default()
        }],
        pressure: Some(PressureState {
            level: "high",
            short: 1,
            used_bytes: 900 << 20,
            limit_bytes: Some(1 << 30),
            stalled_percent: Some(1.5),
            shed: 6,
        }),
        refusals: Vec::new(),
        telemetry: TelemetryState {
            access_log_lines: 120_000,
            spans_exported: 1200,
            ..TelemetryState::default()
        },
    }
}

fn registry() -> RegistryState {
    let instance = |id: &str, address: &str, suspect_seconds, proven_seconds| RegistryEndpointState {
        id: id.into(),
        address: address.into(),
        version: "2.1".into(),
        weight: 1,
        zone: Some("eu-1".into()),
        suspect_seconds,
        proven_seconds,
    };
    RegistryState {
        url: "etcd://gate:***@10.0.0.1:2379,10.0.0.2:2379/tidegate/".into(),
        reach: "down",
        reads: [("answered", 12), ("failed", 4), ("lost", 0)].into(),
        held_back: [("budget", 0), ("down", 31)].into(),
        watch_restarts: 2,
        suspects: 1,
        etcd: Some(EtcdState { calls: 40, logins: 1, watch_streams: 3, ..EtcdState::default() }),
        problems: vec!["snapshot /var/lib/tidegate/a.snapshot is ignored: its checksum is wrong".into()],
        services: vec![ServiceState {
            name: "orders".into(),
            upstream: "orders".into(),
            provenance: "stale",
            age_seconds: Some(42.5),
            revision: 1207,
            endpoints: vec![
                instance("orders-7", "10.0.0.7:9001", None, None),
                instance("orders-9", "10.0.0.9:9001", None, Some(9.5)),
                instance("orders-8", "10.0.0.8:9001", Some(12.0), None),
            ],
            suspects: 1,
            watch_restarts: 2,
            error: Some("range: Unavailable: tcp connect error".into()),
            lookups: [("live", 110_000), ("stale", 9_900), ("not-found", 0)].into(),
            ages: Durations::from_buckets(vec![(10.0, 900), (60.0, 9000), (f64::INFINITY, 0)], 250_000.0),
            ..ServiceState::default()
        }],
    }
}
