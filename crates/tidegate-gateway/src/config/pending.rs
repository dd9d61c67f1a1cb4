//! Settings that are planned and not there yet: refused by name, never ignored and never called unknown.

use super::{problem::Problem, tree::Entry};

/// A setting that is not there yet.
struct Pending {
    /// The section it will be in, by its name in the schema; the whole has none.
    section: &'static str,
    key: &'static str,
    /// What this version lacks.
    lacks: &'static str,
    remedy: &'static str,
}

const fn pending(
    section: &'static str,
    key: &'static str,
    lacks: &'static str,
    remedy: &'static str,
) -> Pending {
    Pending { section, key, lacks, remedy }
}

const PENDING: [Pending; 1] =
    [pending("Route", "token", "access tokens of routes", "name it at the upstream: token: NAME")];

/// What to say about `entry` in `section`, if it is a setting that is not there yet.
pub(super) fn refusal(section: &str, entry: &Entry) -> Option<Problem> {
    let found = PENDING.iter().find(|pending| pending.section == section && pending.key == entry.key)?;
    let message =
        format!("`{}` is not there yet: this version has no {}", found.key, without_article(found.lacks));
    Some(Problem::error(message, found.remedy).at(&entry.key_span))
}

fn without_article(text: &str) -> &str {
    text.strip_prefix("a ").unwrap_or(text)
}
