//! Calls as an access log has them: Tidegate's own, as text or JSON, or nginx's `combined`.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader},
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use jiff::{Timestamp, fmt::strtime};
use serde::Deserialize;
use tidegate_core::simulation::Call;

use super::Nodes;
use crate::{
    config::{Config, Limit},
    cost::CostSource,
    key::{Extractor, Facts},
    proxy::target::{host_of, normalised},
    route::{InvalidMatch, Matcher, Routes},
};

/// Why a trace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It cannot be read.
    #[error("cannot read the trace {}: {error}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A line is no line of an access log.
    #[error(
        "{}:{line}: not a line of an access log: {why}; a trace is Tidegate's access log, as text or JSON, or nginx's \
         `combined`",
        file.display()
    )]
    Line {
        /// The file.
        file: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is not one call in it.
    #[error("the trace {} has no calls", .0.display())]
    Empty(PathBuf),
    /// A route of the configuration.
    #[error("routes: {0}")]
    Route(#[from] InvalidMatch),
}

/// A trace, in order of time.
#[derive(Debug)]
pub(super) struct Trace {
    entries: Vec<Entry>,
    routes: Routes<Vec<String>>,
}

#[derive(Debug)]
struct Entry {
    /// Microseconds since the Unix epoch.
    at: u64,
    client: IpAddr,
    method: Method,
    host: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    request_bytes: Option<u64>,
    response_bytes: Option<u64>,
}

/// A line of Tidegate's JSON log. `headers` is nothing that Tidegate logs: whoever makes a trace may add it.
#[derive(Deserialize)]
struct JsonLine {
    time: Timestamp,
    client: IpAddr,
    method: String,
    target: String,
    host: Option<String>,
    referer: Option<String>,
    user_agent: Option<String>,
    request_bytes: Option<u64>,
    response_bytes: Option<u64>,
    #[serde(default)]
    headers: HashMap<String, String>,
}

impl Trace {
    /// Reads a whole trace.
    ///
    /// # Errors
    /// [`TraceError`], with the line.
    pub(super) fn read(file: &Path, config: &Config) -> Result<Self, TraceError> {
        let io = |error| TraceError::Io { file: file.to_owned(), error };
        let mut entries = Vec::new();
        for (at, line) in BufReader::new(File::open(file).map_err(io)?).lines().enumerate() {
            let line = line.map_err(io)?;
            if line.trim().is_empty() {
                continue;
            }
            let wrong = |why| TraceError::Line { file: file.to_owned(), line: at + 1, why };
            let entry = if line.starts_with('{') { json(&line) } else { text(&line) };
            entries.push(entry.map_err(wrong)?);
        }
        if entries.is_empty() {
            return Err(TraceError::Empty(file.to_owned()));
        }
        entries.sort_by_key(|entry| entry.at);
        spread(&mut entries);
        // A log that mixes whole seconds with parts of them is out of order now.
        entries.sort_by_key(|entry| entry.at);
        let routes = config.routes.iter();
        let routes = routes.map(|route| Ok((Matcher::new(&route.matches)?, route.limits.clone())));
        Ok(Self { entries, routes: Routes::new(routes.collect::<Result<Vec<_>, InvalidMatch>>()?) })
    }

    /// The time of the first call, in microseconds since the Unix epoch.
    pub(super) fn start(&self) -> u64 {
        self.entries.first().map_or(0, |entry| entry.at)
    }

    /// From the first call to the last.
    pub(super) fn length(&self) -> Duration {
        let last = self.entries.last().map_or(0, |entry| entry.at);
        Duration::from_micros(last - self.start() + 1)
    }

    /// The calls whose route has this limit, and what is to be known of their keys.
    pub(super) fn calls_of(
        &self,
        name: &str,
        limit: &Limit,
        nodes: &Nodes,
    ) -> Result<(Vec<Call>, Option<String>), TraceError> {
        let key: Vec<Extractor> = limit.key.iter().filter_map(|text| text.parse().ok()).collect();
        let (mut keys, mut parts) = (HashMap::new(), Vec::new());
        let (mut calls, mut lacking) = (Vec::new(), 0);
        let mut nodes = nodes.clone();
        for entry in &self.entries {
            let found = self.routes.find(&entry.host, &entry.path, &entry.method, &entry.headers);
            if !found.is_some_and(|limits| limits.iter().any(|limit| limit == name)) {
                continue;
            }
            parts.clear();
            let mut lacks = false;
            for extractor in &key {
                extractor.feed(&entry.facts(), |part| {
                    lacks |= part.is_none();
                    parts.push(part.map(<[u8]>::to_vec));
                });
            }
            lacking += u64::from(lacks);
            let next = keys.len() as u64;
            let key = *keys.entry(parts.clone()).or_insert(next);
            let cost = entry.cost(limit);
            calls.push(Call { at: entry.at - self.start(), node: nodes.next(), key, cost });
        }
        let note = (lacking > 0).then(|| {
            let (all, key) = (calls.len(), limit.key.join(" and "));
            format!("{name}: {lacking} of {all} calls of the trace lack a part of its key ({key}); they share a counter")
        });
        Ok((calls, note))
    }
}

impl Entry {
    fn facts(&self) -> Facts<'_> {
        let Self { client, method, host, path, query, headers, .. } = self;
        Facts { method, host, path, query: query.as_deref(), headers, client: *client, user: None }
    }

    fn cost(&self, limit: &Limit) -> u32 {
        let units = match limit.cost.source() {
            Some(CostSource::RequestBytes) => self.request_bytes,
            Some(CostSource::ResponseBytes) => self.response_bytes,
            Some(CostSource::RequestHeader(name)) => {
                self.headers.get(name).and_then(|value| value.to_str().ok()?.parse().ok())
            }
            Some(CostSource::ResponseHeader(_)) | None => None,
        };
        units.map_or(limit.cost.estimate().get(), |units| u32::try_from(units).unwrap_or(u32::MAX).max(1))
    }

    fn new(at: u64, client: IpAddr, method: &str, target: &str) -> Result<Self, &'static str> {
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| "the method is none")?;
        // The absolute form has its host before the path.
        let target = match target.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
            None => target,
        };
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let path = normalised(path).map_or_else(|| path.to_owned(), Into::into);
        let (host, headers) = (String::new(), HeaderMap::new());
        Ok(Self { at, client, method, host, path, query, headers, request_bytes: None, response_bytes: None })
    }

    fn with_header(mut self, name: HeaderName, value: Option<&str>) -> Self {
        if let Some(value) =
            value.filter(|value| *value != "-").and_then(|value| HeaderValue::from_str(value).ok())
        {
            self.headers.insert(name, value);
        }
        self
    }

    fn with_host(mut self, host: Option<&str>) -> Self {
        if let Some(host) = host {
            host_of(host).clone_into(&mut self.host);
        }
        self.with_header(header::HOST, host)
    }
}

