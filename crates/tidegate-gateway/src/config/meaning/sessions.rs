//! Browser sessions: keys, pages, who the client is, and names that refer to nothing.

use std::{collections::HashMap, num::NonZeroU32, path::Path};

use super::{
    super::{
        defaults::{default_callback, default_logout},
        formats,
        secret::{NoSecret, SecretSetting},
        session::page_below,
        token::{Percent, issuer},
    },
    DAY, Entry, GRANT_TIMES, Named, Node, Problem, SECOND, entries, not_zero, parsed, quoted, time_within,
};
use crate::oidc::{http::MOST_GRANTS, provider::is_allowed, session::KeyRing};

const SESSIONS: Named = Named { section: "sessions", noun: "session", user: "route", in_one: "a route" };

/// Finds what is wrong with the sessions, and with what routes say of them.
pub(super) fn check(root: &Node, base: &Path, problems: &mut Vec<Problem>) {
    let mut pages: HashMap<String, &Entry> = HashMap::new();
    let mut files: HashMap<&str, &Entry> = HashMap::new();
    let shared = super::store::url(root).is_some_and(|url| url.text() != Some(super::MEMORY));
    for entry in entries(root, "sessions") {
        let setting = format!("sessions.{}", entry.key.escape_debug());
        one(entry, &setting, base, problems);
        if let Some(node) = entry.value.get("file")
            && let Some(file) = node.text()
        {
            let problem = if shared {
                Some(Problem::warning("the sessions are in the `store`, so `file` has no use", "remove it"))
            } else {
                files.insert(file, entry).map(|first| {
                    let message = format!("two sessions are kept in {}", quoted(file));
                    Problem::error(message, "give each a file of its own").see(&first.key_span, "the first")
                })
            };
            problems.extend(problem.map(|problem| problem.at(&node.span).of(format!("{setting}.file"))));
        }
        let at =
            |key: &str, usual: String| entry.value.get(key).and_then(Node::text).map_or(usual, str::to_owned);
        let logout = at("logout", default_logout());
        let below = |key: &str, below: &str| at(key, page_below(&None, &logout, below).into_owned());
        let backchannel = below("backchannel_logout", "backchannel");
        let frontchannel = below("frontchannel_logout", "frontchannel");
        for page in [at("callback", default_callback()), logout.clone(), backchannel, frontchannel] {
            if let Some(first) = pages.insert(page.clone(), entry) {
                let problem = Problem::error(
                    format!("two pages of sessions stand at {}", quoted(&page)),
                    "give each session a callback and logouts of its own",
                );
                problems.push(problem.at(&entry.key_span).of(&setting[..]).see(&first.key_span, "the first"));
            }
        }
    }
    let routes = root.get("routes").map_or(&[][..], Node::items).iter().enumerate();
    let uses = routes.filter_map(|(n, route)| Some((route.get("session")?, format!("routes[{n}].session"))));
    SESSIONS.references(root, uses, problems);
}

