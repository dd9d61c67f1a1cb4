//! What happened to each session lately, to be told of those that end.

#![allow(dead_code, reason = "only whole histories are traced")]

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    fmt::Display,
};

use tidegate::clock;

/// Events of a session that are kept.
const KEPT: usize = 60;

thread_local! {
    static EVENTS: RefCell<Option<HashMap<String, VecDeque<String>>>> = const { RefCell::new(None) };
}

/// Begins to note what happens on this thread.
pub(crate) fn begin() {
    EVENTS.with_borrow_mut(|events| *events = Some(HashMap::new()));
}

/// Notes something of a session, or of all.
pub(crate) fn note(session: &str, what: impl Display) {
    EVENTS.with_borrow_mut(|events| {
        let Some(events) = events else { return };
        let of = events.entry(session.to_owned()).or_default();
        if of.len() >= KEPT {
            of.pop_front();
        }
        let at = clock::now().as_nanos() / 1_000_000;
        of.push_back(format!("{}.{:03} {what}", at / 1000 % 1_000_000, at % 1000));
    });
}

/// What is known of a session, and of all, in order.
pub(crate) fn told(session: &str) -> String {
    EVENTS.with_borrow(|events| {
        let Some(events) = events else { return String::new() };
        let of = |name: &str| events.get(name).into_iter().flatten().cloned();
        let mut lines: Vec<_> = of(session).chain(of("")).collect();
        lines.sort();
        lines.join("\n")
    })
}

/// Forgets a session.
pub(crate) fn forget(session: &str) {
    EVENTS.with_borrow_mut(|events| events.as_mut().map(|events| events.remove(session)));
}
