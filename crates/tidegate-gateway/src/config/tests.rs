//! What users see when a configuration is wrong, and that nothing makes the loader panic.

use proptest::prelude::*;

use super::*;

/// A valid beginning, so that each test shows one mistake.
const UPSTREAM: &str = "upstreams:\n  orders:\n    endpoints: [http://127.0.0.1:9001]\n";
const ROUTE: &str = "routes:\n  - upstream: orders\n";

fn load_text(text: &str) -> Result<Loaded, Problems> {
    load(&Source::Text { name: "tidegate.yaml".into(), text: text.into() })
}

/// Everything that is said about a text: one line each, then the snippets.
fn said(text: impl AsRef<str>) -> String {
    let problems = match load_text(text.as_ref()) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems,
    };
    format!("{problems}\n\n{}", problems.render(Style::Plain).trim_end())
}

macro_rules! mistakes {
    ($($name:ident: $text:expr;)*) => {
        $(
            #[test]
            fn $name() {
                insta::assert_snapshot!(stringify!($name), said($text));
            }
        )*
    };
}

mistakes! {
    an_empty_text: "";
    a_text_that_is_no_yaml: "upstreams:\n  orders: [http://127.0.0.1:9001\nroutes: []\n";
    a_tab_as_indentation: "upstreams:\n\torders: {}\n";
    a_list_as_the_whole: "- upstreams\n- routes\n";
    a_second_document: format!("{UPSTREAM}{ROUTE}---\n{UPSTREAM}");
    a_key_given_twice: format!("{UPSTREAM}{ROUTE}namespace: a\nnamespace: b\n");
    an_unknown_key_like_a_known_one: format!("{UPSTREAM}    in-flight: {{ limit: 5 }}\n{ROUTE}");
    an_unknown_key_like_no_other: format!("{UPSTREAM}{ROUTE}xyzzy: 1\n");
    a_misspelt_required_key: "upstreams:\n  orders:\n    endpoint: [http://127.0.0.1:9001]\nroutes:\n  - upstream: orders\n";
    missing_keys: "limits:\n  a: {}\nupstreams:\n  orders: {}\n";
    sections_without_content: "upstreams:\nroutes:\nlimits:\n";
    values_of_a_wrong_shape: format!("{UPSTREAM}    connections: 250\n    retry: [1]\n{ROUTE}log: {{ access: yes, format: jsn }}\nlimits: []\n");
    numbers_that_are_none: format!("{UPSTREAM}    in_flight: {{ limit: 0, queue: many, fleet: 9999999 }}\n    retry: {{ percent: 120, min_per_second: \"10\" }}\n{ROUTE}workers: -1\nbounds: {{ streams: 1.5 }}\n");
    units_that_are_missing: format!("{UPSTREAM}    timeout: 30\n    idle_timeout: 5 minutes\n{ROUTE}drain: 400d\nbounds: {{ header_bytes: 64kb, body_bytes: none }}\n");
    rates_that_are_none: format!("{UPSTREAM}{ROUTE}    limits: [a, b, c]\nlimits:\n  a: {{ rate: 100 }}\n  b: {{ rate: 10/week }}\n  c: {{ rate: -1/s }}\n");
    addresses_that_are_none: format!("{UPSTREAM}{ROUTE}listen: {{ http: \":8080\", admin: localhost:9900 }}\n");
    one_port_for_traffic_and_admin: format!("{UPSTREAM}{ROUTE}listen: {{ http: 0.0.0.0:9900 }}\n");
    endpoints_that_are_none: "upstreams:\n  a:\n    endpoints:\n      - 127.0.0.1:9001\n      - ftp://host\n      - http://host:99999\n      - https://host/api\n      - http://user:hunter2@host\n      - http://a,b\n  b: { endpoints: [] }\nroutes:\n  - upstream: a\n  - { match: { path: /b }, upstream: b }\n";
    names_that_refer_to_nothing: format!("{UPSTREAM}limits:\n  per-client: {{ rate: 1/s }}\nroutes:\n  - upstream: order\n    limits: [per_client, backend]\n");
    names_that_nothing_refers_to: format!("{UPSTREAM}  spare:\n    endpoints: [http://127.0.0.1:9002]\nlimits:\n  idle: {{ rate: 1/s }}\n{ROUTE}");
    names_that_are_none: format!("{UPSTREAM}  \"two words\": {{ endpoints: [http://h] }}\nroutes:\n  - upstream: orders\n  - {{ upstream: two words, match: {{ path: /x }} }}\n");
    a_limit_named_twice: format!("{UPSTREAM}limits:\n  a: {{ rate: 1/s }}\n{ROUTE}    limits: [a, a]\n");
    a_burst_of_a_window: format!("{UPSTREAM}limits:\n  a: {{ rate: 100/s, burst: 5, algorithm: fixed-window }}\n{ROUTE}    limits: [a]\n");
    an_unknown_algorithm: format!("{UPSTREAM}limits:\n  a: {{ rate: 100/s, algorithm: leaky-bucket }}\n  b: {{ rate: 1/s, algorithm: token_bucket }}\n{ROUTE}    limits: [a, b]\n");
    keys_that_are_none: format!("{UPSTREAM}limits:\n  a: {{ rate: 0/s, key: [\"header:\", ip, \"path:0\", \"claim:\", client-ip, client-ip] }}\n{ROUTE}    limits: [a]\n");
    matches_that_are_none: format!("{UPSTREAM}routes:\n  - upstream: orders\n    match:\n      host: api.example.com:8080\n      path: orders\n      methods: [get, \"G ET\"]\n      headers: {{ \"x y\": a }}\n");
    routes_that_never_match: format!("{UPSTREAM}routes:\n  - {{ match: {{ path: /a, methods: [GET, POST] }}, upstream: orders }}\n  - {{ match: {{ path: /a/, methods: [GET] }}, upstream: orders }}\n  - {{ match: {{ host: \"*.x.io\" }}, upstream: orders }}\n  - upstream: orders\n    match:\n      host: \"*.X.io\"\n");
    routes_of_one_name: format!("{UPSTREAM}routes:\n  - {{ name: a, upstream: orders }}\n  - {{ name: a, match: {{ path: /a }}, upstream: orders }}\n");
    networks_that_are_none: format!("{UPSTREAM}{ROUTE}trusted_proxies: [10.1.0.0/8, localhost, 10.0.0.0/40]\n");
    what_is_not_there_yet: "upstreams:\n  orders:\n    endpoints: [http://127.0.0.1:9001]\n    in_flight: { adaptive: gradient, min: 10, max: 500 }\nlimits:\n  a: { rate: 1/s }\nroutes:\n  - { upstream: orders, token: a, limits: [a] }\n";
    sessions_in_a_file_and_in_a_store: format!("store: redis://h\n{UPSTREAM}{ROUTE}    session: a\nsessions:\n  a: {{ issuer: https://i, client_id: c, auth: none, keys: [{{ env: K }}], file: a.sealed }}\n");
    two_sessions_in_one_file: format!("{UPSTREAM}{ROUTE}    session: a\n  - {{ upstream: orders, match: {{ path: /b }}, session: b }}\nsessions:\n  a: {{ issuer: https://i, client_id: c, auth: none, keys: [{{ env: K }}], file: a.sealed }}\n  b: {{ issuer: https://j, client_id: c, auth: none, keys: [{{ env: K }}], file: a.sealed, callback: /b/c, logout: /oauth2/logout/backchannel }}\n");
    memory_that_is_short_in_no_order: format!("pressure: {{ high: 96%, critical: 90%, stalled_high: 3%, every: 1ms, root: / }}\n{UPSTREAM}{ROUTE}");
    claims_of_nobody: format!("{UPSTREAM}    in_flight: {{ limit: 5, partitions: {{ by: \"claim:plan\", shares: {{ gold: 2 }} }} }}\nlimits:\n  a: {{ rate: 1/s, key: [\"claim:sub\"] }}\n{ROUTE}    limits: [a]\n");
    nothing_that_limits_calls_in_flight: format!("{UPSTREAM}    in_flight: {{ queue: 5 }}\n{ROUTE}");
    a_cost_beyond_what_a_ledger_grants_at_once: format!("store: redis://h\n{UPSTREAM}limits:\n  a: {{ rate: 10/s, cost: 10 }}\n  b: {{ rate: 10/s, cost: 10, algorithm: fixed-window }}\n{ROUTE}    limits: [a, b]\n");
    a_limit_of_a_fleet_that_nobody_may_wait_for: format!("{UPSTREAM}    in_flight: {{ fleet: 5, queue: 0 }}\n{ROUTE}");
    two_limits_of_calls_in_flight: format!("{UPSTREAM}    in_flight: {{ limit: 5, adaptive: gradient, fleet: 7 }}\n{ROUTE}");
    limits_of_calls_in_flight_that_are_none: format!("{UPSTREAM}    in_flight: {{ limit: -1, adaptive: netflix, order: lifo, hold: response }}\n{ROUTE}");
    adaptive_limits_that_contradict_themselves: format!("{UPSTREAM}    in_flight: {{ adaptive: gradient, min: 50, max: 20, latency: 1s }}\n  b: {{ endpoints: [\"http://h:2\"], in_flight: {{ limit: 5, min: 1, max: 9 }} }}\n  c: {{ endpoints: [\"http://h:3\"], in_flight: {{ adaptive: vegas, max: 5, min: 5 }} }}\nroutes:\n  - upstream: orders\n  - {{ upstream: b, match: {{ path: /b }} }}\n  - {{ upstream: c, match: {{ path: /c }} }}\n");
    partitions_that_share_nothing: format!("{UPSTREAM}    in_flight: {{ fleet: 5, partitions: {{ by: client-ip, shares: {{}} }} }}\n  b: {{ endpoints: [\"http://h:2\"], in_flight: {{ limit: off, partitions: {{ by: tenant, shares: {{ gold: 0, (other): 2, \"\": 1 }}, other: 0 }} }} }}\n  c: {{ endpoints: [\"http://h:3\"], in_flight: {{ limit: 5, partitions: {{ by: \"header:\" }} }} }}\nroutes:\n  - upstream: orders\n  - {{ upstream: b, match: {{ path: /b }} }}\n  - {{ upstream: c, match: {{ path: /c }} }}\n");
    streams_that_are_none: format!("{UPSTREAM}    in_flight: {{ limit: 5, idle_stream: 0s, streams: {{ paths: [Watch, \"/a*b\"] }} }}\nroutes:\n  - {{ upstream: orders, kind: websocket, in_flight: {{ limit: 50, adaptive: gradient }} }}\n");
    registries_whose_settings_contradict_each_other: format!("registry: {{ url: \"etcd://app:hunter2@host\", layout: consul, password: {{ env: X }}, tls: {{ roots: Cargo.toml }}, ttl: 0s, grace: 2h, minimum_retry_interval: 0s, timeout: never, clients: 0 }}\n{UPSTREAM}{ROUTE}");
    a_registry_of_a_file_that_logs_in: format!("registry: {{ url: \"file:services.yaml\", layout: go-micro, user: a }}\n{UPSTREAM}{ROUTE}");
    services_without_a_registry: "upstreams:\n  a: { service: orders }\n  b: { service: \"\", endpoints: [http://h:1] }\n  c: { timeout: 1s }\nroutes:\n  - upstream: a\n  - { upstream: b, match: { path: /b } }\n  - { upstream: c, match: { path: /c } }\n";
    registries_that_are_none: format!("registry: consul://h\n{UPSTREAM}{ROUTE}");
    a_registry_that_is_wrong_too: format!("registry: {{ url: \"etcd://u:hun/ter2@h\" }}\n{UPSTREAM}{ROUTE}");
    stores_whose_settings_contradict_each_other: format!("store: {{ url: redis://app:hunter2@host, password: {{ env: X }}, tls: {{ roots: Cargo.toml }}, deadline: 0s, in_flight: 0 }}\n{UPSTREAM}{ROUTE}");
    a_store_in_memory_with_a_password: format!("store: {{ user: a, password: hunter2 }}\n{UPSTREAM}{ROUTE}");
    a_store_that_is_no_url: format!("store: postgres://h/db\nnamespace: \"two words\"\n{UPSTREAM}{ROUTE}");
    a_limit_without_an_amount_and_one_with_two: format!("{UPSTREAM}limits:\n  a: {{ burst: 5 }}\n  b: {{ rate: 1/s, quota: 5/day }}\n  c: {{ quota: 0/month }}\n{ROUTE}    limits: [a, b, c]\n");
    quotas_that_are_none: format!("{UPSTREAM}limits:\n  a: {{ quota: 100/s }}\n  b: {{ quota: 5/day, algorithm: token-bucket, burst: 2, window: clock }}\n  c: {{ rate: 5/s, window: first-call }}\n{ROUTE}    limits: [a, b, c]\n");
    costs_that_are_none: format!("{UPSTREAM}limits:\n  a: {{ rate: 10/s, cost: 11 }}\n  b: {{ rate: 10/s, burst: 5, cost: {{ of: response-bytes, estimate: 6 }} }}\n  c: {{ rate: 1/s, cost: heder:x }}\n  d: {{ rate: 1/s, cost: 0 }}\n  e: {{ rate: 1/s, cost: {{ estimate: 1 }} }}\n{ROUTE}    limits: [a, b, c, d, e]\n");
    a_burst_that_takes_years: format!("{UPSTREAM}limits:\n  a: {{ rate: 1/366d, burst: 1000 }}\n{ROUTE}    limits: [a]\n");
    words_of_a_limit_that_are_wrong: format!("{UPSTREAM}limits:\n  a: {{ rate: 1/s, on_store_failure: allow, prohibit: 0s, lease: 1ms, aside: 5, key: [client-ip/0, client-ip/240] }}\n{ROUTE}    limits: [a]\n");
    a_store_that_is_wrong: format!("store: redis://app:hunter2@a,b\n{UPSTREAM}{ROUTE}");
    a_store_without_a_scheme: format!("store: localhost:6379\n{UPSTREAM}{ROUTE}");
    clients_whose_names_and_keys_are_none: format!("{UPSTREAM}    token: a\n{ROUTE}tokens:\n  a: {{ issuer: \"https://i\", client_id: \"\", key: {{ file: Cargo.toml }} }}\n");
    secrets_of_stores_that_are_none: format!("{UPSTREAM}{ROUTE}store: {{ url: \"redis://h\", password: {{ file: no/such }}, key_secret: {{ env: CARGO_PKG_VERSION_MAJOR }} }}\n");
    certificates_that_are_not_there: format!("listen: {{ tls: {{ cert: no/such.crt, key: Cargo.toml }} }}\n{UPSTREAM}    tls: {{ cert: Cargo.toml }}\n{ROUTE}");
    aliases_that_stand_for_nothing: format!("{UPSTREAM}    breaker: *usual\n{ROUTE}");
    tags_and_unquoted_braces: "upstreams: !!map\n  orders: !include orders.yaml\nroutes: {{ .Values.routes }}\n";
    cookies_that_sessions_share_or_others_can_set: format!("{UPSTREAM}{ROUTE}    session: a\n  - {{ upstream: orders, match: {{ path: /b }}, session: b }}\nsessions:\n  a: {{ issuer: https://i, client_id: c, auth: none, keys: [{{ env: K }}], cookie: sid }}\n  b: {{ issuer: https://j, client_id: c, auth: none, keys: [{{ env: K }}], cookie: sid, callback: /b/c, logout: /b/l, parameters: {{ prompt: login, state: x }} }}\n");
    sessions_that_nobody_could_log_in_to: format!("{UPSTREAM}{ROUTE}    session: a\nsessions:\n  a: {{ issuer: https://i, client_id: \"\", auth: none, keys: [{{ env: K }}], algorithms: [], allow: {{ email: [] }} }}\n");
    times_of_grants_and_sessions_out_of_range: format!("{UPSTREAM}{ROUTE}tokens: {{ b: {{ issuer: https://idp.example, client_id: gw, timeout: 2h }} }}\nsessions: {{ s: {{ issuer: https://idp.example, client_id: web, idle: 1ms, reuse_window: 2d, timeout: 11m, open_for: 1ms, grants: 101 }} }}\n");
    times_of_zero: format!("{UPSTREAM}    timeout: 0s\n    breaker: {{ within: 0s }}\n{ROUTE}bounds: {{ header_bytes: 1KiB, keep_alive: 0s }}\n");
    doubtful_settings: format!("{UPSTREAM}    protocol: http1\n    in_flight: {{ limit: 500 }}\n    timeout: 1s\n    head_timeout: 5s\nlisten: {{ admin: 0.0.0.0:9900 }}\n{ROUTE}trusted_proxies: [\"::/0\"]\n");
    a_value_that_is_missing: format!("{UPSTREAM}    breaker: {{ failures: }}\nstore:\n{ROUTE}");
    words_that_are_wrong: format!("{UPSTREAM}    breaker: none\n    protocol: h2\n    host: upstream\n{ROUTE}    hold: Body\nlog: {{ level: \"lots=of=noise\" }}\n");
}