fn micros(time: Timestamp) -> Result<u64, &'static str> {
    u64::try_from(time.as_microsecond()).map_err(|_| "its time is before 1970")
}

fn json(line: &str) -> Result<Entry, &'static str> {
    let line: JsonLine = serde_json::from_str(line)
        .map_err(|_| "it lacks time, client, method or target, or one of its values is wrong")?;
    let mut entry = Entry::new(micros(line.time)?, line.client, &line.method, &line.target)?
        .with_host(line.host.as_deref())
        .with_header(header::REFERER, line.referer.as_deref())
        .with_header(header::USER_AGENT, line.user_agent.as_deref());
    (entry.request_bytes, entry.response_bytes) = (line.request_bytes, line.response_bytes);
    for (name, value) in line.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "a name in headers is none")?;
        entry = entry.with_header(name, Some(&value));
    }
    Ok(entry)
}

/// `client - user [time] "method target protocol" status bytes "referer" "user agent"`, and then Tidegate's own fields.
fn text(line: &str) -> Result<Entry, &'static str> {
    const SHAPE: &str = "it is not `client - - [time] \"METHOD TARGET PROTOCOL\" STATUS BYTES`";
    let (client, rest) = line.split_once(' ').ok_or(SHAPE)?;
    let client = client.parse().map_err(|_| "it does not begin with an IP address")?;
    let (_, rest) = rest.split_once('[').ok_or(SHAPE)?;
    let (time, rest) = rest.split_once("] \"").ok_or(SHAPE)?;
    let time = strtime::parse("%d/%b/%Y:%H:%M:%S %z", time).and_then(|time| time.to_timestamp());
    let time = time.map_err(|_| "its time is not like 21/Nov/2026:05:12:48 +0000")?;
    let (request, rest) = rest.split_once("\" ").ok_or(SHAPE)?;
    let mut request = request.split(' ');
    let (method, target) = (request.next().ok_or(SHAPE)?, request.next().ok_or(SHAPE)?);
    let mut quoted = rest.split('"');
    let numbers = quoted.next().unwrap_or_default();
    let (referer, user_agent) = (quoted.next(), quoted.nth(1));
    let mut entry = Entry::new(micros(time)?, client, method, target)?
        .with_host(field(rest, "host"))
        .with_header(header::REFERER, referer)
        .with_header(header::USER_AGENT, user_agent);
    entry.response_bytes = numbers.split(' ').nth(1).and_then(|bytes| bytes.parse().ok());
    entry.request_bytes = rest
        .split(" request_bytes=")
        .nth(1)
        .and_then(|after| after.split(' ').next())
        .and_then(|bytes| bytes.parse().ok());
    Ok(entry)
}

