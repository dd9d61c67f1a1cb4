//! What `tidegate check` says.

use std::{
    fmt::Write,
    io::{self, IsTerminal},
    path::Path,
    process::ExitCode,
};

use tidegate::{REDACTED, redacted_url};

use super::{
    limit::{Counting, Limit, WindowStart},
    load::{Loaded, Source, load},
    mask::holds_secret,
    model::{BreakerSetting, Ceiling, Config, InFlight, Match, Route, Upstream},
    problem::Problems,
    render::Style,
};

/// Checks a file: every problem in it, or what it guards. The exit code is 0 for a valid one, 2 for a wrong one.
///
/// It is meant for the standard output: colours are used when that is a terminal and `NO_COLOR` is not set.
pub fn check_report(path: &Path) -> (String, ExitCode) {
    report(path, Style::of(&io::stdout()))
}

impl Style {
    /// The style for the standard error.
    pub fn of_terminal() -> Self {
        Self::of(&io::stderr())
    }

    /// Colours for a terminal whose user did not turn them off.
    pub fn of(stream: &impl IsTerminal) -> Self {
        let off = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if stream.is_terminal() && !off { Self::Coloured } else { Self::Plain }
    }
}

fn report(path: &Path, style: Style) -> (String, ExitCode) {
    match load(&Source::File(path.to_owned())) {
        Ok(Loaded { config, warnings, .. }) => {
            let mut text = warnings.render(style);
            let _ = write!(text, "{} is valid", path.display());
            text.push_str(&tally(&warnings, " with "));
            text.push('\n');
            text.push_str(&summary(&config));
            (text, ExitCode::SUCCESS)
        }
        Err(problems) => {
            let text = format!("{}{} has {}\n", problems.render(style), path.display(), tally(&problems, ""));
            (text, ExitCode::from(2))
        }
    }
}

/// How many errors and warnings there are; nothing when there are none.
fn tally(problems: &Problems, before: &str) -> String {
    let parts: Vec<String> = [(problems.errors(), "error"), (problems.warnings(), "warning")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, noun)| format!("{count} {noun}{}", if count == 1 { "" } else { "s" }))
        .collect();
    if parts.is_empty() { String::new() } else { format!("{before}{}", parts.join(" and ")) }
}

/// What a configuration guards, in a few lines.
pub fn summary(config: &Config) -> String {
    let mut text = String::new();
    let scheme = if config.listen.tls.is_some() { "https" } else { "http" };
    let _ = writeln!(
        text,
        "  listens on {scheme}://{}, admin on http://{}",
        config.listen.http, config.listen.admin
    );
    if !config.store.is_memory() {
        let (url, namespace) = (redacted_url(&config.store.url), &config.namespace);
        let _ = writeln!(text, "  counters in {url}, namespace {namespace}");
    }
    if let Some(registry) = &config.registry {
        let kept = registry.snapshot.as_ref().map(|at| format!(", snapshots in {}", at.display()));
        let url = redacted_url(&registry.url);
        let _ = writeln!(text, "  services in {url}{}", kept.unwrap_or_default());
    }
    for (name, upstream) in &config.upstreams {
        let _ = writeln!(text, "  upstream {name}: {}", upstream_summary(upstream));
    }
    for (name, limit) in &config.limits {
        let _ = writeln!(text, "  limit {name}: {}", limit_summary(limit));
    }
    for (name, token) in &config.tokens {
        let scope =
            if token.scope.is_empty() { String::new() } else { format!(", scope {}", token.scope.join(" ")) };
        let (grant, issuer) = (token.grant.as_str(), &token.issuer);
        let _ = writeln!(text, "  token {name}: {grant} of {} at {issuer}{scope}", token.client_id);
    }
    for (name, session) in &config.sessions {
        let (client, issuer) = (&session.client_id, &session.issuer);
        let _ = writeln!(text, "  session {name}: users of {client} log in at {issuer}");
    }
    for route in &config.routes {
        let _ = writeln!(text, "  route {}", route_summary(route));
    }
    text
}

fn upstream_summary(upstream: &Upstream) -> String {
    let mut parts = vec![match (&upstream.service, upstream.endpoints.as_slice()) {
        (Some(service), _) => format!("service {service}"),
        (None, [only]) => only.clone(),
        (None, several) => format!("{} endpoints", several.len()),
    }];
    parts.push(match &upstream.in_flight {
        Some(in_flight) => in_flight_summary(in_flight),
        None => "any number in flight".into(),
    });
    parts.push(match &upstream.breaker {
        BreakerSetting::On(breaker) => {
            format!("breaker at {} failures within {}", breaker.failures, breaker.within)
        }
        BreakerSetting::Off(_) => "no breaker".into(),
    });
    parts.join(", ")
}

