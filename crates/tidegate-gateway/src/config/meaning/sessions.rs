//! Browser sessions: keys, pages, who the client is, and names that refer to nothing.

use std::{collections::HashMap, num::NonZeroU32, path::Path};

use super::{
    super::{
        defaults::{default_callback, default_logout},
        formats,
        session::page_below,
    },
    DAY, Entry, GRANT_TIMES, Named, Node, Problem, SECOND,
    client::{Client, Live, secret},
    entries, not_zero, parsed, quoted, store, time_within,
};
use crate::oidc::{http::MOST_GRANTS, session::KeyRing};

const SESSIONS: Named = Named { section: "sessions", noun: "session", user: "route", in_one: "a route" };

/// Finds what is wrong with the sessions, and with what routes say of them.
pub(super) fn check(root: &Node, base: &Path, problems: &mut Vec<Problem>) {
    let mut pages: HashMap<String, &Entry> = HashMap::new();
    let mut files: HashMap<&str, &Entry> = HashMap::new();
    let shared = store::is_shared(root);
    for entry in entries(root, "sessions") {
        let setting = format!("sessions.{}", entry.key.escape_debug());
        let mut client = Client::new("sessions", entry, problems);
        client.check(base, (GRANT_TIMES, "write 10ms to 10m, like 30s"));
        let file = entry.value.get("file").and_then(Node::text);
        client.dpop(
            base,
            match file {
                _ if shared => Live::InStore,
                Some(_) => Live::InFile,
                None => Live::Here,
            },
        );
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
    let allow_http = node.get("allow_http").and_then(Node::text) == Some("true");
    let mut wrong = |key: &str, message: String, remedy: &str| {
        let span = node.get(key).map_or(&entry.key_span, |node| &node.span);
        problems.push(Problem::error(message, remedy).at(span).of(format!("{setting}.{key}")));
    };
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
    not_zero(node, "absolute", "write a time that is not zero, like 24h", setting, problems);
    for (key, range, remedy) in [
        ("idle", SECOND..=366 * DAY, "write 1s to 366d, like 8h"),
        ("reuse_window", SECOND..=DAY, "write 1s to 1d, like 30s"),
    ] {
        time_within((node, key), range, remedy, setting, problems);
    }
}
