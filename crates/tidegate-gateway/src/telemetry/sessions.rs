//! The metrics of browser sessions.

use std::fmt;

use super::page::Page;
use crate::state::SessionsState;

pub(super) fn encode(page: &mut Page<'_>, sessions: &[SessionsState]) -> fmt::Result {
    let each = |of: fn(&SessionsState) -> u64| {
        sessions.iter().map(move |session| ([("session", session.name.as_str())], of(session)))
    };
    let floats = |of: fn(&SessionsState) -> u64| each(of).map(|(labels, count)| (labels, count as f64));
    page.gauge("tidegate_sessions", "Sessions in memory", None, floats(|s| s.sessions))?;
    page.gauge(
        "tidegate_session_waiting",
        "Calls that wait for tokens of sessions",
        None,
        floats(|s| s.waiting),
    )?;
    page.gauge("tidegate_session_refreshing", "Refreshes under way", None, floats(|s| s.in_flight))?;
    page.gauge(
        "tidegate_session_queued",
        "Sessions that wait for their turn, for another process, or for a grant",
        None,
        floats(|s| s.queued),
    )?;
    page.gauge(
        "tidegate_session_provider_up",
        "Whether the provider's token endpoint answers and may be asked",
        None,
        floats(|s| u64::from(s.provider == "up")),
    )?;
    page.counter(
        "tidegate_session_held_back",
        "Refreshes that were held back: the provider is left alone, or the session cools down",
        None,
        each(|s| s.held_back),
    )?;
    page.counter(
        "tidegate_session_revoked",
        "Tokens that came for a session that had ended, and were given back",
        None,
        each(|s| s.revoked),
    )?;
    page.counter(
        "tidegate_session_refreshes",
        "Refreshes of sessions, by what became of them",
        None,
        sessions.iter().flat_map(|session| {
            let all = session.refreshes.iter();
            all.map(|(how, count)| ([("session", session.name.as_str()), ("outcome", *how)], *count))
        }),
    )?;
    page.counter(
        "tidegate_session_logins",
        "Logins and logouts, by what became of them",
        None,
        sessions.iter().flat_map(|session| {
            let all = session.logins.iter();
            all.map(|(how, count)| ([("session", session.name.as_str()), ("outcome", *how)], *count))
        }),
    )?;
    page.counter(
        "tidegate_session_refreshes_shared",
        "Refreshes that another process made",
        None,
        each(|s| s.shared),
    )?;
    page.counter(
        "tidegate_session_over",
        "Sessions that ended other than by a logout",
        None,
        each(|s| s.over),
    )?;
    page.counter(
        "tidegate_session_mismatches",
        "Refreshes that brought somebody else's tokens",
        None,
        each(|s| s.mismatches),
    )?;
    page.counter(
        "tidegate_session_store_failures",
        "Operations of the store of sessions that failed",
        None,
        each(|s| s.store_failures),
    )
}
