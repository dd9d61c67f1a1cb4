//! The store, and what limits hold and ask of it. Counters in this process need no table.

use super::{breakdown, fact, head, number, section};
use crate::{
    admin::page::html::{Html, count, span},
    state::{CreditState, LimitState, State, StorePhase, StoreState},
};

pub(super) fn tables(html: &mut Html, state: &State) {
    let StoreState { url, namespace, state: phase, in_flight, max_in_flight, servers } = &state.store;
    let class = match phase {
        StorePhase::Memory => return,
        StorePhase::Up => "good",
        StorePhase::Connecting | StorePhase::PartlyAway => "warm",
        StorePhase::Away => "bad",
    };
    section(html, "Store", false, "");
    html.raw("<div class=\"card\"><h3>").text(url).raw(" ").pill(class, phase.as_str().replace('-', " "));
    html.raw("</h3><dl class=\"facts\">");
    fact(html, "namespace", namespace);
    fact(html, "questions under way", &format!("{} of {}", count(*in_flight), count(*max_in_flight)));
    for server in servers {
        let name = server.server.as_deref().unwrap_or("a server that is not known yet");
        fact(html, name, server.error.as_deref().unwrap_or(server.state.as_str()));
    }
    html.raw("</dl>");
    let shared = || state.limits.iter().filter_map(|limit| Some((limit, limit.credit.as_ref()?)));
    if shared().next().is_none() {
        html.raw("</div>");
        return;
    }
    html.raw("<br>");
    let columns =
        ["credit of", "without the store", "over the limit", "#in hand", "#aside", "#stranded", "#owed"];
    head(html, &columns);
    shared().for_each(|(limit, credit)| credit_of(html, limit, credit));
    html.raw("</tbody></table><p class=\"dim\">Units of the limit that this gateway was granted. In hand: to be \
        spent without asking. Aside: kept for when the store is away. Stranded: ran out before it was spent. Owed: \
        calls cost more than was reserved. Over the limit: the most that all gateways could admit beyond it now.</p>");
    let columns = [
        "decisions of",
        "#at once",
        "#waited",
        "#from aside",
        "#open",
        "#unanswered",
        "#questions",
        "#each",
        "#p50",
        "#p99",
        "failures",
    ];
    head(html, &columns);
    shared().for_each(|(limit, credit)| decisions_of(html, limit, credit));
    html.raw("</tbody></table><p class=\"dim\">Calls admitted at once, from credit in hand; admitted after they waited \
        for the store; while it was away from what was set aside, or without bound where the limit is open; refused \
        as the store did not answer. Then the questions to the store, how many for each decision, and how long it \
        took to answer.</p></div>");
}

fn credit_of(html: &mut Html, limit: &LimitState, credit: &CreditState) {
    html.raw("<tr><td>").text(&limit.name);
    if let Some(seconds) = credit.away_seconds {
        let part = if credit.away_share < 1.0 {
            format!("{:.0} % of the store away for {}", 100.0 * credit.away_share, span(seconds))
        } else {
            format!("store away for {}", span(seconds))
        };
        html.raw(" ").pill("bad", part);
    }
    html.raw("</td><td>").text(credit.on_store_failure).raw("</td><td>");
    match limit.over_admission_possible {
        Some(0) => _ = html.text("never"),
        Some(units) => _ = html.pill("warm", format!("up to {}", count(units))),
        None => _ = html.pill("bad", "no bound while the store is away"),
    }
    html.raw("</td>");
    for value in [credit.in_hand, credit.aside, credit.stranded] {
        number(html, value);
    }
    html.raw("<td class=\"n\">").text(count(credit.debt));
    if credit.forgiven > 0 {
        html.raw("<span class=\"dim\">, forgiven ").text(count(credit.forgiven)).raw("</span>");
    }
    html.raw("</td></tr>");
}

fn decisions_of(html: &mut Html, limit: &LimitState, credit: &CreditState) {
    html.raw("<tr><td>").text(&limit.name).raw("</td>");
    for value in
        [credit.local, credit.waited, credit.from_aside, credit.open, credit.unanswered, credit.operations]
    {
        number(html, value);
    }
    for text in [
        format!("{:.3}", credit.operations_per_decision),
        span(credit.latency.p50_seconds),
        span(credit.latency.p99_seconds),
    ] {
        html.raw("<td class=\"n\">").text(text).raw("</td>");
    }
    let failures = credit.failures.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
    html.raw("<td>").text(breakdown(&failures)).raw("</td></tr>");
}
