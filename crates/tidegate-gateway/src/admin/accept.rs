//! Whether an `Accept` header comes from a browser.

/// Whether HTML is asked for by name, and not less than JSON.
pub(super) fn prefers_html(accept: &str) -> bool {
    let html = quality(accept, "text/html");
    html > 0.0 && html >= quality(accept, "application/json")
}

/// The weight of a media type that is named, or 0.
fn quality(accept: &str, wanted: &str) -> f64 {
    let weight = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case(wanted) {
            return None;
        }
        let q = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some(q.map_or(1.0, |q| q.trim().parse().unwrap_or(0.0)))
    };
    accept.split(',').filter_map(weight).fold(0.0, f64::max)
}
