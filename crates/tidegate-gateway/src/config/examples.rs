//! The example files are valid, and the big one leaves no setting out.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::*;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// The big example with every setting switched on that is switched off.
fn switched_on() -> String {
    let text = fs::read_to_string(directory().join("tidegate.yaml")).unwrap();
    let lines = text.lines().map(|line| match line.trim_start().strip_prefix('#') {
        Some(setting) if setting.trim_start().contains(':') && !line.trim_start().starts_with("# ") => {
            let indent = line.len() - line.trim_start().len();
            format!("{:indent$}{setting}", "")
        }
        _ => line.to_owned(),
    });
    // What a store in memory has no use for.
    let text = lines.collect::<Vec<_>>().join("\n");
    // And what a registry in plain text has none for.
    text.replace("url: memory://", "url: rediss://store.internal/0").replace("url: etcd://", "url: etcds://")
}

#[test]
fn every_example_is_valid_and_without_warnings() {
    for name in ["tidegate.yaml", "minimal.yaml", "grpc.yaml"] {
        let loaded = load(&Source::File(directory().join(name)));
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    }
}

#[test]
fn the_example_is_valid_with_every_setting_switched_on() {
    let home = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    for name in ["tls.crt", "client.crt", "roots.crt", "store.crt", "etcd.crt", "gate.crt"] {
        fs::write(home.path().join(name), pair.cert.pem()).unwrap();
    }
    for name in ["tls.key", "client.key", "gate.key", "dpop.pem"] {
        fs::write(home.path().join(name), pair.signing_key.serialize_pem()).unwrap();
    }
    let key: Vec<u8> = (0..32).collect();
    fs::write(home.path().join("session.key"), STANDARD.encode(key)).unwrap();
    fs::write(home.path().join("secret"), "hunter2").unwrap();
    let file = home.path().join("tidegate.yaml");
    fs::write(&file, switched_on()).unwrap();
    let loaded = load(&Source::File(file.clone())).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.config.listen.tls.unwrap().cert, home.path().join("tls.crt"));
    assert_eq!(loaded.files.len(), 22);

    // The key of another certificate is refused.
    let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    fs::write(home.path().join("tls.key"), other.signing_key.serialize_pem()).unwrap();
    let problems = load(&Source::File(file)).unwrap_err().to_string();
    assert!(problems.contains("listen.tls.key: the key does not belong to the certificate"), "{problems}");
}

#[test]
fn the_example_states_every_setting() {
    let mut problems = Vec::new();
    let root = tree::parse(&switched_on(), &mut problems).unwrap();
    assert_eq!(problems, []);
    let mut missing = BTreeSet::new();
    let mut seen = BTreeSet::new();
    missing_keys(schema::value(), &[&root], "", &mut missing, &mut seen);
    assert!(missing.is_empty(), "examples/tidegate.yaml does not state {missing:?}");
    assert!(seen.contains("upstreams.*.tls.roots") && seen.contains("routes.*.match.headers"), "{seen:?}");
}

/// Collects the settings of `schema` that none of `nodes` states.
fn missing_keys(
    part: &serde_json::Value,
    nodes: &[&tree::Node],
    path: &str,
    missing: &mut BTreeSet<String>,
    seen: &mut BTreeSet<String>,
) {
    let wanted = wanted::Wanted::of(schema::value(), part);
    if let Some(section) = wanted.section() {
        for (key, schema) in section.properties {
            let path = format!("{path}{}{key}", if path.is_empty() { "" } else { "." });
            let stated: Vec<&tree::Node> = nodes.iter().filter_map(|node| node.get(key)).collect();
            // Of a section in which one key excludes the others, one is enough.
            let other = section.exactly_one && nodes.iter().any(|node| !node.entries().is_empty());
            if stated.is_empty() && !other {
                missing.insert(path.clone());
            }
            seen.insert(path.clone());
            missing_keys(schema, &stated, &path, missing, seen);
        }
    }
    for (inner, children) in [
        (
            wanted.map(),
            nodes.iter().flat_map(|node| node.entries().iter().map(|entry| &entry.value)).collect(),
        ),
        (wanted.list(), nodes.iter().flat_map(|node| node.items()).collect::<Vec<_>>()),
    ] {
        if let Some(inner) = inner {
            missing_keys(inner, &children, &format!("{path}.*"), missing, seen);
        }
    }
}
