//! The two exposition formats: which one a scraper asks for, and OpenMetrics rewritten as Prometheus text 0.0.4.

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Prometheus,
    /// OpenMetrics text format 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for: OpenMetrics only when it is named and no worse than plain text.
    pub fn accepted(accept: &str) -> Self {
        let quality = |wanted: &str| {
            accept
                .split(',')
                .filter_map(|range| {
                    let mut parts = range.split(';').map(str::trim);
                    parts.next()?.eq_ignore_ascii_case(wanted).then_some(())?;
                    let q =
                        parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
                    Some(q.map_or(1.0, |q| q.trim().parse().unwrap_or(0.0)))
                })
                .fold(0.0, f64::max)
        };
        let open = quality("application/openmetrics-text");
        if open > 0.0 && open >= quality("text/plain") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The content type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Rewrites an OpenMetrics page: families of counters and infos take their samples' names, units and the end mark go.
pub(super) fn to_prometheus(open_metrics: &str) -> String {
    let mut page = String::with_capacity(open_metrics.len());
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        let (comment, rest) = match line.strip_prefix("# ").and_then(|rest| rest.split_once(' ')) {
            Some(parts) => parts,
            None if line == "# EOF" => continue,
            None => {
                page.extend([line, "\n"]);
                continue;
            }
        };
        match comment {
            // The type, on the next line, decides about the name.
            "HELP" => {
                let kind = lines.peek().and_then(|next| next.rsplit_once(' ')).map_or("", |(_, kind)| kind);
                let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
                page.extend(["# HELP ", name, renamed(kind).0, " ", help, "\n"]);
            }
            "TYPE" => {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
                let (suffix, kind) = renamed(kind);
                page.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
            }
            _ => {}
        }
    }
    page
}

/// What a type of OpenMetrics is in Prometheus text: the suffix of its family's name, and its type there.
fn renamed(kind: &str) -> (&'static str, &'static str) {
    match kind {
        "counter" => ("_total", "counter"),
        "info" => ("_info", "gauge"),
        "gauge" => ("", "gauge"),
        "histogram" => ("", "histogram"),
        _ => ("", "untyped"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_written_only_to_those_who_name_it() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
        for (accept, format) in [
            (prometheus_3, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; Q=0.9", Format::OpenMetrics),
            ("text/plain, application/openmetrics-text;q=0.5", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("application/openmetrics-text;q=x", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("", Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn families_take_the_names_of_their_samples() {
        let open = "# HELP a_bytes About a.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total 1\n\
            # HELP b b.\n# TYPE b info\nb_info{x=\"y\"} 1\n# HELP c c.\n# TYPE c unknown\nc 1\n# EOF\n";
        let text = "# HELP a_bytes_total About a.\n# TYPE a_bytes_total counter\na_bytes_total 1\n\
            # HELP b_info b.\n# TYPE b_info gauge\nb_info{x=\"y\"} 1\n# HELP c c.\n# TYPE c untyped\nc 1\n";
        assert_eq!(to_prometheus(open), text);
    }
}
