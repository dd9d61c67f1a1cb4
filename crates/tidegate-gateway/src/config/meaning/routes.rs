//! Routes: what they refer to, and which of them can never match.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tidegate::throttle::MAX_LIMITS;

use super::{super::suggest, Node, Problem, Value, entries, in_flight, not_zero, quoted};
use crate::{config::Match, route::Matcher};

/// Finds what is wrong with the routes, and what no route uses.
pub(super) fn check(root: &Node, problems: &mut Vec<Problem>) {
    let Some(routes) = root.get("routes") else { return };
    if matches!(&routes.value, Value::List(items) if items.is_empty()) {
        let problem = Problem::error("there are no routes", "add one: - upstream: NAME");
        problems.push(problem.at(&routes.span).of("routes"));
    }
    let mut used = Used::default();
    let known = |section| entries(root, section).iter().map(|entry| entry.key.as_str()).collect();
    let known = Known { upstreams: known("upstreams"), limits: known("limits") };
    for (n, route) in routes.items().iter().enumerate() {
        references(&known, n, route, &mut used, problems);
        claims(root, n, route, problems);
        let setting = format!("routes[{n}]");
        not_zero(route, "timeout", "write off for no limit", &setting, problems);
        in_flight::of_route(root, route, &setting, problems);
    }
    names(routes, problems);
    unreachable(routes, problems);
    used.report_others(root, problems);
}

/// The names that routes may refer to.
struct Known<'a> {
    upstreams: BTreeSet<&'a str>,
    limits: BTreeSet<&'a str>,
}

/// The names that routes refer to.
#[derive(Default)]
struct Used<'a> {
    upstreams: BTreeSet<&'a str>,
    limits: BTreeSet<&'a str>,
    /// Sections with a wrong reference: what nothing seems to use may be what was meant.
    doubtful: BTreeSet<&'static str>,
}

impl Used<'_> {
    fn report_others(&self, root: &Node, problems: &mut Vec<Problem>) {
        for (section, noun, used) in
            [("upstreams", "upstream", &self.upstreams), ("limits", "limit", &self.limits)]
        {
            if self.doubtful.contains(section) {
                continue;
            }
            for entry in entries(root, section).iter().filter(|entry| !used.contains(entry.key.as_str())) {
                let problem = Problem::warning(
                    format!("no route uses the {noun} {}", quoted(&entry.key)),
                    "name it in a route, or remove it",
                );
                problems.push(problem.at(&entry.key_span).of(section));
            }
        }
    }
}

fn references<'a>(
    known: &Known<'_>,
    n: usize,
    route: &'a Node,
    used: &mut Used<'a>,
    problems: &mut Vec<Problem>,
) {
    if route.get("upstream").is_none() {
        used.doubtful.insert("upstreams");
    }
    if let Some(node) = route.get("upstream")
        && let Some(name) = node.text()
    {
        used.upstreams.insert(name);
        if !known.upstreams.contains(name) {
            used.doubtful.insert("upstreams");
            let problem = unknown(&known.upstreams, "upstream", name, problems.len());
            problems.push(problem.at(&node.span).of(format!("routes[{n}].upstream")));
        }
    }
    if let Some(limits) = route.get("limits").filter(|limits| limits.items().len() > MAX_LIMITS) {
        let problem = Problem::error(
            format!(
                "{} limits on one route, and at most {MAX_LIMITS} are decided at once",
                limits.items().len()
            ),
            "remove some, or split the route",
        );
        problems.push(problem.at(&limits.span).of(format!("routes[{n}].limits")));
    }
    let mut seen = BTreeSet::new();
    for node in route.get("limits").map_or(&[][..], Node::items) {
        let Some(name) = node.text() else { continue };
        used.limits.insert(name);
        let setting = format!("routes[{n}].limits");
        if !seen.insert(name) {
            let problem = Problem::error(
                format!("the limit {} is named twice, so each call would count twice", quoted(name)),
                "remove one of them",
            );
            problems.push(problem.at(&node.span).of(setting));
        } else if !known.limits.contains(name) {
            used.doubtful.insert("limits");
            problems.push(unknown(&known.limits, "limit", name, problems.len()).at(&node.span).of(setting));
        }
    }
}