fn in_flight_summary(in_flight: &InFlight) -> String {
    let mut text = match (in_flight.limit, in_flight.adaptive, in_flight.fleet) {
        (Some(Ceiling::Calls(limit)), ..) => format!("{limit} in flight"),
        (_, Some(law), _) => {
            let (min, max) = in_flight.bounds();
            format!("{min} to {max} in flight by {}", law.as_str())
        }
        (.., Some(fleet)) => format!("{fleet} in flight over the fleet"),
        (Some(Ceiling::Off(_)) | None, None, None) => return "any number in flight, counted".into(),
    };
    if let Some(partitions) = &in_flight.partitions {
        let _ = write!(text, " shared by {}", partitions.by);
    }
    let _ = write!(text, ", {} waiting up to {}", in_flight.queue, in_flight.max_wait);
    if let Some(streams) = &in_flight.streams {
        let _ = match streams.limit {
            Ceiling::Calls(limit) => write!(text, ", {limit} streams apart"),
            Ceiling::Off(_) => write!(text, ", any number of streams apart"),
        };
    }
    text
}

fn limit_summary(limit: &Limit) -> String {
    let per = if limit.key.is_empty() { String::new() } else { format!(" per {}", limit.key.join(" and ")) };
    let how = match limit.counting() {
        Some(counting @ Counting::TokenBucket { .. }) => {
            format!("token bucket with a burst of {}", counting.most())
        }
        Some(Counting::FixedWindow { start: WindowStart::Clock, .. }) => "fixed window".into(),
        Some(Counting::FixedWindow { start: WindowStart::FirstCall, .. }) => {
            "fixed window from the first call".into()
        }
        Some(Counting::SlidingWindow { .. }) => "sliding window".into(),
        Some(Counting::Calendar(_)) | None => "by the calendar in UTC".into(),
    };
    let cost = match (limit.cost.source(), limit.cost.estimate().get()) {
        (Some(source), _) => format!(", counts {source}"),
        (None, 1) => String::new(),
        (None, cost) => format!(", {cost} a call"),
    };
    let prohibit = limit.prohibit.map(|time| format!(", then refused for {time}")).unwrap_or_default();
    let shadow = if limit.shadow { ", counts but never refuses" } else { "" };
    format!("{}{per}, {how}{cost}{prohibit}{shadow}", limit.amount())
}

fn route_summary(route: &Route) -> String {
    let Match { host, path, methods, headers } = &route.matches;
    let mut parts = vec![format!("{}{}", host.as_deref().unwrap_or("*"), path.as_deref().unwrap_or("/"))];
    if !methods.is_empty() {
        parts.push(methods.join(","));
    }
    parts.extend(
        headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", if holds_secret(name) { REDACTED } else { value })),
    );
    parts.extend(route.limits.iter().map(|limit| format!("-> {limit}")));
    parts.push(format!("-> {}", route.upstream));
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The report on a text, with the file's name alone.
    fn report_on(text: &str) -> (String, ExitCode) {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("tidegate.yaml");
        std::fs::write(&file, text).unwrap();
        let (report, code) = report(&file, Style::Plain);
        (report.replace(&format!("{}/", home.path().display()), ""), code)
    }

    #[test]
    fn a_valid_file_is_summed_up() {
        let (report, code) = report_on(include_str!("../../../../examples/tidegate.yaml"));
        assert_eq!(code, ExitCode::SUCCESS);
        insta::assert_snapshot!(report);
    }

    #[test]
    fn a_file_with_warnings_is_valid() {
        let text = "upstreams: { a: { endpoints: [http://h:1] } }\nlimits: { unused: { rate: 1/s } }\nroutes: [{ upstream: a }]\n";
        let (report, code) = report_on(text);
        assert_eq!(code, ExitCode::SUCCESS);
        insta::assert_snapshot!(report);
    }

    #[test]
    fn a_wrong_file_gets_every_error_and_code_2() {
        let (report, code) =
            report_on("upstreams: { a: { endpoints: [h:1] } }\nroutes: [{ upstraem: a }]\nx: 1\n");
        assert_eq!(code, ExitCode::from(2));
        insta::assert_snapshot!(report);
    }
}
