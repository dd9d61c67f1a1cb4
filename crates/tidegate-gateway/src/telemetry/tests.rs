use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tidegate_core::{By, Instant, Refused};

use super::*;
use crate::{
    record::{CallProtocol, Finished},
    state::example,
};

fn finished(status: u16) -> Finished {
    Finished {
        status,
        grpc_status: None,
        duration: Duration::from_millis(3),
        head_duration: Some(Duration::from_millis(2)),
        request_bytes: 10,
        response_bytes: 1000,
        protocol: CallProtocol::Http1,
    }
}

fn busy() -> Telemetry {
    let telemetry = Telemetry::new(2);
    let orders = telemetry.route("orders \"quoted\\path\"\n", "orders");
    orders.finished(&finished(200));
    orders.finished(&finished(429));
    orders.finished(&Finished { grpc_status: Some(8), protocol: CallProtocol::Grpc, ..finished(200) });
    let refused = Refused::after(By::Quota, Duration::from_millis(250));
    orders.refused(refused, Some(&"per-client".into()), Instant::from_nanos(5_000_000_000));
    telemetry
}

/// Every sample of a page by family, after checking the grammar of the exposition format.
fn validate(page: &str, format: Format) -> BTreeMap<String, Vec<(String, f64)>> {
    let mut families: BTreeMap<String, (String, Vec<(String, f64)>)> = BTreeMap::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    let body = match format {
        Format::OpenMetrics => page.strip_suffix("# EOF\n").expect("OpenMetrics ends with its mark"),
        Format::Prometheus => page,
    };
    assert!(body.ends_with('\n') && !body.contains("\n\n") && !body.contains("# EOF"));
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            current = help.split(' ').next().unwrap().to_owned();
            assert!(!families.contains_key(&current), "{current} appears twice");
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, current);
            let kinds: &[&str] = match format {
                Format::OpenMetrics => &["counter", "gauge", "histogram", "info"],
                Format::Prometheus => &["counter", "gauge", "histogram"],
            };
            assert!(kinds.contains(&kind), "{kind}");
            families.insert(current.clone(), (kind.to_owned(), Vec::new()));
            continue;
        }
        if let Some(unit) = line.strip_prefix("# UNIT ") {
            let (name, unit) = unit.split_once(' ').unwrap();
            assert!(format == Format::OpenMetrics && name == current && name.ends_with(unit), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a sample is a series and a value");
        let value: f64 = value.parse().expect("a value is a number");
        assert!(!series.ends_with("{}"), "{series}");
        assert!(seen.insert(series.to_owned()), "{series} appears twice");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert!(name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
        check_labels(labels);
        let (kind, samples) = families.get_mut(&current).expect("a sample follows its type");
        let suffixes: &[&str] = match (kind.as_str(), format) {
            ("histogram", _) => &["_bucket", "_sum", "_count"],
            ("counter", Format::OpenMetrics) => &["_total"],
            ("info", _) => &["_info"],
            _ => &[""],
        };
        assert!(suffixes.iter().any(|suffix| name == format!("{current}{suffix}")), "{name} in {current}");
        if kind == "counter" {
            assert!(name.ends_with("_total") && value >= 0.0, "{line}");
        }
        samples.push((series.to_owned(), value));
    }
    for (name, (kind, samples)) in &families {
        assert!(!samples.is_empty(), "{name} has no samples");
        if kind == "histogram" {
            check_histogram(name, samples);
        }
    }
    families.into_iter().map(|(name, (_, samples))| (name, samples)).collect()
}

/// `key="value",…}` with values escaped.
fn check_labels(mut rest: &str) {
    while rest != "}" {
        let (key, tail) = rest.split_once("=\"").expect("a label has a value in quotes");
        assert!(key.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{key}");
        let mut end = None;
        let mut escaped = false;
        for (at, c) in tail.char_indices() {
            if escaped {
                assert!(matches!(c, '\\' | '"' | 'n'), "{tail}");
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == '"' {
                end = Some(at);
                break;
            }
        }
        rest = &tail[end.expect("a value ends with a quote") + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

fn check_histogram(name: &str, samples: &[(String, f64)]) {
    let mut last: BTreeMap<String, f64> = BTreeMap::new();
    for (series, value) in samples.iter().filter(|(series, _)| series.starts_with(&format!("{name}_bucket")))
    {
        let (before, bound) = series.split_once("le=\"").expect("a bucket has a bound");
        let (_, after) = bound.split_once('"').expect("a bound ends with a quote");
        let before = last.insert(format!("{before}{after}"), *value).unwrap_or(0.0);
        assert!(*value >= before, "buckets are cumulative: {series}");
    }
    let infinite = samples.iter().filter(|(series, _)| series.contains("le=\"+Inf\"")).map(|(_, v)| *v);
    let counts =
        samples.iter().filter(|(series, _)| series.starts_with(&format!("{name}_count"))).map(|(_, v)| *v);
    assert_eq!(infinite.collect::<Vec<_>>(), counts.collect::<Vec<_>>(), "{name}");
}

#[test]
fn both_formats_are_well_formed_and_carry_the_same_samples() {
    let telemetry = busy();
    let open = validate(&telemetry.render(example(), Format::OpenMetrics), Format::OpenMetrics);
    let text = validate(&telemetry.render(example(), Format::Prometheus), Format::Prometheus);
    let series = |page: &BTreeMap<String, Vec<(String, f64)>>| {
        let all: BTreeSet<String> = page.values().flatten().map(|(series, _)| series.clone()).collect();
        all
    };
    assert_eq!(series(&open), series(&text));
    assert!(open.keys().all(|name| name.starts_with("tidegate_") || name.starts_with("process_")));
}

#[test]
fn the_page_of_metrics_is_as_documented() {
    let page = busy().render(example(), Format::Prometheus);
    let stable: Vec<&str> =
        page.lines().filter(|line| !line.contains("process_") && !line.contains("_bucket{")).collect();
    insta::assert_snapshot!(stable.join("\n"));
}

#[test]
fn a_gateway_that_has_done_nothing_yet_has_a_valid_page() {
    let telemetry = Telemetry::new(1);
    telemetry.route("idle", "idle");
    for format in [Format::OpenMetrics, Format::Prometheus] {
        validate(&telemetry.render(State::default(), format), format);
    }
}

#[test]
fn counters_survive_a_reload_that_names_the_route_again() {
    let telemetry = Telemetry::new(1);
    telemetry.route("a", "u").finished(&finished(200));
    telemetry.route("a", "u").finished(&finished(200));
    let mut state = State::default();
    telemetry.fill(&mut state);
    assert_eq!((state.routes.len(), state.routes[0].calls), (1, 2));
}

#[test]
fn a_state_keeps_the_order_and_the_limits_of_its_routes() {
    let telemetry = Telemetry::new(1);
    telemetry.route("a", "u").finished(&finished(200));
    telemetry.route("b", "u").finished(&finished(500));
    let known =
        RouteState { name: "b".into(), upstream: "u".into(), limits: vec!["x".into()], ..Default::default() };
    let mut state = State { routes: vec![known], ..State::default() };
    telemetry.fill(&mut state);
    let names: Vec<_> = state.routes.iter().map(|route| (route.name.as_str(), route.limits.len())).collect();
    assert_eq!(names, [("b", 1), ("a", 0)]);
    assert_eq!(state.routes[0].responses["500"], 1);
}

#[test]
fn no_label_value_comes_from_a_call() {
    let telemetry = Telemetry::new(1);
    let route = telemetry.route("a", "u");
    for status in 0..=u16::MAX {
        route.finished(&Finished { grpc_status: Some(status), ..finished(status) });
    }
    let page = validate(&telemetry.render(State::default(), Format::OpenMetrics), Format::OpenMetrics);
    assert!(page["tidegate_requests"].len() <= 70 && page["tidegate_grpc_responses"].len() == 18);
}
