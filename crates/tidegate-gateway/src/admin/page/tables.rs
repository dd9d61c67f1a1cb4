//! The tables of the page of state.

mod registry;
mod sessions;
mod store;

use tidegate_core::Instant;

use super::html::{Html, bytes, count, span};
use crate::{
    state::{
        BreakerPhase, EndpointState, InFlightState, LimitState, PartitionState, RouteState, State,
        UpstreamState,
    },
    telemetry::NO_ROUTE,
};

pub(super) fn all(html: &mut Html, state: &State, now: Instant) {
    let now = now.as_nanos() as f64 / 1e9;
    summary(html, state, now);
    section(html, "Upstreams", state.upstreams.is_empty(), "none");
    state.upstreams.iter().for_each(|each| upstream(html, each));
    if let Some(registry) = &state.registry {
        section(html, "Registry", false, "");
        registry::table(html, registry);
    }
    section(html, "Limits", state.limits.is_empty(), "none");
    limits(html, &state.limits);
    store::tables(html, state);
    if !state.sessions.is_empty() {
        section(html, "Sessions", false, "");
        sessions::table(html, &state.sessions, state.pressure.as_ref());
    }
    section(html, "Routes", state.routes.is_empty(), "none");
    routes(html, &state.routes);
    section(html, "Last refusals", state.refusals.is_empty(), "none yet");
    refusals(html, state, now);
    section(html, "Listeners", state.listeners.is_empty(), "none");
    listeners(html, state);
}

fn section(html: &mut Html, title: &str, empty: bool, nothing: &str) {
    html.raw("<h2>").text(title).raw("</h2>");
    if empty {
        html.raw("<div class=\"card dim\">").text(nothing).raw("</div>");
    }
}

fn summary(html: &mut Html, state: &State, now: f64) {
    let config = &state.config;
    html.raw("<div class=\"card\"><dl class=\"facts\"><div><dd>");
    match &state.not_ready {
        None => html.pill("good", "ready"),
        Some(why) => html.pill("bad", "not ready").raw(" ").text(why),
    };
    html.raw("</dd></div>");
    fact(html, "version", &state.version);
    fact(html, "up", &span(state.uptime_seconds));
    fact(html, "config", &config.source);
    fact(html, "hash", &config.hash);
    fact(html, "loaded", &ago(now, config.loaded_at_seconds));
    fact(html, "reloads", &format!("{} applied, {} refused", config.reloads, config.failed_reloads));
    if !config.needs_restart.is_empty() {
        fact(html, "needs a restart", &config.needs_restart.join(", "));
    }
    let telemetry = &state.telemetry;
    for (name, lost) in [
        ("log lines lost", telemetry.access_log_dropped),
        ("spans lost", telemetry.spans_dropped + telemetry.spans_failed),
    ] {
        if lost > 0 {
            fact(html, name, &count(lost));
        }
    }
    html.raw("</dl></div>");
    if let Some(error) = &config.last_reload_error {
        html.raw("<div class=\"card banner\"><b class=\"bad\">The last reload was refused; the configuration before it runs.</b>\n<code>");
        html.text(error).raw("</code></div>");
    }
}

fn fact(html: &mut Html, name: &str, value: &str) {
    html.raw("<div><dt>").text(name).raw("</dt><dd>").text(value).raw("</dd></div>");
}

fn ago(now: f64, then: f64) -> String {
    if now < then { "just now".into() } else { format!("{} ago", span(now - then)) }
}

fn upstream(html: &mut Html, upstream: &UpstreamState) {
    html.raw("<div class=\"card\"><h3>").text(&upstream.name).raw("</h3>");
    if let Some(state) = &upstream.in_flight {
        in_flight(html, "in flight", state);
    }
    if !upstream.partitions.is_empty() {
        partitions(html, &upstream.partitions);
    }
    if let Some(state) = &upstream.streams {
        in_flight(html, "streams", state);
    }
    html.raw("<dl class=\"facts\">");
    fact(html, "retries", &count(upstream.retries));
    html.raw("</dl><br>");
    head(
        html,
        &[
            "endpoint",
            "breaker",
            "#in flight",
            "connections",
            "#",
            "#idle",
            "#HTTP/2",
            "#streams",
            "#waiting",
        ],
    );
    upstream.endpoints.iter().for_each(|each| endpoint(html, each));
    html.raw("</tbody></table></div>");
}

