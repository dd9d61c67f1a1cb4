//! The registry of services: how good what it tells is, and who stands in it.

use super::{Html, count, fact, head, number, span};
use crate::state::{RegistryState, ServiceState};

pub(super) fn table(html: &mut Html, registry: &RegistryState) {
    html.raw("<div class=\"card\"><h3>").text(&registry.url).raw(" ");
    html.pill(if registry.reach == "up" { "good" } else { "bad" }, registry.reach).raw("</h3>");
    html.raw("<dl class=\"facts\">");
    let each = |counts: &std::collections::BTreeMap<&'static str, u64>| {
        super::breakdown(&counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect())
    };
    fact(html, "questions", &each(&registry.reads));
    fact(html, "held back", &each(&registry.held_back));
    fact(html, "watches that ended", &count(registry.watch_restarts));
    if let Some(etcd) = &registry.etcd {
        fact(html, "calls to etcd", &count(etcd.calls));
        fact(html, "logins", &format!("{}, failed {}", count(etcd.logins), count(etcd.login_failures)));
    }
    html.raw("</dl>");
    for problem in &registry.problems {
        html.raw("<div>").pill("warm", "snapshot").raw(" ").text(problem).raw("</div>");
    }
    html.raw("<br>");
    let columns =
        ["service", "known", "upstream", "instance", "address", "version", "zone", "#weight", "listed"];
    head(html, &columns);
    registry.services.iter().for_each(|each| service(html, each));
    html.raw("</tbody></table></div>");
}

fn service(html: &mut Html, service: &ServiceState) {
    let class = match service.provenance {
        "live" | "fresh" => "good",
        "stale" | "snapshot" | "pending" => "warm",
        _ => "bad",
    };
    html.raw("<tr><td><b>").text(&service.name).raw("</b></td><td>").pill(class, service.provenance);
    if let Some(age) = service.age_seconds {
        html.raw(" <span class=\"dim\">").text(span(age)).raw(" old</span>");
    }
    html.raw("</td><td>").text(&service.upstream).raw("</td><td colspan=\"6\">");
    html.text(count(service.endpoints.len() as u64)).raw(" <span class=\"dim\">of revision ");
    html.text(count(service.revision)).raw("</span>");
    for (what, number) in
        [("suspect", service.suspects), ("unusable", service.unusable), ("malformed", service.malformed)]
    {
        if number > 0 {
            html.raw(" ").pill("warm", format!("{} {what}", count(number)));
        }
    }
    for problem in service.error.iter().chain(&service.problems) {
        html.raw("<br><span class=\"dim\">").text(problem).raw("</span>");
    }
    html.raw("</td></tr>");
    for endpoint in &service.endpoints {
        html.raw("<tr><td></td><td></td><td></td><td><code>")
            .text(&endpoint.id)
            .raw("</code></td><td><code>");
        html.text(&endpoint.address).raw("</code></td><td>").text(&endpoint.version).raw("</td><td>");
        html.text(endpoint.zone.as_deref().unwrap_or("")).raw("</td>");
        number(html, endpoint.weight);
        html.raw("<td>");
        match (endpoint.suspect_seconds, endpoint.proven_seconds) {
            (Some(since), _) => html.pill("warm", "suspect").raw(" for ").text(span(since)),
            (None, Some(since)) => html.pill("warm", "no").raw(" but it serves, for ").text(span(since)),
            (None, None) => html.raw("yes"),
        };
        html.raw("</td></tr>");
    }
}
