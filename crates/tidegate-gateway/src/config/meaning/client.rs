//! A client of an identity provider, wherever the configuration has one: who it is, what proves that, what its tokens are
//! bound to.

use std::{ops::RangeInclusive, path::Path, time::Duration};

use tidegate::Secret;

use super::{
    super::{
        secret::{NoSecret, SecretSetting},
        token::{Percent, issuer},
    },
    Entry, GRANT_TIMES, Node, Problem, not_zero, parsed, quoted, time_within,
};
use crate::oidc::{binding, jose::SigningKey, provider::is_allowed};

/// How early a token may be renewed.
const REFRESH_BEFORE: RangeInclusive<u8> = 5..=90;
/// How to make a key that tokens are bound to.
const MAKE_A_KEY: &str = "make one with openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out dpop.pem, and add \
                          key: { file: dpop.pem }";

/// A client, as an entry of a section says it.
pub(super) struct Client<'a> {
    pub(super) entry: &'a Entry,
    pub(super) node: &'a Node,
    /// Where it stands, like `tokens.billing`.
    pub(super) setting: String,
    pub(super) problems: &'a mut Vec<Problem>,
}

/// Whether tokens outlive the gateway that asked for them, or are used by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Live {
    /// They end with it.
    Here,
    /// They stand in a store that gateways share.
    InStore,
    /// They stand in a file.
    InFile,
}

impl<'a> Client<'a> {
    pub(super) fn new(section: &str, entry: &'a Entry, problems: &'a mut Vec<Problem>) -> Self {
        let setting = format!("{section}.{}", entry.key.escape_debug());
        Self { entry, node: &entry.value, setting, problems }
    }

    /// What is the same for all clients.
    pub(super) fn check(&mut self, base: &Path, open_for: (RangeInclusive<Duration>, &str)) {
        self.urls();
        self.proof();
        if self.node.get("client_id").and_then(Node::text).is_some_and(|id| id.trim().is_empty()) {
            self.wrong("client_id", "the client has no name", "write its id, as the provider knows it");
        }
        if let Some(node) = self.node.get("client_secret") {
            secret(node, &format!("{}.client_secret", self.setting), base, self.problems);
        }
        self.signing_key(base);
        not_zero(
            self.node,
            "max_wait",
            "write a time that is not zero, like 5s",
            &self.setting,
            self.problems,
        );
        for (key, range, remedy) in
            [("timeout", GRANT_TIMES, "write 10ms to 10m, like 30s"), ("open_for", open_for.0, open_for.1)]
        {
            time_within((self.node, key), range, remedy, &self.setting, self.problems);
        }
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
            let message = format!("`{auth}` has nothing to prove the client by");
            self.wrong("auth", message, format!("add {needed}"));
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

    /// What signs assertions, where it is what proves the client.
    fn signing_key(&mut self, base: &Path) {
        let Some(node) = self.node.get("key") else { return };
        let Some(key) = secret(node, &format!("{}.key", self.setting), base, self.problems) else { return };
        let text = |key: &str| self.node.get(key).and_then(Node::text);
        let algorithm = text("algorithm").and_then(|text| text.parse().ok());
        if !matches!(text("auth"), None | Some("private_key_jwt")) {
            return;
        }
        if let Err(wrong) = SigningKey::from_pem(key.expose().as_bytes(), algorithm, None) {
            let said = wrong.to_string();
            let (message, remedy) = said.split_once("; ").unwrap_or((&said, ""));
            self.wrong("key", message, remedy);
        }
    }

    /// What tokens are bound to: a key that lives as long as they do, everywhere they are used.
    pub(super) fn dpop(&mut self, base: &Path, live: Live) {
        let Some(dpop) = self.given("dpop") else { return };
        let setting = format!("{}.dpop", self.setting);
        if let Some(node) = dpop.value.get("key").filter(|node| !node.is_null()) {
            let setting = format!("{setting}.key");
            if let Some(Err(wrong)) =
                secret(node, &setting, base, self.problems).map(|key| binding::dpop(&key))
            {
                let said = wrong.to_string();
                let (message, remedy) = said.split_once("; ").unwrap_or((&said, ""));
                self.problems.push(Problem::error(message, remedy).at(&node.span).of(setting));
            }
            return;
        }
        let message = match live {
            Live::Here => return,
            Live::InStore => {
                "tokens are shared in the `store`, and each gateway would bind them to a key that the others have not"
            }
            Live::InFile => {
                "sessions are kept in a `file`, and the key that their tokens are bound to would be gone"
            }
        };
        self.problems.push(Problem::error(message, MAKE_A_KEY).at(&dpop.key_span).of(setting));
    }

    fn given(&self, key: &str) -> Option<&'a Entry> {
        self.node.entry(key).filter(|entry| !entry.value.is_null())
    }

    pub(super) fn wrong(&mut self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
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

/// Files must be there and be read; a variable may well be set where the gateway runs and not here.
pub(super) fn secret(node: &Node, setting: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Secret> {
    let text = |kind: &str| node.get(kind).and_then(Node::text).map(str::to_owned);
    let place = match (text("file"), text("env")) {
        (Some(path), None) => SecretSetting::File(path.into()),
        (None, Some(name)) => SecretSetting::Env(name),
        _ => return None,
    };
    let wrong = match place.read(base) {
        Ok(secret) => return Some(secret),
        Err(wrong) => wrong,
    };
    let said = wrong.to_string();
    let (message, remedy) = said.split_once("; ").unwrap_or((&said, ""));
    let problem = match wrong {
        NoSecret::Env(_) => Problem::warning(message, "set it where the gateway runs, or name another one"),
        NoSecret::File { .. } | NoSecret::Empty(_) => Problem::error(message, remedy),
    };
    problems.push(problem.at(&node.span).of(setting));
    None
}