#[test]
fn a_small_configuration_is_enough() {
    let loaded = load_text(&format!("{UPSTREAM}{ROUTE}")).unwrap();
    assert!(loaded.warnings.is_empty());
    assert!(loaded.config.store.is_memory());
    let half_a_minute = HumanDuration(std::time::Duration::from_secs(30));
    assert_eq!(loaded.config.upstreams["orders"].timeout, Timeout::After(half_a_minute));
}

#[test]
fn a_store_is_a_url_or_a_section() {
    let url = "redis-sentinel://app:hunter2@a,b:26380/cache";
    let alone = load_text(&format!("store: {url}\n{UPSTREAM}{ROUTE}")).unwrap().config.store;
    let section = load_text(&format!("store: {{ url: \"{url}\" }}\n{UPSTREAM}{ROUTE}")).unwrap().config.store;
    assert_eq!((alone.url.as_str(), &alone), (url, &section));
    assert_eq!(alone.deadline.as_millis(), 50);
}

#[test]
fn a_registry_is_a_url_or_a_section() {
    let upstream = "upstreams: { orders: { service: orders } }\n";
    let url = "etcds://app:hunter2@a,b:2380/fleet/";
    let alone = load_text(&format!("registry: {url}\n{upstream}{ROUTE}")).unwrap().config.registry;
    let section = load_text(&format!("registry: {{ url: \"{url}\" }}\n{upstream}{ROUTE}")).unwrap().config;
    assert_eq!((alone.as_ref().unwrap().url.as_str(), &alone), (url, &section.registry));
    let mut settings = tidegate::registry::Settings::default();
    // What the gateway can call.
    settings.preservation.schemes = Some(&["http", "https"]);
    assert_eq!(alone.unwrap().settings(), settings);
    assert_eq!(section.upstreams["orders"].service.as_deref(), Some("orders"));
}

