//! Access tokens for upstreams: their times, and names that refer to nothing.

use std::{path::Path, time::Duration};

use super::{
    Named, Node, Problem,
    client::{Client, Live},
    entries, not_zero, store,
};

/// How long a provider that does not answer may be left alone.
const REST_TIMES: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60 * 60);

const TOKENS: Named = Named { section: "tokens", noun: "token", user: "upstream", in_one: "an upstream" };

/// Finds what is wrong with the tokens, and with what upstreams say of them.
pub(super) fn check(root: &Node, base: &Path, problems: &mut Vec<Problem>) {
    let live = if store::is_shared(root) { Live::InStore } else { Live::Here };
    for entry in entries(root, "tokens") {
        let mut client = Client::new("tokens", entry, problems);
        client.check(base, (REST_TIMES, "write 10ms to 1h, like 30s"));
        client.dpop(base, live);
        let Client { node, setting, problems, .. } = client;
        not_zero(node, "default_life", "write a time that is not zero, like 5s", &setting, problems);
    }
    let uses = entries(root, "upstreams").iter().filter_map(|upstream| {
        Some((upstream.value.get("token")?, format!("upstreams.{}.token", upstream.key.escape_debug())))
    });
    TOKENS.references(root, uses, problems);
}
