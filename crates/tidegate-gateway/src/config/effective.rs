//! The configuration in effect, as YAML that can be read again: every default filled in, no secret in it.

use std::fmt::Write;

use serde_json::Value as Json;
use tidegate::{REDACTED, redacted_url};

use super::{limit::Limit, mask::holds_secret, model::Config};

/// Writes a configuration with all its defaults; what is not set and has no default is left out. Passwords are `***`.
pub fn redacted_yaml(config: &Config) -> String {
    let mut config = config.clone();
    config.limits.values_mut().for_each(Limit::fill_in);
    for in_flight in config.upstreams.values_mut().filter_map(|upstream| upstream.in_flight.as_mut()) {
        if in_flight.adaptive.is_some() {
            let (min, max) = in_flight.bounds();
            (in_flight.min, in_flight.max) = (min.try_into().ok(), max.try_into().ok());
        }
    }
    for (name, value) in config.routes.iter_mut().flat_map(|route| &mut route.matches.headers) {
        if holds_secret(name) {
            REDACTED.clone_into(value);
        }
    }
    let json = serde_json::to_value(&config).expect("the model has text keys and no fallible serializer");
    let mut yaml = String::new();
    block(&json, 0, &mut yaml);
    yaml
}

/// Writes a map or a list, a line an entry.
fn block(json: &Json, indent: usize, yaml: &mut String) {
    match json {
        Json::Object(entries) => {
            for (key, value) in entries.iter().filter(|(_, value)| !value.is_null()) {
                let _ = write!(yaml, "{:indent$}{}:", "", scalar(key));
                below(value, indent + 2, yaml);
            }
        }
        Json::Array(items) => {
            for item in items {
                // The first entry of an item stands on the line of its dash.
                let mut lines = String::new();
                match item {
                    Json::Object(entries) if entries.values().any(|value| !value.is_null()) => {
                        block(item, indent + 2, &mut lines);
                    }
                    other => {
                        let _ = writeln!(lines, "{:1$}{2}", "", indent + 2, flow(other));
                    }
                }
                let _ = write!(yaml, "{:indent$}- {}", "", lines.trim_start_matches(' '));
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {
            let _ = writeln!(yaml, "{:indent$}{}", "", flow(json));
        }
    }
}

/// Writes a value after its key.
fn below(value: &Json, indent: usize, yaml: &mut String) {
    let short = match value {
        Json::Object(entries) => entries.values().all(Json::is_null),
        Json::Array(items) => items.iter().all(|item| !item.is_object() && !item.is_array()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => true,
    };
    if short {
        let _ = writeln!(yaml, " {}", flow(value));
    } else {
        yaml.push('\n');
        block(value, indent, yaml);
    }
}

/// Writes a value on one line.
fn flow(json: &Json) -> String {
    match json {
        Json::String(text) => scalar(&redacted_url(text)),
        Json::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Json::Object(_) => "{}".into(),
        Json::Null | Json::Bool(_) | Json::Number(_) => json.to_string(),
    }
}

/// A text without quotes where it needs none, else as JSON writes it, which YAML reads.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && !text.ends_with(':')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:+".contains(&b))
        && !["true", "false", "null"].contains(&text.to_ascii_lowercase().as_str());
    let rate_or_time = text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'/')
        && !text.starts_with('0');
    if plain || rate_or_time || text == "0s" || text == "0B" {
        text.to_owned()
    } else {
        Json::from(text).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, load};

    #[test]
    fn the_whole_configuration_is_shown_and_reads_back_as_the_same() {
        let text = include_str!("../../../../examples/tidegate.yaml").to_owned();
        let config = load(&Source::Text { name: "a".into(), text }).unwrap().config;
        let shown = redacted_yaml(&config);
        insta::assert_snapshot!(shown);
        let again = load(&Source::Text { name: "b".into(), text: shown.clone() }).unwrap().config;
        assert_eq!(redacted_yaml(&again), shown);
    }

    #[test]
    fn secrets_in_headers_and_urls_are_not_shown() {
        let text = "upstreams: { a: { endpoints: [http://h:1] } }
routes:
  - { upstream: a, match: { headers: { Authorization: Bearer hunter2, x-api-key: hunter2, x-region: eu } } }
";
        let mut config = load(&Source::Text { name: "a".into(), text: text.into() }).unwrap().config;
        config.store.url = "redis://app:hunter2@host/0".into();
        let shown = redacted_yaml(&config);
        assert!(!shown.contains("hunter2") && shown.contains("x-region: eu"), "{shown}");
        assert!(shown.contains("redis://app:***@host/0"), "{shown}");
        let summary = crate::config::summary(&config);
        assert!(!summary.contains("hunter2"), "{summary}");
    }

    #[test]
    fn texts_are_quoted_where_yaml_would_read_something_else() {
        for (text, shown) in [
            ("orders", "orders"),
            ("100/s", "100/s"),
            ("1m30s", "1m30s"),
            ("http://127.0.0.1:9001", "http://127.0.0.1:9001"),
            ("header:x-api-key", "header:x-api-key"),
            ("true", "\"true\""),
            ("12", "\"12\""),
            ("0x1f", "\"0x1f\""),
            ("*.example.com", "\"*.example.com\""),
            ("a: b", "\"a: b\""),
            ("", "\"\""),
            ("127.0.0.1:80", "\"127.0.0.1:80\""),
        ] {
            assert_eq!(scalar(text), shown);
        }
    }
}
