//! Configurations that many tests start from.

use std::net::SocketAddr;

/// One upstream for every path, with these further settings of it, like `timeout: 1s`.
pub(crate) fn to(upstream: SocketAddr, settings: &str) -> String {
    guarded(upstream, settings, "", "")
}

/// As [`to`], with limits, and what the route adds, like `limits: [all]`.
pub(crate) fn guarded(upstream: SocketAddr, settings: &str, limits: &str, route: &str) -> String {
    let indented = |text: &str, by: &str| -> String {
        text.lines().map(|line| format!("{by}{}\n", line.trim())).collect()
    };
    let mut config = String::new();
    if !limits.is_empty() {
        config += &format!("limits:\n{}", indented(limits, "  "));
    }
    config += &format!(
        "upstreams:\n  main:\n    endpoints: [\"http://{upstream}\"]\n{}",
        indented(settings, "    ")
    );
    config += &format!("routes:\n  - upstream: main\n    name: everything\n{}", indented(route, "    "));
    config
}