fn one(entry: &Entry, setting: &str, base: &Path, problems: &mut Vec<Problem>) {
    let node = &entry.value;
    let given = |key: &str| node.entry(key).filter(|entry| !entry.value.is_null());
    let allow_http = node.get("allow_http").and_then(Node::text) == Some("true");
    let mut wrong = |key: &str, message: String, remedy: &str| {
        let span = node.get(key).map_or(&entry.key_span, |node| &node.span);
        problems.push(Problem::error(message, remedy).at(span).of(format!("{setting}.{key}")));
    };
    if let Some(text) = node.get("issuer").and_then(Node::text)
        && let Ok(url) = issuer(text)
        && !is_allowed(&url, allow_http)
    {
        let remedy = "write https://, or, on loopback for a test, add allow_http: true";
        wrong("issuer", format!("{} is plain HTTP, which shows secrets", quoted(text)), remedy);
    }
    let has = |key: &str| given(key).is_some();
    let cert = node.get("tls").and_then(|tls| tls.get("cert")).is_some_and(|cert| !cert.is_null());
    if !has("auth") && !has("client_secret") && !has("key") && !cert {
        let remedy = "add client_secret: { env: NAME }, key: { file: PATH } or tls: { cert: PATH, key: PATH }; or auth: none";
        wrong("client_id", "nothing proves who the client is".into(), remedy);
    }
    if let Some(auth @ ("tls_client_auth" | "self_signed_tls_client_auth")) =
        node.get("auth").and_then(Node::text)
        && !cert
    {
        let message = format!("`{auth}` has nothing to prove the client by");
        wrong("auth", message, "add tls: { cert: PATH, key: PATH }");
    }
    if node.get("keys").is_some_and(|keys| keys.items().is_empty() && !keys.is_null()) {
        let remedy = "make one with openssl rand -base64 32 > session.key, and write [{ file: session.key }]";
        wrong("keys", "there are no keys, and none is made up".into(), remedy);
    }
    if let Some(cookie) = node.get("cookie").and_then(Node::text)
        && allow_http
        && (cookie.starts_with("__Host-") || cookie.starts_with("__Secure-"))
    {
        wrong(
            "cookie",
            "browsers take such a cookie over TLS only".into(),
            "write a plain name, like tidegate",
        );
    }
    let scopes = node.get("scopes").map(|scopes| scopes.items().iter().filter_map(Node::text));
    if let Some(mut scopes) = scopes
        && !scopes.any(|scope| scope == "openid")
    {
        wrong("scopes", "without `openid` nobody says who the user is".into(), "add openid");
    }
    let percent: Option<Percent> = parsed(node, "refresh_before");
    if let Some(percent) = percent.filter(|percent| !(5..=90).contains(&percent.0)) {
        let message = format!("{percent} of its life is too much or too little to refresh a token in");
        wrong("refresh_before", message, "write 5% to 90%; most providers are served well by 20%");
    }
    let grants: Option<NonZeroU32> = parsed(node, "grants");
    if let Some(grants) = grants.filter(|grants| grants.get() > MOST_GRANTS) {
        let message = format!("{grants} refreshes at once are more than a provider has connections for");
        wrong("grants", message, "write 1 to 100; what comes beyond that waits in line");
    }
    for header in node.get("headers").map_or(&[][..], Node::entries) {
        if let Err(bad) = formats::claim_field(&header.key) {
            problems.push(
                Problem::error(bad.message, bad.remedy).at(&header.key_span).of(format!("{setting}.headers")),
            );
        }
    }
    for key in ["client_secret", "key"] {
        if let Some(node) = node.get(key) {
            secret(node, &format!("{setting}.{key}"), base, problems);
        }
    }
    for key in node.get("keys").map_or(&[][..], Node::items) {
        let setting = format!("{setting}.keys");
        if let Some(text) = secret(key, &setting, base, problems)
            && let Err(bad) = KeyRing::new(&[text])
        {
            let said = bad.to_string();
            let (message, remedy) = said.split_once("; ").unwrap_or((&said, ""));
            problems.push(Problem::error(message, remedy).at(&key.span).of(setting));
        }
    }
    for key in ["absolute", "max_wait"] {
        not_zero(node, key, "write a time that is not zero, like 30s", setting, problems);
    }
    for (key, range, remedy) in [
        ("idle", SECOND..=366 * DAY, "write 1s to 366d, like 8h"),
        ("reuse_window", SECOND..=DAY, "write 1s to 1d, like 30s"),
        ("open_for", GRANT_TIMES, "write 10ms to 10m, like 30s"),
        ("timeout", GRANT_TIMES, "write 10ms to 10m, like 30s"),
    ] {
        time_within((node, key), range, remedy, setting, problems);
    }
}

/// Files must be there and be read; a variable may well be set where the gateway runs and not here.
fn secret(node: &Node, setting: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<tidegate::Secret> {
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