#[test]
fn what_a_call_costs_is_read_in_each_way() {
    let cost = |text: &str| {
        let text =
            format!("{UPSTREAM}limits: {{ a: {{ rate: 100/s, cost: {text} }} }}\n{ROUTE}    limits: [a]\n");
        let config = load_text(&text).unwrap_or_else(|problems| panic!("{problems}")).config;
        let cost = &config.limits["a"].cost;
        (cost.estimate().get(), cost.source().map(ToString::to_string))
    };
    assert_eq!(cost("5"), (5, None));
    assert_eq!(cost("header:x-cost"), (1, Some("header:x-cost".into())));
    assert_eq!(cost("{ of: response-bytes, estimate: 20 }"), (20, Some("response-bytes".into())));
    assert_eq!(cost("{ of: \"response-header:x-t\" }"), (1, Some("response-header:x-t".into())));
}

#[test]
fn json_is_read_as_well() {
    let json = r#"{"upstreams":{"a":{"endpoints":["http://h:1"]}},"routes":[{"upstream":"a"}],"workers":2}"#;
    assert_eq!(load_text(json).unwrap().config.workers.map(usize::from), Some(2));
}

#[test]
fn anchors_and_merge_keys_are_resolved() {
    let text = "upstreams:
  a: &usual
    endpoints: [http://h:1]
    breaker: off
    timeout: &short 5s
  b:
    <<: *usual
    endpoints: [http://h:2]
    head_timeout: *short
routes:
  - upstream: a
  - { match: { path: /b }, upstream: b }
";
    let config = load_text(text).unwrap().config;
    let b = &config.upstreams["b"];
    assert_eq!(b.endpoints, ["http://h:2"]);
    assert!(matches!(b.breaker, BreakerSetting::Off(_)));
    assert_eq!((b.timeout, b.head_timeout), (config.upstreams["a"].timeout, config.upstreams["a"].timeout));
}

#[test]
fn what_looks_like_a_number_is_a_text_where_a_text_is_wanted() {
    let text = format!(
        "{UPSTREAM}routes:\n  - {{ upstream: orders, match: {{ headers: {{ x-version: 1.10, x-on: off }} }} }}\n"
    );
    let config = load_text(&text).unwrap().config;
    let headers = &config.routes[0].matches.headers;
    assert_eq!((headers["x-version"].as_str(), headers["x-on"].as_str()), ("1.10", "off"));
}

#[test]
fn a_billion_laughs_are_refused_quickly() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
        text.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
    }
    let problems = load_text(&text).unwrap_err();
    assert!(problems.to_string().contains("too large"), "{problems}");
    let deep = format!("a: {}", "[".repeat(10_000));
    assert!(load_text(&deep).is_err());
    let large = format!("# {}", "x".repeat(2 << 20));
    assert!(load_text(&large).unwrap_err().to_string().contains("too large"));
    let itself = load_text("a: &a [*a]\n").unwrap_err();
    assert!(itself.to_string().contains("inside of what it stands for"), "{itself}");
}

