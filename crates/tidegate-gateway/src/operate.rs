//! The commands for a gateway that runs: asks its admin pages and prints what they say.

mod ask;

use http::Method;
use serde_json::{Value, json};

pub use self::ask::Failed;
use self::ask::ask;
use crate::{
    admin::span,
    cli::{Key, Limits},
    counter::{CounterChange, CounterState, KeyParts},
    text_table::{Align, Table},
};

/// How a part of a key is written that calls lack.
const ABSENT: &str = "-";

/// Reads or changes counters of a running gateway, and says what there is to print.
///
/// # Errors
/// [`Failed`] when the gateway cannot be asked, or will not do it.
pub fn limits(what: &Limits) -> Result<String, Failed> {
    match what {
        Limits::Get { limit: None, key: _, at } => {
            let said = ask(at.admin, &Method::GET, "/limits", None)?;
            if at.json { Ok(said.text) } else { Ok(all(&said.read::<Vec<Value>>()?)) }
        }
        Limits::Get { limit: Some(limit), key, at } => {
            let path = format!("/limits/{}/counter{}", escaped(limit), query(&parts(key)));
            let said = ask(at.admin, &Method::GET, &path, None)?;
            if at.json { Ok(said.text) } else { Ok(one(&said.read()?)) }
        }
        Limits::Add { limit, key, units, at } => {
            let path = format!("/limits/{}/add", escaped(limit));
            let body = json!({ "key": parts(key), "units": units });
            let said = ask(at.admin, &Method::POST, &path, Some(&body))?;
            if at.json { Ok(said.text) } else { Ok(changed(&said.read()?)) }
        }
        Limits::Reset { limit, key, at } => {
            let path = format!("/limits/{}/reset", escaped(limit));
            let said = ask(at.admin, &Method::POST, &path, Some(&json!({ "key": parts(key) })))?;
            if at.json { Ok(said.text) } else { Ok(changed(&said.read()?)) }
        }
    }
}

fn parts(Key { key }: &Key) -> KeyParts {
    key.iter().map(|part| (part != ABSENT).then(|| part.clone())).collect()
}

fn query(parts: &KeyParts) -> String {
    let mut query = String::new();
    for part in parts {
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str("key");
        if let Some(part) = part {
            query.push('=');
            query.push_str(&escaped(part));
        }
    }
    query
}

/// Percent-encodes all but letters, digits and `-_.~`.
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(byte.into()),
            _ => write!(escaped, "%{byte:02X}").expect("writing to a string does not fail"),
        }
    }
    escaped
}

fn all(limits: &[Value]) -> String {
    let text = |limit: &Value, name: &str| match &limit[name] {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "all calls together".into(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    };
    let mut table = Table::new([
        ("LIMIT", Align::Left),
        ("AMOUNT", Align::Right),
        ("ALGORITHM", Align::Left),
        ("KEYS", Align::Right),
        ("ADMITTED", Align::Right),
        ("REFUSED", Align::Right),
        ("KEY", Align::Left),
    ]);
    for limit in limits {
        table.row(
            ["name", "rate", "algorithm", "keys", "admitted", "refused", "key"].map(|name| text(limit, name)),
        );
    }
    table.print()
}

fn one(state: &CounterState) -> String {
    let mut table = Table::new([
        ("LIMIT", Align::Left),
        ("KEY", Align::Left),
        ("LEFT", Align::Right),
        ("OF", Align::Right),
        ("FULL IN", Align::Right),
        ("OWED", Align::Right),
        ("GATEWAYS", Align::Right),
    ]);
    table.row([
        state.limit.clone(),
        key_text(&state.key),
        state.remaining.to_string(),
        state.most.to_string(),
        span(state.reset_in_seconds),
        state.owed.to_string(),
        state.nodes.map_or(ABSENT.into(), |nodes| nodes.to_string()),
    ]);
    table.print()
}

fn changed(change: &CounterChange) -> String {
    let mut table = Table::new([
        ("LIMIT", Align::Left),
        ("KEY", Align::Left),
        ("LEFT BEFORE", Align::Right),
        ("LEFT NOW", Align::Right),
        ("OF", Align::Right),
    ]);
    table.row([
        change.after.limit.clone(),
        key_text(&change.after.key),
        change.before.remaining.to_string(),
        change.after.remaining.to_string(),
        change.after.most.to_string(),
    ]);
    table.print()
}

fn key_text(key: &KeyParts) -> String {
    if key.is_empty() {
        return "all calls together".into();
    }
    key.iter()
        .map(|part| part.as_ref().map_or(ABSENT.into(), |part| part.escape_debug().to_string()))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(remaining: u64) -> CounterState {
        CounterState {
            limit: "per-client".into(),
            key: vec![Some("alice\n".into()), None],
            remaining,
            most: 1000,
            owed: 0,
            reset_in_seconds: 12.34,
            nodes: Some(3),
        }
    }

    #[test]
    fn counters_are_printed_as_a_table() {
        insta::assert_snapshot!(one(&state(7)));
        insta::assert_snapshot!(changed(&CounterChange { before: state(7), after: state(1000) }));
    }

    #[test]
    fn limits_are_printed_as_a_table() {
        let limit = |name: &str, key: &[&str]| {
            json!({
                "name": name, "rate": "1000/s", "algorithm": "token-bucket", "key": key,
                "keys": 41, "admitted": 12_345_678, "refused": 0,
            })
        };
        insta::assert_snapshot!(all(&[
            limit("backend", &[]),
            limit("per-client", &["header:x-key", "client-ip"])
        ]));
    }

    #[test]
    fn a_key_is_asked_for_whatever_is_in_it() {
        let key = Key { key: vec!["a b&c=d/é".into(), "-".into(), String::new()] };
        assert_eq!(query(&parts(&key)), "?key=a%20b%26c%3Dd%2F%C3%A9&key&key=");
        assert_eq!(query(&parts(&Key { key: Vec::new() })), "");
    }
}