fn in_flight(html: &mut Html, name: &str, state: &InFlightState) {
    html.raw("<div class=\"meters\">");
    meter(html, name, state.in_flight, state.limit);
    meter(html, "queued", state.queued, Some(state.queue));
    html.raw("</div><dl class=\"facts\">");
    if state.law != "fixed" {
        fact(html, "limit by", state.law);
    }
    fact(html, "admitted", &count(state.admitted));
    fact(html, "refused", &breakdown(&state.refused));
    fact(html, "left the queue", &count(state.cancelled));
    fact(
        html,
        "wait p50 / p99",
        &format!("{} / {}", span(state.wait.p50_seconds), span(state.wait.p99_seconds)),
    );
    fact(
        html,
        "hold p50 / p99",
        &format!("{} / {}", span(state.hold.p50_seconds), span(state.hold.p99_seconds)),
    );
    if state.held_long > 0 {
        fact(html, "held long", &count(state.held_long));
    }
    html.raw("</dl><br>");
}

fn partitions(html: &mut Html, partitions: &[PartitionState]) {
    head(html, &["partition", "#share", "#in flight", "#queued", "#admitted", "refused", "wait p99"]);
    for PartitionState { name, in_flight } in partitions {
        html.raw("<tr><td><code>").text(name).raw("</code></td>");
        match in_flight.limit {
            Some(share) => number(html, share),
            None => {
                html.raw("<td></td>");
            }
        }
        for value in [in_flight.in_flight, in_flight.queued, in_flight.admitted] {
            number(html, value);
        }
        html.raw("<td>").text(breakdown(&in_flight.refused)).raw("</td><td>");
        html.text(span(in_flight.wait.p99_seconds)).raw("</td></tr>");
    }
    html.raw("</tbody></table><br>");
}

/// A bar, or the number alone where nothing bounds it.
fn meter(html: &mut Html, name: &str, part: u64, whole: Option<u64>) {
    let Some(whole) = whole else {
        html.raw("<div class=\"meter\"><div class=\"name\"><span>").text(name).raw("</span><span><b>");
        html.text(count(part)).raw("</b> of any number</span></div></div>");
        return;
    };
    html.raw("<div class=\"meter\"><div class=\"name\"><span>").text(name).raw("</span><span><b>");
    html.text(count(part))
        .raw("</b> of ")
        .text(count(whole))
        .raw("</span></div>")
        .bar(part, whole)
        .raw("</div>");
}

fn endpoint(html: &mut Html, endpoint: &EndpointState) {
    html.raw("<tr><td><code>").text(&endpoint.authority).raw("</code></td><td>");
    match &endpoint.breaker {
        None => html.raw("<span class=\"dim\">off</span>"),
        Some(breaker) => {
            let class = match breaker.state {
                BreakerPhase::Closed => "good",
                BreakerPhase::HalfOpen => "warm",
                BreakerPhase::Open => "bad",
            };
            html.pill(class, breaker.state.as_str())
                .raw(" <span class=\"dim\">for ")
                .text(span(breaker.since_seconds));
            if let Some(retry) = breaker.retry_in_seconds {
                html.raw(", a probe in ").text(span(retry));
            }
            if breaker.failures > 0 {
                html.raw(", failures ").text(count(breaker.failures));
            }
            if breaker.opened > 0 {
                html.raw(", opened × ").text(count(breaker.opened));
                html.raw(", refused ").text(count(breaker.refused));
            }
            html.raw("</span>")
        }
    };
    let connections = &endpoint.connections;
    html.raw("</td>");
    number(html, endpoint.in_flight);
    html.raw("<td>").bar(connections.open, connections.max).raw("</td><td class=\"n\">");
    html.text(count(connections.open)).raw(" of ").text(count(connections.max)).raw("</td>");
    for value in [connections.idle, connections.http2, connections.streams, connections.waiting] {
        number(html, value);
    }
    html.raw("</tr>");
}

fn limits(html: &mut Html, limits: &[LimitState]) {
    if limits.is_empty() {
        return;
    }
    html.raw("<div class=\"card\">");
    head(html, &["limit", "rate", "algorithm", "per", "keys", "#", "#admitted", "#refused"]);
    for limit in limits {
        html.raw("<tr><td>").text(&limit.name);
        if limit.shadow {
            html.raw(" ").pill("warm", "shadow");
        }
        html.raw("</td><td>").text(&limit.rate);
        if let Some(burst) = limit.burst {
            html.raw(" <span class=\"dim\">burst ").text(count(burst)).raw("</span>");
        }
        let per = if limit.key.is_empty() { "all calls together".into() } else { limit.key.join(", ") };
        html.raw("</td><td>").text(&limit.algorithm).raw("</td><td><code>").text(per).raw("</code></td><td>");
        html.bar(limit.keys, limit.max_keys).raw("</td>");
        number(html, limit.keys);
        number(html, limit.admitted);
        html.raw("<td class=\"n\">").text(count(limit.refused));
        if limit.shadow_refused > 0 {
            html.raw("<span class=\"dim\">, would have refused ");
            html.text(count(limit.shadow_refused)).raw("</span>");
        }
        html.raw("</td>");
        html.raw("</tr>");
    }
    html.raw("</tbody></table></div>");
}

