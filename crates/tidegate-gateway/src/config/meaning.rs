//! Checks what a schema cannot say: names that refer to nothing, settings that contradict each other, files.
//!
//! Works on the tree, not on the typed configuration, so that a mistake in one place hides none in another.

mod client;
mod files;
mod in_flight;
mod limits;
mod logins;
mod registry;
mod routes;
mod sessions;
mod store;
mod tokens;

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    ops::{Range, RangeInclusive},
    path::Path,
    time::Duration,
};

use tidegate::pressure::{InvalidLimits, Limits};

use super::{
    cidr::Cidr,
    defaults::{default_admin, default_http},
    formats::endpoint,
    pressure::Pressure,
    problem::{Problem, quoted},
    store::MEMORY,
    suggest,
    token::Percent,
    tree::{self, Entry, Node, Value},
    units::{ByteSize, HumanDuration},
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a grant of an access token may be waited for.
const GRANT_TIMES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(600);

/// Finds what is wrong with the meaning of a configuration; relative paths begin at `base`.
pub(super) fn check(root: &Node, base: &Path, problems: &mut Vec<Problem>) {
    listen(root, problems);
    for section in ["upstreams", "limits", "tokens", "sessions"] {
        names(root, section, problems);
    }
    for entry in entries(root, "upstreams") {
        upstream(entry, problems);
    }
    limits::check(root, problems);
    store::check(root, base, problems);
    registry::check(root, base, problems);
    tokens::check(root, base, problems);
    sessions::check(root, base, problems);
    logins::check(root, problems);
    bounds(root, problems);
    pressure(root, problems);
    trusted(root, problems);
    routes::check(root, problems);
    files::check(root, base, problems);
}

fn entries<'a>(root: &'a Node, section: &str) -> &'a [Entry] {
    root.get(section).map_or(&[], Node::entries)
}

/// The parsed value of a key, if it is there and can be parsed.
fn parsed<T: std::str::FromStr>(node: &Node, key: &str) -> Option<T> {
    node.get(key)?.text()?.parse().ok()
}

/// Names of upstreams and limits: they become labels of metrics and items of header fields.
fn names(root: &Node, section: &str, problems: &mut Vec<Problem>) {
    let Some(node) = root.get(section) else { return };
    if section == "upstreams" && node.entries().is_empty() && matches!(node.value, Value::Map(_)) {
        let problem =
            Problem::error("there are no upstreams", "add one: NAME: { endpoints: [http://host:port] }");
        problems.push(problem.at(&node.span).of(section));
    }
    for entry in node.entries() {
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if entry.key.is_empty() || entry.key.len() > 64 || !entry.key.bytes().all(valid) {
            let problem = Problem::error(
                format!("{} is not a name", quoted(&entry.key)),
                "write 1 to 64 letters, digits, or - _ .",
            );
            problems.push(problem.at(&entry.key_span).of(section));
        }
    }
}