/// Without a session nobody has claims: all calls would share one counter, or one partition.
fn claims(root: &Node, n: usize, route: &Node, problems: &mut Vec<Problem>) {
    if route.get("session").is_some_and(|session| !session.is_null()) {
        return;
    }
    let named = |section, name: &str| entries(root, section).iter().find(|entry| entry.key == name);
    let is_claim = |node: &Node| node.text().is_some_and(|text| text.starts_with("claim:"));
    for node in route.get("limits").map_or(&[][..], Node::items) {
        let limit = node.text().and_then(|name| named("limits", name));
        let key = limit.and_then(|limit| limit.value.get("key")).map_or(&[][..], Node::items);
        if let Some(part) = key.iter().find(|part| is_claim(part)) {
            let what = quoted(part.text().unwrap_or_default());
            let problem = Problem::error(
                format!("this limit counts by {what}, and calls of this route have no user"),
                "add session: NAME to the route, or take the limit off it",
            );
            let problem = problem.at(&node.span).of(format!("routes[{n}].limits"));
            problems.push(problem.see(&part.span, "counted by"));
        }
    }
    let upstream = route.get("upstream").filter(|node| node.text().is_some());
    let by = upstream.and_then(|node| named("upstreams", node.text()?)).and_then(|upstream| {
        upstream.value.get("in_flight")?.get("partitions")?.get("by").filter(|by| is_claim(by))
    });
    if let (Some(upstream), Some(by)) = (upstream, by) {
        let problem = Problem::warning(
            "calls of this route have no user, so all of them are in the partition of others",
            "add session: NAME to the route, unless that is meant",
        );
        let problem = problem.at(&upstream.span).of(format!("routes[{n}].upstream"));
        problems.push(problem.see(&by.span, "told apart by"));
    }
}

fn unknown(known: &BTreeSet<&str>, noun: &str, name: &str, problems: usize) -> Problem {
    let remedy = if problems < suggest::MOST_SUGGESTED {
        suggest::remedy(name, noun, known.iter().copied())
    } else {
        format!("name a {noun} that there is")
    };
    Problem::error(format!("there is no {noun} {}", quoted(name)), remedy)
}

/// Two routes of one name could not be told apart in metrics.
fn names(routes: &Node, problems: &mut Vec<Problem>) {
    let mut seen: HashMap<&str, &std::ops::Range<usize>> = HashMap::new();
    for (n, route) in routes.items().iter().enumerate() {
        let Some(node) = route.get("name") else { continue };
        let Some(name) = node.text() else { continue };
        match seen.get(name) {
            Some(first) => {
                let problem = Problem::error(
                    format!("two routes are named {}", quoted(name)),
                    "give each a name of its own",
                );
                problems.push(problem.at(&node.span).of(format!("routes[{n}].name")).see(first, "the first"));
            }
            None => {
                seen.insert(name, &node.span);
            }
        }
    }
}

/// Most routes among which those that can never match are looked for. Default: 2000.
const MOST_COMPARED: usize = 2000;

/// Reports each route that another one covers and precedes.
fn unreachable(routes: &Node, problems: &mut Vec<Problem>) {
    let mut matchers: Vec<(usize, &Node, Matcher)> = Vec::new();
    for (n, route) in routes.items().iter().enumerate().take(MOST_COMPARED) {
        matchers.extend(matcher(route, n, problems).map(|matcher| (n, route, matcher)));
    }
    for (n, route, matcher) in &matchers {
        // Of equally specific routes, the one that stands first in the file is tried first.
        let winner = matchers.iter().find(|(m, _, other)| match m.cmp(n) {
            std::cmp::Ordering::Less => other.covers(matcher) && other.precedes(matcher),
            std::cmp::Ordering::Equal => false,
            std::cmp::Ordering::Greater => other.covers(matcher) && !matcher.precedes(other),
        });
        if let Some((first, winner, _)) = winner {
            let problem = Problem::error(
                format!("this route can never match: routes[{first}] takes every call that it would take"),
                "remove one of them, or make this one more specific",
            );
            let span = |route: &Node| {
                route.entry("match").map_or(route.span.clone(), |entry| entry.key_span.clone())
            };
            problems.push(
                problem.at(&span(route)).of(format!("routes[{n}]")).see(&span(winner), "takes them all"),
            );
        }
    }
}

/// The matcher of a route, if all its parts can be read. What headers are wrong is reported here; the schema's formats
/// report the rest.
fn matcher(route: &Node, n: usize, problems: &mut Vec<Problem>) -> Option<Matcher> {
    let Some(node) = route.get("match") else { return Matcher::new(&Match::default()).ok() };
    let text = |key: &str| node.get(key).and_then(Node::text).map(str::to_owned);
    let mut headers = BTreeMap::new();
    for entry in node.get("headers").map_or(&[][..], Node::entries) {
        let value = entry.value.text().unwrap_or_default();
        match Matcher::parse_header(&entry.key, value) {
            Ok(_) => {
                headers.insert(entry.key.clone(), value.to_owned());
            }
            Err(wrong) => {
                let wrong = wrong.to_string();
                let (message, remedy) = wrong.split_once("; ").unwrap_or((&wrong, ""));
                let message = message.trim_start_matches("not ");
                let problem = Problem::error(format!("{} is not {message}", quoted(&entry.key)), remedy);
                problems.push(problem.at(&entry.key_span).of(format!("routes[{n}].match.headers")));
            }
        }
    }
    let methods = node.get("methods").map_or(&[][..], Node::items);
    let methods = methods.iter().map(|method| method.text().map(str::to_owned)).collect::<Option<_>>()?;
    Matcher::new(&Match { host: text("host"), path: text("path"), methods, headers }).ok()
}