fn routes(html: &mut Html, routes: &[RouteState]) {
    if routes.is_empty() {
        return;
    }
    html.raw("<div class=\"card\">");
    head(
        html,
        &[
            "route",
            "upstream",
            "limits",
            "#in flight",
            "#calls",
            "answers",
            "refused",
            "#p50",
            "#p99",
            "#in",
            "#out",
        ],
    );
    // Calls that no route matched have a row only if there are some.
    for route in routes.iter().filter(|route| route.calls > 0 || route.name != NO_ROUTE) {
        html.raw("<tr><td>").text(&route.name).raw("</td><td>").text(&route.upstream).raw("</td><td>");
        html.text(route.limits.join(", ")).raw("</td><td class=\"n\">");
        if let Some(state) = &route.in_flight {
            html.text(count(state.in_flight)).raw(" of ").text(state.limit.map_or_else(String::new, count));
            if state.queued > 0 {
                html.raw("<span class=\"dim\">, waiting ").text(count(state.queued)).raw("</span>");
            }
        }
        html.raw("</td>");
        number(html, route.calls);
        html.raw("<td>")
            .text(breakdown(&route.responses))
            .raw("</td><td>")
            .text(breakdown(&route.refused))
            .raw("</td>");
        for text in [
            span(route.duration.p50_seconds),
            span(route.duration.p99_seconds),
            bytes(route.request_bytes),
            bytes(route.response_bytes),
        ] {
            html.raw("<td class=\"n\">").text(text).raw("</td>");
        }
        html.raw("</tr>");
    }
    html.raw("</tbody></table></div>");
}

fn refusals(html: &mut Html, state: &State, now: f64) {
    if state.refusals.is_empty() {
        return;
    }
    html.raw("<div class=\"card\">");
    head(html, &["when", "by", "limit", "route", "upstream", "#retry after"]);
    for refusal in &state.refusals {
        html.raw("<tr><td>").text(ago(now, refusal.at_seconds)).raw("</td><td>").pill("bad", refusal.by);
        html.raw("</td><td>")
            .text(refusal.limit.as_deref().unwrap_or(""))
            .raw("</td><td>")
            .text(&refusal.route);
        html.raw("</td><td>").text(&refusal.upstream).raw("</td><td class=\"n\">");
        html.text(refusal.retry_after_seconds.map_or_else(String::new, span)).raw("</td></tr>");
    }
    html.raw("</tbody></table></div>");
}

fn listeners(html: &mut Html, state: &State) {
    if state.listeners.is_empty() {
        return;
    }
    html.raw("<div class=\"card\">");
    head(html, &["listener", "address", "", "connections", "#", "#accepted", "#refused"]);
    for listener in &state.listeners {
        html.raw("<tr><td>")
            .text(&listener.name)
            .raw("</td><td><code>")
            .text(&listener.address)
            .raw("</code>");
        html.raw(if listener.tls { " TLS" } else { "" }).raw("</td><td>");
        match listener.accepting {
            true => html.pill("good", "accepting"),
            false => html.pill("warm", "closed"),
        };
        html.raw("</td><td>")
            .bar(listener.connections, listener.max_connections)
            .raw("</td><td class=\"n\">");
        html.text(count(listener.connections)).raw(" of ").text(count(listener.max_connections)).raw("</td>");
        number(html, listener.accepted);
        number(html, listener.refused);
        html.raw("</tr>");
    }
    html.raw("</tbody></table></div>");
}

/// A table's head; a column named with `#` holds figures.
fn head(html: &mut Html, columns: &[&str]) {
    html.raw("<table><thead><tr>");
    for column in columns {
        match column.strip_prefix('#') {
            Some(name) => html.raw("<th class=\"n\">").text(name),
            None => html.raw("<th>").text(column),
        };
        html.raw("</th>");
    }
    html.raw("</tr></thead><tbody>");
}

fn number(html: &mut Html, number: u64) {
    html.raw("<td class=\"n\">").text(count(number)).raw("</td>");
}

/// What there was of each; what there was nothing of is left out.
fn breakdown(counts: &std::collections::BTreeMap<String, u64>) -> String {
    let some: Vec<_> = counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(name, n)| format!("{name} × {}", count(*n)))
        .collect();
    if some.is_empty() { "none".into() } else { some.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_was_none_of_is_not_listed() {
        let counts = |all: &[(&str, u64)]| breakdown(&all.iter().map(|(n, c)| ((*n).into(), *c)).collect());
        assert_eq!(counts(&[]), "none");
        assert_eq!(counts(&[("closed", 0), ("deadline", 0)]), "none");
        assert_eq!(counts(&[("closed", 0), ("quota", 2), ("x", 1000)]), "quota × 2, x × 1\u{2009}000");
    }
}
