//! Limits of calls in flight: which keys go together, and what would never take effect.

use super::{Entry, Node, Problem, entries, not_zero, parsed, quoted};
use crate::{
    config::defaults::{DEFAULT_MAX, DEFAULT_MIN, default_connections},
    in_flight::OTHER,
};

/// What says how many, of which exactly one is wanted.
const LIMITS: [&str; 3] = ["limit", "adaptive", "fleet"];
/// Most partitions of a limit, so that metrics stay readable and the next of them is found quickly.
const MOST_SHARES: usize = 64;

/// Checks the `in_flight` of an upstream.
pub(super) fn check(upstream: &Node, setting: &str, problems: &mut Vec<Problem>) {
    let Some(entry) = upstream.entry("in_flight").filter(|entry| !entry.value.is_null()) else { return };
    let (node, setting) = (&entry.value, format!("{setting}.in_flight"));
    let given: Vec<&Entry> = LIMITS.iter().filter_map(|key| given(node, key)).collect();
    match given.as_slice() {
        [] => {
            let problem = Problem::error(
                "nothing says how many calls may be in flight",
                "add limit: N, adaptive: gradient, fleet: N, or limit: off",
            );
            problems.push(problem.at(&entry.key_span).of(setting.as_str()));
        }
        [_] => {}
        [first, second, ..] => {
            let problem = Problem::error(
                format!("`{}` and `{}` both say how many calls may be in flight", first.key, second.key),
                "keep one of them",
            );
            problems
                .push(problem.at(&second.key_span).of(setting.as_str()).see(&first.key_span, "the other"));
        }
    }
    let mut checked = Checked { node, setting, problems };
    checked.adaptive();
    checked.partitions();
    checked.times();
    checked.room(upstream);
}

fn given<'a>(node: &'a Node, key: &str) -> Option<&'a Entry> {
    node.entry(key).filter(|entry| !entry.value.is_null())
}

struct Checked<'a> {
    node: &'a Node,
    setting: String,
    problems: &'a mut Vec<Problem>,
}