#[test]
fn a_thousand_mistakes_are_counted_and_not_all_shown() {
    let keys: String = (0..1000).map(|n| format!("unknown_{n}: 1\n")).collect();
    let problems = load_text(&format!("{UPSTREAM}{ROUTE}{keys}")).unwrap_err();
    assert_eq!(problems.errors(), 1000);
    let shown = problems.to_string();
    assert!(shown.lines().count() < 100 && shown.ends_with("and 950 more"), "{shown}");
}

#[test]
fn files_that_can_not_be_read_say_why() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.yaml");
    let problems = load(&Source::File(missing)).unwrap_err();
    assert!(problems.to_string().contains("there is no such file"), "{problems}");
    let problems = load(&Source::File(directory.path().into())).unwrap_err();
    assert!(problems.to_string().contains("it is a directory"), "{problems}");
    let binary = directory.path().join("binary.yaml");
    std::fs::write(&binary, b"upstreams: \xff\xfe").unwrap();
    let problems = load(&Source::File(binary)).unwrap_err();
    assert!(problems.to_string().contains(":1:12: the text is not UTF-8"), "{problems}");
}

#[test]
fn passwords_show_nowhere() {
    for text in [
        format!("store: redis://app:hunter2@host/0\n{UPSTREAM}{ROUTE}"),
        format!("{UPSTREAM}{ROUTE}tokens: {{ b: {{ client_secret: hunter2 }} }}\n"),
        format!("{UPSTREAM}{ROUTE}client_secret: hunter2\n"),
        format!("{UPSTREAM}{ROUTE}tracing: {{ otlp: \"http://u:hunter2@h\" }}\n"),
        format!("registry: {{ url: \"etcd://u:hunter2@h h\" }} \n{UPSTREAM}{ROUTE}"),
        "upstreams: [http://u:hunter2@h\n".to_owned(),
    ] {
        let shown = said(&text);
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn a_gap_between_schema_and_model_would_show() {
    // Whatever the checks let through, the model takes; the schema has every format that the model names.
    fn formats(schema: &serde_json::Value, found: &mut Vec<String>) {
        if let Some(format) = schema["format"].as_str() {
            found.push(format.to_owned());
        }
        match schema {
            serde_json::Value::Object(entries) => entries.values().for_each(|value| formats(value, found)),
            serde_json::Value::Array(items) => items.iter().for_each(|value| formats(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    formats(schema::value(), &mut found);
    // A secret is a section, whose only use of its format is what is said to those who write a text instead.
    let ours = |format: &&String| format.starts_with("tidegate-") && *format != "tidegate-secret";
    for format in found.iter().filter(ours) {
        assert!(formats::check_of(format).is_some(), "{format} has no parser");
    }
    assert!(found.iter().any(|format| format == "tidegate-rate"));
}

proptest! {
    #[test]
    fn no_bytes_make_the_loader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        said(String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_yaml_makes_the_loader_panic(text in "([-\\[\\]{}:,#&*!|>'\"%@`?\n \t~<a-z0-9/.é]|routes|upstreams|limits|: |\n  |- ){0,80}") {
        said(&text);
    }

    #[test]
    fn no_damage_to_a_valid_configuration_makes_the_loader_panic(
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..9, "[-\\[\\]{}:,#&*!\n 0a~é]{0,4}"), 1..6)
    ) {
        let mut text: Vec<char> = include_str!("../../../../examples/tidegate.yaml").chars().collect();
        for (at, length, put) in cuts {
            let start = at.index(text.len());
            let end = (start + length).min(text.len());
            text.splice(start..end, put.chars());
        }
        let text = text.iter().collect::<String>();
        said(&text);
        if let Ok(loaded) = load_text(&text) {
            let shown = redacted_yaml(&loaded.config);
            prop_assert!(load_text(&shown).is_ok(), "{}\n{shown}", said(&shown));
        }
    }
}

/// Shapes that a careless reader needs quadratic time for; each is close to the largest text that is read.
#[test]
#[ignore = "a measurement: prints how long the worst shapes take"]
fn worst_shapes_take_bounded_time() {
    let many = |n: usize, line: &dyn Fn(usize) -> String| (0..n).map(line).collect::<String>();
    let routes = many(3000, &|n| format!("  - {{ match: {{ path: /a{n} }}, upstream: orders }}\n"));
    for (name, text) in [
        ("urls in one word", "://".repeat(300_000)),
        ("secrets on one line", "token: ".repeat(140_000)),
        ("unknown keys", many(60_000, &|n| format!("k{n}: 1\n"))),
        (
            "wrong references",
            format!("{UPSTREAM}routes:\n{}", many(20_000, &|n| format!("- upstream: order{n}\n"))),
        ),
        (
            "upstreams",
            format!(
                "upstreams:\n{}{ROUTE}",
                many(20_000, &|n| format!("  u{n}: {{ endpoints: [http://h:1] }}\n"))
            ),
        ),
        ("anchors and aliases", many(30_000, &|n| format!("- &a{n} x\n- *a{n}\n"))),
        ("one long line", format!("x: {}", "[a, ".repeat(250_000))),
        ("many routes", format!("{UPSTREAM}routes:\n{routes}")),
        ("colons", ":".repeat(1 << 20)),
        ("one long word", format!("{}: 1", "a".repeat(1 << 19))),
    ] {
        let start = std::time::Instant::now();
        let length = said(&text).len();
        println!("{name}: {} KiB, {:?}, said {length} bytes", text.len() >> 10, start.elapsed());
    }
}

#[test]
fn an_item_without_content_is_no_route() {
    for none in ["routes:\n  - \n", "routes: [~]\n", "routes: [{}]\n"] {
        let problems = load_text(&format!("{UPSTREAM}{none}")).expect_err(none).to_string();
        assert!(problems.contains("upstream") && problems.contains("is missing"), "{none:?}: {problems}");
    }
}
