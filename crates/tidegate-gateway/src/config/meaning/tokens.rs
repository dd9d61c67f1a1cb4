//! Access tokens for upstreams: what proves who the client is, and names that refer to nothing.

use std::{path::Path, time::Duration};

use super::{
    super::{
        secret::{NoSecret, SecretSetting},
        token::{Percent, issuer},
    },
    Entry, GRANT_TIMES, Named, Node, Problem, entries, not_zero, parsed, quoted, time_within,
};
use crate::oidc::provider::is_allowed;

/// How long a provider that does not answer may be left alone.
const REST_TIMES: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60 * 60);
/// How early a token may be renewed.
const REFRESH_BEFORE: std::ops::RangeInclusive<u8> = 5..=90;

const TOKENS: Named = Named { section: "tokens", noun: "token", user: "upstream", in_one: "an upstream" };

/// Finds what is wrong with the tokens, and with what upstreams say of them.
pub(super) fn check(root: &Node, base: &Path, problems: &mut Vec<Problem>) {
    for entry in entries(root, "tokens") {
        let setting = format!("tokens.{}", entry.key.escape_debug());
        Token { node: &entry.value, entry, setting, problems }.check(base);
    }
    let uses = entries(root, "upstreams").iter().filter_map(|upstream| {
        Some((upstream.value.get("token")?, format!("upstreams.{}.token", upstream.key.escape_debug())))
    });
    TOKENS.references(root, uses, problems);
}

struct Token<'a> {
    node: &'a Node,
    entry: &'a Entry,
    setting: String,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Token<'a> {
    fn check(mut self, base: &Path) {
        self.urls();
        self.proof();
        for key in ["client_secret", "key"] {
            self.secret(key, base);
        }
        for key in ["default_life", "max_wait"] {
            not_zero(self.node, key, "write a time that is not zero, like 5s", &self.setting, self.problems);
        }
        time_within(
            (self.node, "timeout"),
            GRANT_TIMES,
            "write 10ms to 10m, like 30s",
            &self.setting,
            self.problems,
        );
        time_within(
            (self.node, "open_for"),
            REST_TIMES,
            "write 10ms to 1h, like 30s",
            &self.setting,
            self.problems,
        );
        let percent: Option<Percent> = parsed(self.node, "refresh_before");
        if let Some(percent) = percent.filter(|percent| !REFRESH_BEFORE.contains(&percent.0)) {
            self.wrong(
                "refresh_before",
                format!("{percent} of its life is too much or too little to renew a token in"),
                "write 5% to 90%; most providers are served well by 20%",
            );
        }
        if self.given("key").is_none() {
            for key in ["key_id", "algorithm"] {
                self.useless(key, "there is no `key` that it could be about", "add key: { file: PATH }");
            }
        }
    }

    fn urls(&mut self) {
        let allow_http = self.node.get("allow_http").and_then(Node::text) == Some("true");
        for key in ["issuer", "endpoint"] {
            let Some(text) = self.node.get(key).and_then(Node::text) else { continue };
            let Ok(url) = issuer(text) else { continue };
            if is_allowed(&url, allow_http) {
                continue;
            }
            let (what, remedy) = if is_allowed(&url, true) {
                ("is plain HTTP, which shows secrets", "write https://, or add allow_http: true for a test")
            } else {
                ("is plain HTTP to another machine, which shows secrets to the network", "write https://")
            };
            self.wrong(key, format!("{} {what}", quoted(text)), remedy);
        }
    }

    /// What proves who the client is.
    fn proof(&mut self) {
        let has = |key: &str| self.given(key).is_some();
        let (secret, key) = (has("client_secret"), has("key"));
        let cert = self.node.get("tls").and_then(|tls| tls.get("cert")).is_some_and(|cert| !cert.is_null());
        let auth = self.node.get("auth").and_then(Node::text);
        let (needed, there) = match auth {
            Some("client_secret_basic" | "client_secret_post") => ("client_secret: { env: NAME }", secret),
            Some("private_key_jwt") => ("key: { file: PATH }", key),
            Some("tls_client_auth" | "self_signed_tls_client_auth") => {
                ("tls: { cert: PATH, key: PATH }", cert)
            }
            _ => ("", true),
        };
        if let (Some(auth), false) = (auth, there) {
            self.wrong(
                "auth",
                format!("`{auth}` has nothing to prove the client by"),
                format!("add {needed}"),
            );
        }
        if auth.is_none() && !secret && !key && !cert {
            let problem = Problem::error(
                "nothing proves who the client is",
                "add client_secret: { env: NAME }, key: { file: PATH } or tls: { cert: PATH, key: PATH }; or auth: none",
            );
            self.problems.push(problem.at(&self.entry.key_span).of(self.setting.as_str()));
        }
        if auth.is_none() && secret && key {
            self.wrong_key(
                "key",
                "there are a `client_secret` and a `key`, and no word on which of them counts",
                "remove one of them, or add auth: private_key_jwt",
            );
        }
        let without_secret = ["private_key_jwt", "none", "tls_client_auth", "self_signed_tls_client_auth"];
        if let Some(auth) = auth.filter(|auth| without_secret.contains(auth)) {
            self.useless("client_secret", &format!("`{auth}` has no use for it"), "remove it");
        }
    }

    /// Files must be there and be read; a variable may well be set where the gateway runs and not here.
    fn secret(&mut self, key: &'static str, base: &Path) {
        let Some(node) = self.node.get(key) else { return };
        let text = |kind: &str| node.get(kind).and_then(Node::text).map(str::to_owned);
        let setting = match (text("file"), text("env")) {
            (Some(path), None) => SecretSetting::File(path.into()),
            (None, Some(name)) => SecretSetting::Env(name),
            _ => return,
        };
        let Err(wrong) = setting.read(base) else { return };
        let said = wrong.to_string();
        let (message, remedy) = said.split_once("; ").unwrap_or((&said, ""));
        let problem = match wrong {
            NoSecret::Env(_) => {
                Problem::warning(message, "set it where the gateway runs, or name another one")
            }
            NoSecret::File { .. } | NoSecret::Empty(_) => Problem::error(message, remedy),
        };
        self.problems.push(problem.at(&node.span).of(format!("{}.{key}", self.setting)));
    }

    fn given(&self, key: &str) -> Option<&'a Entry> {
        self.node.entry(key).filter(|entry| !entry.value.is_null())
    }

    fn wrong(&mut self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        if let Some(node) = self.node.get(key) {
            let problem = Problem::error(message, remedy);
            self.problems.push(problem.at(&node.span).of(format!("{}.{key}", self.setting)));
        }
    }

    fn wrong_key(&mut self, key: &str, message: &str, remedy: &str) {
        if let Some(entry) = self.given(key) {
            let problem = Problem::error(message, remedy);
            self.problems.push(problem.at(&entry.key_span).of(format!("{}.{key}", self.setting)));
        }
    }

    fn useless(&mut self, key: &str, why: &str, remedy: &str) {
        let message = format!("`{key}` is given, and {why}");
        self.wrong_key(key, &message, remedy);
    }
}
