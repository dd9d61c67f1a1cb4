//! The store: settings that its URL has no use for, and credentials given twice.

use std::path::Path;

use tidegate_redis::StoreUrl;

use super::{Node, Problem, Value, client::secret, not_zero};
use crate::store::long_enough;

/// The place of the store's URL.
pub(super) fn url(root: &Node) -> Option<&Node> {
    let store = root.get("store")?;
    match &store.value {
        Value::Map(_) => store.get("url"),
        Value::Plain(_) | Value::Quoted(_) | Value::List(_) => Some(store),
    }
}

/// Whether gateways share it.
pub(super) fn is_shared(root: &Node) -> bool {
    url(root).is_some_and(|url| url.text() != Some(super::MEMORY))
}

/// Finds what is wrong with the store.
pub(super) fn check(root: &Node, base: &Path, problems: &mut Vec<Problem>) {
    let Some(store) = root.get("store").filter(|store| matches!(store.value, Value::Map(_))) else { return };
    not_zero(store, "deadline", "write a time that is not zero, like 50ms", "store", problems);
    let given = |key: &str| store.entry(key).filter(|entry| !entry.value.is_null());
    let url: Option<StoreUrl> = url(root).and_then(Node::text).and_then(|text| text.parse().ok());
    if let (Some(user), None) = (given("user"), given("password")) {
        let problem = Problem::error("there is a `user` without a `password`", "add password: { env: NAME }");
        problems.push(problem.at(&user.key_span).of("store.user"));
    }
    let Some(url) = url else {
        if let Some(unused) = ["user", "password", "key_secret", "tls"].into_iter().find_map(given)
            && self::url(root).is_none_or(|url| url.text() == Some(super::MEMORY))
        {
            let problem = Problem::error(
                format!("a store in memory has no `{}`", unused.key),
                "remove it, or write url: redis://host:6379/0",
            );
            problems.push(problem.at(&unused.key_span).of(format!("store.{}", unused.key)));
        }
        return;
    };
    if let Some(password) = given("password") {
        secret(&password.value, "store.password", base, problems);
    }
    if let Some(key) = given("key_secret")
        && let Some(Err(short)) =
            secret(&key.value, "store.key_secret", base, problems).map(|secret| long_enough(&secret))
    {
        let said = short.to_string();
        let said = said.trim_start_matches("store.key_secret: ");
        let (message, remedy) = said.split_once("; ").unwrap_or((said, ""));
        problems.push(Problem::error(message, remedy).at(&key.value.span).of("store.key_secret"));
    }
    if let (Some(password), Some(_)) = (given("password"), &url.credentials) {
        let problem = Problem::error(
            "the URL of the store has a password as well",
            "remove user:password@ from the URL, or remove `password`",
        );
        problems.push(problem.at(&password.key_span).of("store.password"));
    }
    if let Some(tls) = given("tls").filter(|_| !url.tls) {
        let problem = Problem::error(
            "the store is not reached over TLS, so `tls` has no use",
            "begin its URL with rediss, or remove `tls`",
        );
        problems.push(problem.at(&tls.key_span).of("store.tls"));
    }
}
