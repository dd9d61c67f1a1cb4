//! Limits: what excludes what, and amounts that make no sense together.

use std::collections::HashSet;

use tidegate_core::{
    Rate,
    ledger::{MAX_LIFE, MIN_LIFE},
};

use super::{
    super::{calendar::CalendarQuota, store::MEMORY, units::HumanDuration},
    Node, Problem, entries, not_zero, parsed, quoted,
    tree::Entry,
};

/// Finds what is wrong with the limits.
pub(super) fn check(root: &Node, problems: &mut Vec<Problem>) {
    let memory = super::store::url(root).is_none_or(|url| url.text() == Some(MEMORY));
    for entry in entries(root, "limits") {
        let limit = Limit {
            node: &entry.value,
            entry,
            setting: format!("limits.{}", entry.key.escape_debug()),
            problems,
        };
        limit.check(memory);
    }
}

struct Limit<'a> {
    node: &'a Node,
    entry: &'a Entry,
    setting: String,
    problems: &'a mut Vec<Problem>,
}

impl Limit<'_> {
    fn check(mut self, memory: bool) {
        self.amount();
        self.algorithm();
        self.cost(memory);
        self.keys();
        for key in ["prohibit", "lease"] {
            not_zero(self.node, key, "write a time that is not zero", &self.setting, self.problems);
        }
        let lease = parsed::<HumanDuration>(self.node, "lease").map(|lease| *lease);
        if let Some(at) = self.node.get("lease")
            && lease.is_some_and(|lease| !lease.is_zero() && !(MIN_LIFE..=MAX_LIFE).contains(&lease))
        {
            let problem = Problem::error(
                "credit can not live for so long or so short",
                "write 10ms to 1h; most limits are served well by the default",
            );
            let problem = problem.at(&at.span);
            self.report(problem, "lease");
        }
        if let Some(aside) = self.given("aside")
            && self.given("on_store_failure").and_then(|entry| entry.value.text()) != Some("share")
        {
            let problem = Problem::error(
                "nothing is set `aside` unless it is shared out when the store fails",
                "write on_store_failure: share, or remove `aside`",
            );
            let problem = problem.at(&aside.key_span);
            self.report(problem, "aside");
        }
        if memory && let Some(lease) = self.given("lease") {
            let problem =
                Problem::warning("a store in memory gives no credit, so `lease` has no use", "remove it");
            self.report(problem.at(&lease.key_span), "lease");
        }
    }

    fn given(&self, key: &str) -> Option<&Entry> {
        self.node.entry(key).filter(|entry| !entry.value.is_null())
    }

    fn report(&mut self, problem: Problem, key: &str) {
        self.problems.push(problem.of(format!("{}.{key}", self.setting)));
    }

    fn amount(&mut self) {
        match (self.given("rate"), self.given("quota")) {
            (Some(_), Some(quota)) => {
                let problem =
                    Problem::error("a limit has a `rate` or a `quota`, not both", "make two limits of it");
                let problem = problem.at(&quota.key_span);
                self.report(problem, "quota");
            }
            (None, None) if self.node.entries().is_empty() || self.node.entry("rate").is_none() => {
                let problem = Problem::error(
                    "`rate` is missing",
                    "add rate: 100/s, or quota: 50000/month for a calendar period",
                );
                self.problems.push(problem.at(&self.entry.key_span).of(self.setting.as_str()));
            }
            (None, None) => {
                let problem = Problem::error("a value is missing", "write one, like 100/s, or a `quota`");
                self.problems.push(problem.at(&self.entry.key_span).of(format!("{}.rate", self.setting)));
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        for (key, is_zero) in [
            ("rate", parsed::<Rate>(self.node, "rate").is_some_and(|rate| rate.count() == 0)),
            ("quota", parsed::<CalendarQuota>(self.node, "quota").is_some_and(|quota| quota.count == 0)),
        ] {
            if let Some(node) = self.node.get(key).filter(|_| is_zero) {
                let problem = Problem::warning(
                    format!("a {key} of 0 refuses every call"),
                    "raise it, unless that is meant",
                );
                let problem = problem.at(&node.span);
                self.report(problem, key);
            }
        }
    }

    fn algorithm(&mut self) {
        let algorithm = self.given("algorithm").and_then(|entry| entry.value.text()).map(str::to_owned);
        let calendar = self.given("quota").is_some();
        if calendar
            && let Some(entry) =
                self.given("algorithm").filter(|_| algorithm.as_deref() != Some("fixed-window"))
        {
            let problem = Problem::error(
                "a quota of a calendar period is a fixed-window",
                "remove `algorithm`, or write a rate in place of the quota",
            );
            let problem = problem.at(&entry.key_span);
            self.report(problem, "algorithm");
        }
        let windowed = match algorithm.as_deref() {
            Some(windowed @ ("fixed-window" | "sliding-window")) => Some(windowed),
            _ if calendar => Some("quota"),
            _ => None,
        };
        if let (Some(windowed), Some(burst)) = (windowed, self.given("burst")) {
            let (amount, remedy) = if calendar {
                ("quota", "remove `burst`, or write a rate in place of the quota")
            } else {
                ("rate", "remove `burst`, or write algorithm: token-bucket")
            };
            let problem = Problem::error(
                format!("a {windowed} has no burst: it admits the count of `{amount}` in any order"),
                remedy,
            );
            let problem = problem.at(&burst.key_span);
            self.report(problem, "burst");
        }
        if let Some(window) = self.given("window") {
            let wrong = if calendar {
                Some(("a quota of a calendar period begins by the calendar", "remove `window`"))
            } else if algorithm.as_deref() == Some("fixed-window") {
                None
            } else {
                Some(("only a fixed-window has a `window`", "remove it, or write algorithm: fixed-window"))
            };
            if let Some((message, remedy)) = wrong {
                let problem = Problem::error(message, remedy).at(&window.key_span);
                self.report(problem, "window");
            }
        }
    }

    /// A call that costs more than there ever is would never pass.
    fn cost(&mut self, memory: bool) {
        let Some(cost) = self.node.get("cost") else { return };
        let (amount, key) = match cost.get("estimate") {
            Some(estimate) => (estimate, "cost.estimate"),
            None => (cost, "cost"),
        };
        let Some(units) = amount.text().and_then(|text| text.parse::<u64>().ok()) else { return };
        let rate = parsed::<Rate>(self.node, "rate").map(Rate::count);
        let most = match parsed::<CalendarQuota>(self.node, "quota") {
            Some(quota) => Some(quota.count),
            None => parsed::<u32>(self.node, "burst").or(rate),
        };
        if let Some(most) = most.filter(|most| *most > 0 && units > u64::from(*most)) {
            let problem = Problem::error(
                format!("a call that costs {units} never fits into the {most} that there are at most"),
                "lower the cost, or raise the burst or the limit",
            );
            let problem = problem.at(&amount.span);
            self.report(problem, key);
        } else if !(memory && self.given("prohibit").is_none())
            && let Some(most) = self.granted_at_once().filter(|most| *most > 0 && units > *most)
        {
            let problem = Problem::error(
                format!("a call that costs {units} never fits into the {most} that a ledger grants at once"),
                "lower the cost, raise the burst, or write a shorter lease: a bucket keeps back rate × lease of its burst",
            );
            let problem = problem.at(&amount.span);
            self.report(problem, key);
        }
    }

    /// The most that a ledger grants of a bucket in one piece.
    fn granted_at_once(&self) -> Option<u64> {
        let limit = super::super::Limit {
            burst: parsed(self.node, "burst"),
            algorithm: match self.given("algorithm").and_then(|entry| entry.value.text()) {
                None | Some("token-bucket") => None,
                Some(_) => return None,
            },
            lease: parsed(self.node, "lease"),
            ..super::super::Limit::of(parsed(self.node, "rate")?)
        };
        Some(limit.rule().ok()?.largest())
    }

    fn keys(&mut self) {
        let mut seen = HashSet::new();
        for part in self.node.get("key").map_or(&[][..], Node::items) {
            if let Some(text) = part.text()
                && !seen.insert(text)
            {
                let problem =
                    Problem::warning(format!("{} is in the key twice", quoted(text)), "remove one of them");
                self.problems.push(problem.at(&part.span).of(format!("{}.key", self.setting)));
            }
        }
    }
}