fn field<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    let (_, after) = line.split_once(&format!(" {name}=\""))?;
    after.split('"').next()
}

/// Logs that count whole seconds have all calls of one at its beginning: spreads them over it evenly.
fn spread(entries: &mut [Entry]) {
    const SECOND: u64 = 1_000_000;
    for calls in entries.chunk_by_mut(|one, next| one.at == next.at) {
        let count = calls.len() as u64;
        if calls.first().is_some_and(|call| call.at % SECOND == 0) {
            for (turn, call) in (0..).zip(calls) {
                call.at += turn * SECOND / count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "192.0.2.7 - - [21/Nov/2026:05:12:48 +0000] \"GET /orders/7?user=joe HTTP/1.1\" 200 512 \"-\" \
                        \"curl/8\" host=\"api.example.com:443\" route=\"orders\" upstream=\"orders\" request_bytes=77 \
                        duration=0.001";

    #[test]
    fn the_formats_that_people_have_say_the_same() {
        let nginx = "192.0.2.7 - joe [21/Nov/2026:06:12:48 +0100] \"GET /orders/7?user=joe HTTP/1.1\" 200 512 \"-\" \"curl/8\"";
        let object = r#"{"time":"2026-11-21T05:12:48Z","client":"192.0.2.7","status":200,"method":"GET","target":"/orders/7?user=joe","host":"api.example.com:443","user_agent":"curl/8","response_bytes":512,"headers":{"X-Api-Key":"k"}}"#;
        let (ours, nginx, object) = (text(OURS).unwrap(), text(nginx).unwrap(), json(object).unwrap());
        for entry in [&ours, &nginx, &object] {
            assert_eq!((entry.at, entry.path.as_str()), (1_795_237_968_000_000, "/orders/7"), "{entry:?}");
            assert_eq!((entry.query.as_deref(), entry.response_bytes), (Some("user=joe"), Some(512)));
            assert_eq!(entry.headers["user-agent"], "curl/8");
        }
        assert_eq!((ours.host.as_str(), ours.request_bytes), ("api.example.com", Some(77)));
        assert_eq!((object.host.as_str(), nginx.host.as_str()), ("api.example.com", ""));
        assert_eq!(object.headers["x-api-key"], "k");
    }

    #[test]
    fn a_line_that_is_none_says_why() {
        for (line, why) in [
            ("hello", "it is not `client"),
            ("localhost - - [x] \"GET / HTTP/1.1\" 200 5", "IP address"),
            ("::1 - - [yesterday] \"GET / HTTP/1.1\" 200 5", "like 21/Nov/2026"),
            ("::1 - - [21/Nov/2026:05:12:48 +0000] \"\" 400 5", "it is not `client"),
        ] {
            let error = text(line).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
        assert!(json("{\"time\": 5}").is_err());
    }

    #[test]
    fn calls_of_one_second_are_spread_over_it() {
        let mut entries: Vec<_> = (0..4).map(|_| text(OURS).unwrap()).collect();
        spread(&mut entries);
        let parts: Vec<_> = entries.iter().map(|entry| entry.at % 1_000_000).collect();
        assert_eq!(parts, [0, 250_000, 500_000, 750_000]);
    }
}
