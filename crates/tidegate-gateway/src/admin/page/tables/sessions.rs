//! Browser sessions: how many there are, how they are kept fresh, and whether anything is in their way.

use std::collections::BTreeMap;

use super::{Html, bytes, count, fact, head, number, span};
use crate::state::{PressureState, SessionsState};

pub(super) fn table(html: &mut Html, sessions: &[SessionsState], pressure: Option<&PressureState>) {
    if sessions.is_empty() {
        return;
    }
    html.raw("<div class=\"card\">");
    if let Some(pressure) = pressure {
        memory(html, pressure);
    }
    let columns = [
        "sessions",
        "provider",
        "kept in",
        "#here",
        "#calls waiting",
        "#refreshing",
        "#queued",
        "refreshes",
        "#shared",
        "#held back",
        "#over",
        "logins and logouts",
    ];
    head(html, &columns);
    sessions.iter().for_each(|each| row(html, each));
    html.raw("</tbody></table></div>");
}

fn memory(html: &mut Html, pressure: &PressureState) {
    let PressureState { level, used_bytes, limit_bytes, stalled_percent, shed, .. } = pressure;
    html.raw("<dl class=\"facts\">");
    let used = match limit_bytes {
        Some(limit) => format!("{} of {}", bytes(*used_bytes), bytes(*limit)),
        None => bytes(*used_bytes),
    };
    fact(html, "memory", &used);
    fact(html, "pressure", level);
    if let Some(percent) = stalled_percent {
        fact(html, "waited for memory", &format!("{percent:.1} %"));
    }
    fact(html, "logins held off", &count(*shed));
    html.raw("</dl><br>");
}

fn row(html: &mut Html, session: &SessionsState) {
    html.raw("<tr><td><b>").text(&session.name).raw("</b><br><span class=\"dim\">").text(&session.issuer);
    let class = match session.provider {
        "up" => "good",
        "paused" | "probing" => "warm",
        _ => "bad",
    };
    html.raw("</span></td><td>").pill(class, session.provider);
    if let Some(seconds) = session.paused_seconds {
        html.raw(" <span class=\"dim\">for ").text(span(seconds)).raw("</span>");
    }
    if session.queued > 0 {
        html.raw(" ").pill("warm", format!("{} in line", count(session.queued)));
    }
    html.raw("</td><td>").text(session.kept);
    if session.store_failing {
        html.raw(" ").pill("bad", "failing");
    }
    html.raw("</td>");
    for value in [session.sessions, session.waiting, session.in_flight, session.queued] {
        number(html, value);
    }
    html.raw("<td>").text(each(&session.refreshes));
    if session.mismatches > 0 {
        html.raw(" ").pill("bad", format!("{} of somebody else", count(session.mismatches)));
    }
    html.raw("</td>");
    for value in [session.shared, session.held_back, session.over] {
        number(html, value);
    }
    html.raw("<td>").text(each(&session.logins)).raw("</td></tr>");
}

fn each(counts: &BTreeMap<&'static str, u64>) -> String {
    let told = super::breakdown(&counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect());
    // A name stays with its number where the line breaks.
    told.replace(" × ", "\u{a0}×\u{a0}")
}
