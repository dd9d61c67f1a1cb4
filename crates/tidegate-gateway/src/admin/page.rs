//! The state as a page for people: tables and bars, no assets from elsewhere. Every text is escaped.

mod html;
mod tables;

use tidegate_core::Instant;

use self::html::Html;
pub(crate) use self::html::span;
use crate::state::State;

/// Refreshes the page every two seconds, while somebody looks.
pub(super) const SCRIPT: &str = include_str!("state.js");
const STYLE: &str = include_str!("state.css");
/// Waves under a gate.
const LOGO: &str = r#"<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M4 13V4h16v9M9 4v7M15 4v7"/><path d="M2 17c3-3 5 3 10 0s7 0 10 0M2 21c3-3 5 3 10 0s7 0 10 0"/></svg>"#;

/// The list of pages.
pub(super) fn index(pages: &[(&str, &str)]) -> String {
    let mut html = head("Tidegate");
    html.raw("</header><main><div class=\"card\"><table>");
    for (path, what) in pages {
        html.raw("<tr><td><a href=\"").text(path).raw("\"><code>").text(path).raw("</code></a></td><td>");
        html.text(what).raw("</td></tr>");
    }
    html.raw("</table></div></main></body></html>\n");
    html.finish()
}

/// The state at `now`.
pub(super) fn state(state: &State, now: Instant) -> String {
    let mut html = head("Tidegate state");
    html.raw("<span id=\"live\" class=\"pill good\">live</span><nav>");
    for (path, name) in
        [("/state?format=json", "JSON"), ("/metrics", "metrics"), ("/config", "config"), ("/ready", "ready")]
    {
        html.raw("<a href=\"").text(path).raw("\">").text(name).raw("</a>");
    }
    html.raw("</nav></header><main>");
    tables::all(&mut html, state, now);
    html.raw("</main><script src=\"/state.js\"></script></body></html>\n");
    html.finish()
}

fn head(title: &str) -> Html {
    let mut html = Html::default();
    html.raw("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>").text(title);
    html.raw("</title><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
    html.raw("<link rel=\"icon\" href=\"data:,\"><style>").raw(STYLE).raw("</style></head><body><header>");
    html.raw(LOGO).raw("<h1>Tidegate</h1>");
    html
}