/// Whether two addresses cannot both be listened on.
pub(super) fn is_one_port(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port()
        && a.port() != 0
        && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

fn listen(root: &Node, problems: &mut Vec<Problem>) {
    let Some(listen) = root.entry("listen") else { return };
    let http = address(&listen.value, "http", default_http());
    let admin = address(&listen.value, "admin", default_admin());
    if is_one_port(http, admin) {
        let at = ["admin", "http"].into_iter().find_map(|key| listen.value.get(key));
        let span = at.map_or(&listen.key_span, |node| &node.span);
        let problem = Problem::error(
            format!("traffic and admin both listen on port {}", http.port()),
            "give one of them another port",
        );
        problems.push(problem.at(span).of("listen"));
    }
    if !admin.ip().is_loopback()
        && let Some(node) = listen.value.get("admin")
    {
        let problem = Problem::warning(
            "the admin pages can be reached from other machines",
            "write 127.0.0.1, unless a firewall stands before them",
        );
        problems.push(problem.at(&node.span).of("listen.admin"));
    }
}

fn address(listen: &Node, key: &str, default: SocketAddr) -> SocketAddr {
    parsed(listen, key).unwrap_or(default)
}

fn upstream(entry: &Entry, problems: &mut Vec<Problem>) {
    let node = &entry.value;
    let setting = format!("upstreams.{}", entry.key.escape_debug());
    let of = |key: &str| format!("{setting}.{key}");
    if let Some(endpoints) = node.get("endpoints") {
        self::endpoints(node, endpoints, &setting, problems);
    }
    in_flight::check(node, &setting, problems);
    for key in ["timeout", "head_timeout", "idle_timeout"] {
        not_zero(node, key, "write off for no limit", &setting, problems);
    }
    for (section, key) in [
        ("connections", "connect_timeout"),
        ("connections", "idle"),
        ("breaker", "within"),
        ("breaker", "open_for"),
    ] {
        if let Some(node) = node.get(section) {
            not_zero(node, key, "write a time that is not zero", &of(section), problems);
        }
    }
    let (whole, head): (Option<HumanDuration>, Option<HumanDuration>) =
        (parsed(node, "timeout"), parsed(node, "head_timeout"));
    if let (Some(whole), Some(head), Some(at)) = (whole, head, node.get("head_timeout"))
        && head > whole
    {
        let problem = Problem::warning(
            format!("the response head may take {head}, but the whole call only {whole}"),
            "raise `timeout` or lower `head_timeout`",
        );
        problems.push(problem.at(&at.span).of(of("head_timeout")));
    }
}

/// The endpoints that are listed.
fn endpoints(node: &Node, endpoints: &Node, setting: &str, problems: &mut Vec<Problem>) {
    let of = |key: &str| format!("{setting}.{key}");
    if matches!(&endpoints.value, Value::List(items) if items.is_empty()) {
        let problem =
            Problem::error("there are no endpoints", "list at least one, like [http://127.0.0.1:9001]");
        problems.push(problem.at(&endpoints.span).of(of("endpoints")));
    }
    let mut seen: HashMap<String, &Range<usize>> = HashMap::new();
    let mut readable = 0;
    let mut secure = 0;
    for item in endpoints.items() {
        let Some(Ok(url)) = item.text().map(endpoint) else { continue };
        secure += usize::from(url.scheme() == "https");
        let shown = format!("{}://{}", url.scheme(), url.servers()[0]);
        readable += 1;
        match seen.get(&shown) {
            Some(first) => {
                let problem = Problem::warning(format!("`{shown}` is listed twice"), "remove one of them");
                problems.push(problem.at(&item.span).of(of("endpoints")).see(first, "first listed here"));
            }
            None => {
                seen.insert(shown, &item.span);
            }
        }
    }
    if let Some(tls) = node.entry("tls")
        && !tls.value.is_null()
        && secure == 0
        && readable == endpoints.items().len()
    {
        let problem = Problem::error(
            "no endpoint is https, so `tls` has no use",
            "write https:// endpoints, or remove `tls`",
        );
        problems.push(problem.at(&tls.key_span).of(of("tls")));
    }
}

fn not_zero(node: &Node, key: &str, remedy: &str, setting: &str, problems: &mut Vec<Problem>) {
    let zero = parsed::<HumanDuration>(node, key).is_some_and(|duration| duration.is_zero());
    if let Some(at) = node.get(key).filter(|_| zero) {
        let problem = Problem::error("a time of zero would fail every call", remedy);
        problems.push(problem.at(&at.span).of(format!("{setting}.{key}")));
    }
}

/// A time has to lie within what its part takes.
fn time_within(
    (node, key): (&Node, &str),
    range: RangeInclusive<Duration>,
    remedy: &str,
    setting: &str,
    problems: &mut Vec<Problem>,
) {
    let Some(time) = parsed::<HumanDuration>(node, key) else { return };
    if let Some(at) = node.get(key).filter(|_| !range.contains(&*time)) {
        let problem = Problem::error(format!("a time of {time} is out of range"), remedy);
        problems.push(problem.at(&at.span).of(format!("{setting}.{key}")));
    }
}

/// A section whose entries are named elsewhere.
struct Named {
    section: &'static str,
    noun: &'static str,
    user: &'static str,
    in_one: &'static str,
}

impl Named {
    /// Finds names that nothing has, among `uses` and the settings they stand in, and entries that nobody names.
    fn references<'a>(
        &self,
        root: &Node,
        uses: impl Iterator<Item = (&'a Node, String)>,
        problems: &mut Vec<Problem>,
    ) {
        let Self { section, noun, user, in_one } = self;
        let known: BTreeSet<&str> = entries(root, section).iter().map(|entry| entry.key.as_str()).collect();
        let mut used = BTreeSet::new();
        let mut doubtful = false;
        for (node, setting) in uses {
            let Some(name) = node.text() else { continue };
            used.insert(name);
            if !known.contains(name) {
                doubtful = true;
                let remedy = if known.is_empty() {
                    format!("add it: {section}: {{ {name}: {{ issuer: https://host, client_id: NAME, … }} }}")
                } else {
                    suggest::remedy(name, noun, known.iter().copied())
                };
                let problem = Problem::error(format!("there is no {noun} {}", quoted(name)), remedy);
                problems.push(problem.at(&node.span).of(setting));
            }
        }
        let unused = |entry: &&Entry| !doubtful && !used.contains(entry.key.as_str());
        for entry in entries(root, section).iter().filter(unused) {
            let problem = Problem::warning(
                format!("no {user} uses the {noun} {}", quoted(&entry.key)),
                format!("name it in {in_one}: {noun}: NAME, or remove it"),
            );
            problems.push(problem.at(&entry.key_span).of(*section));
        }
    }
}

/// Bounds that the HTTP library or common sense set to bounds.
fn bounds(root: &Node, problems: &mut Vec<Problem>) {
    const HEADER_BYTES: RangeInclusive<u64> = 8 << 10..=16 << 20;
    let Some(node) = root.get("bounds") else { return };
    let bytes: Option<ByteSize> = parsed(node, "header_bytes");
    if let Some(bytes) = bytes.filter(|bytes| !HEADER_BYTES.contains(&bytes.0))
        && let Some(at) = node.get("header_bytes")
    {
        let problem = Problem::error(
            format!("a bound of {bytes} on request heads is out of range"),
            "write 8KiB to 16MiB",
        );
        problems.push(problem.at(&at.span).of("bounds.header_bytes"));
    }
    for key in ["header_timeout", "keep_alive"] {
        not_zero(node, key, "write a time that is not zero", "bounds", problems);
    }
}

/// Trust in everybody lets every client choose its address, and with it its limit.
/// Marks of memory that make no sense, and how often it is looked at.
fn pressure(root: &Node, problems: &mut Vec<Problem>) {
    let Some(node) = root.get("pressure").filter(|node| matches!(node.value, Value::Map(_))) else { return };
    let usual = Pressure::default().settings().limits;
    let mark = |key: &str, usual: u32| parsed::<Percent>(node, key).map_or(usual, |mark| mark.0.into());
    let marks = Limits {
        high: mark("high", usual.high),
        critical: mark("critical", usual.critical),
        stalled_high: mark("stalled_high", usual.stalled_high),
        stalled_critical: mark("stalled_critical", usual.stalled_critical),
        ..usual
    };
    if let Err(wrong) = marks.check() {
        let (InvalidLimits::Mark(key, _) | InvalidLimits::Order(key, ..)) = wrong;
        let said = wrong.to_string();
        let (message, remedy) = said.split_once("; ").unwrap_or((&said, ""));
        let at = node.get(key).unwrap_or(node);
        let message = message.trim_start_matches("pressure: ");
        problems.push(Problem::error(message, remedy).at(&at.span).of(format!("pressure.{key}")));
    }
    let remedy = "write 10ms to 1m, like 1s";
    time_within((node, "every"), 10 * MILLISECOND..=60 * SECOND, remedy, "pressure", problems);
}

fn trusted(root: &Node, problems: &mut Vec<Problem>) {
    for item in root.get("trusted_proxies").map_or(&[][..], Node::items) {
        let cidr: Option<Cidr> = item.text().and_then(|text| text.parse().ok());
        if cidr.is_some_and(|cidr| cidr.is_everything()) {
            let problem = Problem::warning(
                "every client is believed, so each can choose the address that it is limited by",
                "list the networks of your proxies only",
            );
            problems.push(problem.at(&item.span).of("trusted_proxies"));
        }
    }
}
