//! Sessions that nobody could log in to, and cookies that others have a hand in.

use std::collections::HashMap;

use super::{Entry, Node, Problem, entries, quoted};

/// What the gateway itself sends along with a user who logs in.
const OWN_PARAMETERS: [&str; 8] = [
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "response_type",
    "scope",
    "state",
];

/// Finds what is wrong with how users of the sessions log in, and with what their browsers keep.
pub(super) fn check(root: &Node, problems: &mut Vec<Problem>) {
    let mut cookies: HashMap<String, &Entry> = HashMap::new();
    for entry in entries(root, "sessions") {
        let setting = format!("sessions.{}", entry.key.escape_debug());
        logins(entry, &setting, problems);
        let cookie = cookie(&entry.value, &setting, problems);
        if let Some(first) = cookies.insert(cookie.clone(), entry) {
            let shown = quoted(&cookie);
            let message =
                format!("two sessions keep the cookie {shown}: on one host, a login to one ends the other");
            let remedy = "give each a `cookie` of its own, unless they have hosts of their own";
            let problem =
                Problem::warning(message, remedy).at(&entry.key_span).of(format!("{setting}.cookie"));
            problems.push(problem.see(&first.key_span, "the first"));
        }
    }
}

fn logins(entry: &Entry, setting: &str, problems: &mut Vec<Problem>) {
    let node = &entry.value;
    let mut wrong = |key: &str, at: &Node, message: String, remedy: &str| {
        problems.push(Problem::error(message, remedy).at(&at.span).of(format!("{setting}.{key}")));
    };
    if let Some(list) = node.get("algorithms").filter(|list| list.items().is_empty() && !list.is_null()) {
        let remedy = "remove it, or name those by which the provider signs";
        wrong("algorithms", list, "no ID token would be taken".into(), remedy);
    }
    for list in node.get("allow").map_or(&[][..], Node::entries) {
        if list.value.items().is_empty() {
            let message = format!("nobody may come in: no value of {} is allowed", quoted(&list.key));
            let remedy = "remove it, or write who may come in, like [\"*@example.com\"]";
            wrong("allow", &list.value, message, remedy);
        }
    }
    for parameter in node.get("parameters").map_or(&[][..], Node::entries) {
        if OWN_PARAMETERS.contains(&parameter.key.as_str()) {
            let message = format!("{} is each login's own", quoted(&parameter.key));
            wrong("parameters", &parameter.value, message, "remove it; the gateway sends it");
        }
    }
}

/// The cookie of a session, and a word on it if others can set it.
fn cookie(node: &Node, setting: &str, problems: &mut Vec<Problem>) -> String {
    let plain = node.get("allow_http").and_then(Node::text) == Some("true");
    let Some((at, name)) = node.get("cookie").and_then(|at| Some((at, at.text()?))) else {
        return if plain { "tidegate" } else { "__Host-tidegate" }.to_owned();
    };
    if !plain && !name.starts_with("__Host-") {
        let message = format!("any other site of the same domain can set the cookie {}", quoted(name));
        let bare = name.trim_start_matches("__Secure-");
        let remedy = format!("write __Host-{bare}: browsers let nobody else set that");
        problems.push(Problem::warning(message, remedy).at(&at.span).of(format!("{setting}.cookie")));
    }
    name.to_owned()
}
