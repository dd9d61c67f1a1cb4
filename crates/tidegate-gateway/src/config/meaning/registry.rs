//! The registry: settings that its URL has no use for, times out of range, and upstreams that need one.

use std::path::Path;

use tidegate_etcd::RegistryUrl;

use super::{
    DAY, Entry, HOUR, MILLISECOND, Node, Problem, SECOND, Value, client::secret, entries, time_within,
};

/// Where the URL stands.
fn url_of(registry: &Node) -> Option<&Node> {
    match &registry.value {
        Value::Map(_) => registry.get("url"),
        Value::Plain(_) | Value::Quoted(_) | Value::List(_) => Some(registry),
    }
}

/// Finds what is wrong with the registry, and with the upstreams that are looked up in it.
pub(super) fn check(root: &Node, base: &Path, problems: &mut Vec<Problem>) {
    let registry = root.get("registry").filter(|registry| !registry.is_null());
    let mut used = false;
    for entry in entries(root, "upstreams") {
        used |= upstream(entry, registry.is_some(), problems);
    }
    let Some(registry) = registry else { return };
    if let Some(entry) = root.entry("registry").filter(|_| !used) {
        let problem = Problem::warning(
            "no upstream is looked up in the registry",
            "write service: NAME in an upstream, in place of its endpoints, or remove the registry",
        );
        problems.push(problem.at(&entry.key_span).of("registry"));
    }
    times(registry, problems);
    let url: Option<RegistryUrl> = url_of(registry).and_then(Node::text).and_then(|text| text.parse().ok());
    let Some(url) = url else { return };
    let given = |key: &str| registry.entry(key).filter(|entry| !entry.value.is_null());
    match &url {
        RegistryUrl::Etcd { tls, credentials, .. } => {
            if let Some(password) = given("password") {
                secret(&password.value, "registry.password", base, problems);
            }
            if let (Some(password), Some(_)) = (given("password"), credentials) {
                let problem = Problem::error(
                    "the URL of the registry has a password as well",
                    "remove user:password@ from the URL, or remove `password`",
                );
                problems.push(problem.at(&password.key_span).of("registry.password"));
            }
            for (one, other, add) in
                [("user", "password", "add password: { env: NAME }"), ("password", "user", "add user: NAME")]
            {
                if let (Some(one_given), None, None) = (given(one), given(other), credentials) {
                    let problem = Problem::error(format!("there is a `{one}` without a `{other}`"), add);
                    problems.push(problem.at(&one_given.key_span).of(format!("registry.{one}")));
                }
            }
            if let Some(given) = given("tls").filter(|_| !*tls) {
                let problem = Problem::error(
                    "the registry is not reached over TLS, so `tls` has no use",
                    "begin its URL with etcds, or remove `tls`",
                );
                problems.push(problem.at(&given.key_span).of("registry.tls"));
            }
        }
        RegistryUrl::File(_) | RegistryUrl::Dns(_) | RegistryUrl::Srv { .. } => {
            for unused in ["layout", "user", "password", "tls", "clients"].into_iter().filter_map(given) {
                let problem = Problem::error(
                    format!("`{}` is a setting of etcd, and this registry is none", unused.key),
                    "remove it, or write url: etcd://host:2379",
                );
                problems.push(problem.at(&unused.key_span).of(format!("registry.{}", unused.key)));
            }
        }
    }
}

fn times(registry: &Node, problems: &mut Vec<Problem>) {
    for (key, least, most, remedy) in [
        ("ttl", SECOND, DAY, "write 1s to 24h, like 60s"),
        ("grace", MILLISECOND, HOUR, "write 1ms to 1h, like 30s"),
        ("minimum_retry_interval", MILLISECOND, HOUR, "write 1ms to 1h, like 5s"),
        ("timeout", MILLISECOND, HOUR, "write 1ms to 1h, like 5s"),
    ] {
        time_within((registry, key), least..=most, remedy, "registry", problems);
    }
}

/// Whether it is looked up in the registry.
fn upstream(entry: &Entry, registry: bool, problems: &mut Vec<Problem>) -> bool {
    let setting = |key: &str| format!("upstreams.{}.{key}", entry.key.escape_debug());
    let given = |key: &str| entry.value.entry(key).filter(|entry| !entry.value.is_null());
    let (endpoints, service) = (given("endpoints"), given("service"));
    match (endpoints, service) {
        // What was meant may stand under a name that is reported already.
        (None, None) => {
            let known = |entry: &Entry| !matches!(entry.key.as_str(), "endpoint" | "services");
            if entry.value.entries().iter().all(known) {
                let problem = Problem::error(
                    "it has neither `endpoints` nor a `service`",
                    "add endpoints: [http://127.0.0.1:9001], or service: NAME with a registry",
                );
                problems
                    .push(problem.at(&entry.key_span).of(format!("upstreams.{}", entry.key.escape_debug())));
            }
        }
        (Some(_), Some(service)) => {
            let problem = Problem::error(
                "there are `endpoints` as well as a `service`",
                "remove one of them: endpoints are listed here or looked up in the registry",
            );
            problems.push(problem.at(&service.key_span).of(setting("service")));
        }
        (None, Some(service)) if !registry => {
            let problem = Problem::error(
                "there is no registry to look the service up in",
                "add registry: etcd://host:2379 at the top, or list endpoints: [http://host:port]",
            );
            problems.push(problem.at(&service.key_span).of(setting("service")));
        }
        (None | Some(_), _) => {}
    }
    service.is_some()
}
