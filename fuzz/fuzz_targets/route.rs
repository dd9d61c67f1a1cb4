//! Any routes and any calls: the route that is found is the first of the most specific that match.
#![cfg_attr(fuzzing, no_main)]

use std::{borrow::Cow, collections::BTreeMap};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tidegate_gateway::{
    config::Match,
    proxy::target::normalised,
    route::{Matcher, Routes},
};

/// What hosts and paths are made of, so that some match.
const HOST: [&str; 8] = ["a", "B", ".", "*.", "b.a", "-", "[::1]", ""];
const PATH: [&str; 13] = ["/", "/a", "/b", "a", ".", "..", "%2e", "%2E", "/..", "/.", "%", "?", "%61"];
const METHODS: [&str; 3] = ["GET", "POST", "ODD"];
const FIELDS: [&str; 4] = ["x-a", "X-A", "x-b", "x b"];

fn route(data: &[u8]) {
    let mut input = Input(data);
    let mut routes = Vec::new();
    for _ in 0..input.below(9) {
        let (host, path) = (input.text(&HOST), input.text(&PATH));
        let mut config = Match {
            host: (!host.is_empty()).then_some(host),
            path: (!path.is_empty()).then_some(path),
            methods: (0..input.below(3)).map(|_| METHODS[input.below(3)].to_owned()).collect(),
            headers: (0..input.below(3))
                .map(|_| (FIELDS[input.below(4)].to_owned(), input.below(2).to_string()))
                .collect::<BTreeMap<_, _>>(),
        };
        match Matcher::new(&config) {
            Ok(matcher) => {
                // What need not be escaped means itself.
                config.path = config.path.and_then(|path| normalised(&path).map(Cow::into_owned));
                routes.push((matcher, config));
            }
            Err(why) => assert!(!why.to_string().is_empty()),
        }
    }
    let table = Routes::new(routes.iter().enumerate().map(|(at, (matcher, _))| (matcher.clone(), at)));
    for _ in 0..4 {
        let (host, path) = (input.text(&HOST), format!("/{}", input.text(&PATH)));
        let Some(path) = normalised(&path) else { continue };
        assert!(!path.split('/').any(is_dots) && path.starts_with('/'), "{path}");
        assert_eq!(normalised(&path).as_deref(), Some(&*path));
        let method: Method = METHODS[input.below(3)].parse().expect("it is a token");
        let mut headers = HeaderMap::new();
        for _ in 0..input.below(4) {
            if let Ok(name) = HeaderName::from_bytes(FIELDS[input.below(4)].as_bytes()) {
                headers.append(name, HeaderValue::from(input.below(2)));
            }
        }
        let found = table.find(&host, &path, &method, &headers).copied();
        let matching = routes
            .iter()
            .enumerate()
            .filter(|(_, (_, config))| matches(config, &host, &path, &method, &headers));
        // The last of equals is the greatest for `max_by_key`, so the first stands last.
        let most = matching.rev().max_by_key(|(_, (_, config))| specificity(config)).map(|(at, _)| at);
        assert_eq!(found, most, "{host} {path} {method} {headers:?} in {routes:?}");
    }
}

fn is_dots(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

fn prefix(config: &Match) -> &str {
    config.path.as_deref().unwrap_or("").trim_end_matches('/')
}

fn specificity(config: &Match) -> impl Ord {
    let host = match config.host.as_deref() {
        None => (0, 0),
        Some(host) => host.strip_prefix('*').map_or((2, 0), |suffix| (1, suffix.len())),
    };
    (host, prefix(config).len(), !config.methods.is_empty(), config.headers.len())
}

fn matches(config: &Match, host: &str, path: &str, method: &Method, headers: &HeaderMap) -> bool {
    let host = host.to_ascii_lowercase();
    let wanted = config.host.as_deref().map(str::to_ascii_lowercase);
    let host = match wanted.as_deref() {
        None => true,
        Some(wanted) => match wanted.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == wanted,
        },
    };
    let prefix = prefix(config);
    host && (path == prefix || path.starts_with(&format!("{prefix}/")))
        && (config.methods.is_empty() || config.methods.iter().any(|wanted| wanted == method.as_str()))
        && config.headers.iter().all(|(name, value)| headers.get_all(name).iter().any(|given| given == value))
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn below(&mut self, bound: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % bound
    }

    fn text(&mut self, parts: &[&str]) -> String {
        (0..self.below(6)).map(|_| parts[self.below(parts.len())]).collect()
    }
}

tidegate_fuzz::target!(route);
