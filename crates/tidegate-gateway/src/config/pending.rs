//! Settings that are planned and not there yet: refused by name, never ignored and never called unknown.

use tidegate_etcd::RegistryUrl;

use super::{
    problem::{Problem, quoted},
    tree::{Entry, Value},
};

/// A setting that is not there yet.
struct Pending {
    /// The section it will be in, by its name in the schema; the whole has none.
    section: &'static str,
    key: &'static str,
    /// What this version lacks.
    lacks: &'static str,
    remedy: &'static str,
}

const fn pending(
    section: &'static str,
    key: &'static str,
    lacks: &'static str,
    remedy: &'static str,
) -> Pending {
    Pending { section, key, lacks, remedy }
}

const PENDING: [Pending; 3] = [
    pending("", "registry", "a service registry", "list the endpoints under upstreams.NAME.endpoints"),
    pending("Upstream", "service", "a service registry", "list its endpoints: [http://host:port]"),
    pending("Route", "token", "access tokens of routes", "name it at the upstream: token: NAME"),
];

/// What to say about `entry` in `section`, if it is a setting that is not there yet.
pub(super) fn refusal(section: &str, entry: &Entry) -> Option<Problem> {
    let found = PENDING.iter().find(|pending| pending.section == section && pending.key == entry.key)?;
    let wrong_registry = (found.key == "registry").then(|| registry(entry)).flatten();
    Some(wrong_registry.unwrap_or_else(|| {
        let message =
            format!("`{}` is not there yet: this version has no {}", found.key, without_article(found.lacks));
        Problem::error(message, found.remedy).at(&entry.key_span)
    }))
}

fn without_article(text: &str) -> &str {
    text.strip_prefix("a ").unwrap_or(text)
}

/// What is wrong with the URL of a registry, as that will be wrong tomorrow too.
fn registry(entry: &Entry) -> Option<Problem> {
    let url = match &entry.value.value {
        Value::Map(_) => entry.value.get("url")?,
        Value::Plain(_) | Value::Quoted(_) | Value::List(_) => &entry.value,
    };
    let text = url.text()?;
    let wrong = text.parse::<RegistryUrl>().err()?.to_string();
    let (wrong, remedy) = wrong.split_once("; ").unwrap_or((&wrong, ""));
    let remedy = format!("{remedy}; the registry is not there yet, so list the endpoints under upstreams");
    Some(Problem::error(format!("{}: {wrong}", quoted(text)), remedy).at(&url.span))
}