impl Checked<'_> {
    fn report(&mut self, problem: Problem, key: &str) {
        self.problems.push(problem.of(format!("{}.{key}", self.setting)));
    }

    /// The bounds and the latency of a law.
    fn adaptive(&mut self) {
        let node = self.node;
        let law = given(node, "adaptive");
        for key in ["min", "max", "latency"] {
            let Some(entry) = given(node, key).filter(|_| law.is_none()) else { continue };
            let problem = Problem::error(
                format!("`{key}` is for an adaptive limit, and this one is not"),
                format!("add adaptive: gradient in place of `limit`, or remove `{key}`"),
            );
            self.report(problem.at(&entry.key_span), key);
        }
        let Some(law) = law else { return };
        if let Some(entry) = given(node, "latency").filter(|_| law.value.text() != Some("aimd")) {
            let problem = Problem::error(
                "only `aimd` takes a latency bound: the other laws learn what latency is usual",
                "remove `latency`, or write adaptive: aimd",
            );
            self.report(problem.at(&entry.key_span), "latency");
        }
        let (min, max): (Option<u32>, Option<u32>) = (parsed(node, "min"), parsed(node, "max"));
        if let (Some(min), Some(max), Some(at)) = (min, max, node.get("min"))
            && min > max
        {
            let problem = Problem::error(
                format!("the least limit {min} is above the greatest, {max}"),
                "swap them, or write a lower `min`",
            );
            self.report(problem.at(&at.span), "min");
        }
        let least = min.unwrap_or(DEFAULT_MIN.min(max.unwrap_or(DEFAULT_MIN)));
        if least == max.unwrap_or(DEFAULT_MAX.max(least)) {
            let problem = Problem::warning(
                format!("a limit between {least} and {least} does not adapt"),
                format!("raise `max`, or write limit: {least}"),
            );
            self.report(problem.at(&law.value.span), "adaptive");
        }
    }

    fn partitions(&mut self) {
        let node = self.node;
        let Some(partitions) = given(node, "partitions") else { return };
        if given(node, "fleet").is_some() {
            let problem = Problem::error(
                "a limit over a fleet has no partitions",
                "remove `partitions`, or write limit: N in place of `fleet`",
            );
            self.report(problem.at(&partitions.key_span), "partitions");
        }
        if node.get("limit").and_then(Node::text) == Some("off") {
            let problem = Problem::error(
                "without a limit there is nothing to share",
                "remove `partitions`, or write limit: N",
            );
            self.report(problem.at(&partitions.key_span), "partitions");
        }
        let Some(shares) = partitions.value.entry("shares") else { return };
        let values = shares.value.entries();
        if values.is_empty() && !shares.value.is_null() {
            let problem = Problem::error("there are no shares", "add some, like { gold: 3, silver: 1 }");
            self.report(problem.at(&shares.key_span), "partitions.shares");
        }
        if values.len() > MOST_SHARES {
            let problem = Problem::error(
                format!("{} shares, and at most {MOST_SHARES} are told apart", values.len()),
                "leave the small ones to `other`",
            );
            self.report(problem.at(&shares.key_span), "partitions.shares");
        }
        for value in values {
            let fits = !value.key.is_empty() && value.key.len() <= 128 && value.key.bytes().all(visible);
            if !fits || value.key == OTHER {
                let problem = Problem::error(
                    format!("{} is not a value that a share can be for", quoted(&value.key)),
                    "write 1 to 128 printable ASCII characters; `other` is the share of the rest",
                );
                self.report(problem.at(&value.key_span), "partitions.shares");
            }
        }
    }

    fn times(&mut self) {
        let setting = self.setting.clone();
        for key in ["watch_held_longer_than", "idle_stream"] {
            not_zero(self.node, key, "write off for no limit", &setting, self.problems);
        }
        not_zero(self.node, "latency", "write a time that is not zero", &setting, self.problems);
    }

    /// Calls that no connection could carry.
    fn room(&mut self, upstream: &Node) {
        let endpoints = upstream.get("endpoints").map_or(0, |endpoints| endpoints.items().len());
        let connections = upstream.get("connections");
        let connections: u32 =
            connections.and_then(|node| parsed(node, "max")).unwrap_or(default_connections().get());
        let room = u64::from(connections) * endpoints as u64;
        if upstream.get("protocol").and_then(Node::text) != Some("http1") || room == 0 {
            return;
        }
        for key in ["limit", "max"] {
            let limit: Option<u32> = parsed(self.node, key);
            if let Some(limit) = limit
                && u64::from(limit) > room
                && let Some(at) = self.node.get(key)
            {
                let problem = Problem::warning(
                    format!(
                        "{limit} calls in flight do not fit into the {room} connections that HTTP/1.1 may open"
                    ),
                    "lower the limit or raise connections.max",
                );
                self.report(problem.at(&at.span), key);
            }
        }
    }
}

fn visible(byte: u8) -> bool {
    byte == b' ' || byte.is_ascii_graphic()
}

/// Checks the `in_flight` of a route.
pub(super) fn of_route(root: &Node, route: &Node, setting: &str, problems: &mut Vec<Problem>) {
    let Some(own) = route.get("in_flight") else { return };
    let setting = format!("{setting}.in_flight");
    not_zero(own, "watch_held_longer_than", "write off for no limit", &setting, problems);
    let upstream = route.get("upstream").and_then(Node::text);
    let upstream = entries(root, "upstreams").iter().find(|entry| Some(entry.key.as_str()) == upstream);
    let most = upstream.and_then(|entry| {
        let node = entry.value.get("in_flight")?;
        // Streams have a limit of their own, so a route may well have more calls than the upstream.
        ["limit", "max", "fleet"]
            .iter()
            .filter(|_| node.get("streams").is_none())
            .find_map(|key| parsed(node, key))
    });
    if let (Some(limit), Some(most), Some(at)) = (parsed::<u32>(own, "limit"), most, own.get("limit"))
        && limit > most
    {
        let problem = Problem::warning(
            format!("a limit of {limit} is never reached: the upstream admits {most} calls at once"),
            "lower it, or raise the upstream's",
        );
        problems.push(problem.at(&at.span).of(format!("{setting}.limit")));
    }
}
