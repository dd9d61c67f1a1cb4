//! `tidegate simulate`: what the limits of a configuration would have done to a trace or to a made-up load, decided by
//! the real core on virtual time.

mod picture;
mod report;
mod trace;

use std::{
    fs,
    io::IsTerminal as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use tidegate_core::{
    Rate,
    ledger::Rule,
    simulation::{Call, Dice, Fault, Fleet, Load, Report, Scenario, Zipf},
};

use self::trace::Trace;
use crate::{
    cli::Simulate,
    config::{self, Config, Limit, Problems, Source},
};

/// Why nothing was simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The configuration.
    #[error("{0}")]
    Config(String),
    /// There is nothing to try.
    #[error("{} has no limits; write some under limits:, or try one with --try 1000/s", .0.display())]
    NoLimits(PathBuf),
    /// No limit has this name.
    #[error("no limit is called `{name}`; there are {known}")]
    NoSuchLimit {
        /// As given.
        name: String,
        /// What there is.
        known: String,
    },
    /// A rate that the limit cannot have.
    #[error("limits.{limit} at {rate}: {why}")]
    Rule {
        /// The limit.
        limit: String,
        /// What was tried.
        rate: String,
        /// What is wrong with it.
        why: String,
    },
    /// More calls than memory is meant to hold.
    #[error(
        "{calls} calls in {length:?} are too many, as one run takes at most {MOST_CALLS}; lower --rate or --for"
    )]
    TooMany {
        /// How long.
        length: Duration,
        /// Calls that would be.
        calls: u64,
    },
    /// A fault of a gateway that is not there.
    #[error(
        "gateway {node} cannot die where there are {nodes}; raise --nodes, or lower the number in dies:{node}"
    )]
    NoSuchNode {
        /// As given, from 1.
        node: usize,
        /// How many there are.
        nodes: usize,
    },
    /// A fault after the last call.
    #[error("the fault at {at:?} is after the calls, which end at {length:?}; lower its @, or raise --for")]
    LateFault {
        /// When it would happen.
        at: Duration,
        /// When the calls end.
        length: Duration,
    },
    /// The trace.
    #[error(transparent)]
    Trace(#[from] trace::TraceError),
    /// The picture cannot be written.
    #[error("cannot write {}: {error}", file.display())]
    Picture {
        /// The file.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// Most calls of one run: each takes 32 bytes.
const MOST_CALLS: u64 = 100_000_000;

/// Of windows longer than this, two are tried and not ten.
const LONG_WINDOW: Duration = Duration::from_secs(3600);

/// A limit, or what was tried in its place, and what became of the calls.
#[derive(Debug)]
struct Run {
    limit: String,
    /// How many per how long, as written.
    amount: String,
    counting: &'static str,
    rule: Rule,
    report: Report,
}

/// Runs the simulation, and says what there is to print.
///
/// # Errors
/// [`SimulateError`] says what is wrong and what to write instead. Nothing is written then.
pub fn simulate(what: &Simulate) -> Result<String, SimulateError> {
    let nodes_there = what.nodes.get() as usize;
    for fault in &what.faults {
        if let Fault::Dies(node) = fault.what
            && node >= nodes_there
        {
            return Err(SimulateError::NoSuchNode { node: node + 1, nodes: nodes_there });
        }
    }
    let config = configuration(what)?;
    let limits = chosen(what, &config)?;
    let mut tried = Vec::new();
    for (name, limit) in &limits {
        for limit in variants(limit, &what.rates) {
            let wrong = |why: config::InvalidLimit| SimulateError::Rule {
                limit: (*name).to_owned(),
                rate: limit.amount(),
                why: why.to_string(),
            };
            let rule = limit.rule().map_err(wrong)?;
            tried.push((*name, limit, rule));
        }
    }
    let trace = what.trace.as_deref().map(|file| Trace::read(file, &config)).transpose()?;
    let mut runs = Vec::new();
    let mut notes = Vec::new();
    for (name, limit, rule) in tried {
        let (calls, start, length) = match &trace {
            Some(trace) => {
                let (calls, note) = trace.calls_of(name, &limit, &nodes(what))?;
                notes.extend(note);
                (calls, Some(trace.start()), trace.length())
            }
            None => {
                let (calls, length) = made_up(what, &limit, &rule)?;
                (calls, None, length)
            }
        };
        if let Some(late) = what.faults.iter().find(|fault| fault.at >= length) {
            return Err(SimulateError::LateFault { at: late.at, length });
        }
        let report = run(what, name, rule, calls, start, length);
        let (amount, counting) = (limit.amount(), limit.counting().map_or("", |counting| counting.name()));
        runs.push(Run { limit: name.to_owned(), amount, counting, rule, report });
    }
    notes.dedup();
    if let Some(file) = &what.svg {
        let written = fs::write(file, picture::draw(&runs));
        written.map_err(|error| SimulateError::Picture { file: file.clone(), error })?;
    }
    Ok(if what.json { report::json(&runs, &notes) } else { report::text(&runs, &notes, what) })
}

fn configuration(what: &Simulate) -> Result<Config, SimulateError> {
    let loaded = match &what.config {
        Some(file) => config::load(&Source::File(file.clone())),
        // Nothing is sent, so where the example would be does not matter.
        None => Ok(config::Loaded::given(&config::embedded(([127, 0, 0, 1], 0).into()))),
    };
    let shown = |problems: Problems| {
        let text = problems.render(config::Style::of_terminal());
        SimulateError::Config(format!("the configuration cannot be used\n{text}"))
    };
    Ok(loaded.map_err(shown)?.config)
}

/// The limits that are asked for; without any, all of them.
fn chosen<'c>(what: &Simulate, config: &'c Config) -> Result<Vec<(&'c str, &'c Limit)>, SimulateError> {
    let all = || config.limits.iter().map(|(name, limit)| (name.as_str(), limit));
    if config.limits.is_empty() {
        return Err(SimulateError::NoLimits(what.config.clone().unwrap_or_default()));
    }
    if what.limits.is_empty() {
        return Ok(all().collect());
    }
    let find = |wanted: &String| {
        all().find(|(name, _)| name == wanted).ok_or_else(|| SimulateError::NoSuchLimit {
            name: wanted.clone(),
            known: all().map(|(name, _)| name).collect::<Vec<_>>().join(", "),
        })
    };
    what.limits.iter().map(find).collect()
}

/// The limit as it is, and then with each of `rates` in place of its own.
fn variants(limit: &Limit, rates: &[Rate]) -> Vec<Limit> {
    let own = std::iter::once(limit.clone());
    let others = rates.iter().map(|rate| Limit { rate: Some(*rate), quota: None, ..limit.clone() });
    own.chain(others).collect()
}

fn nodes(what: &Simulate) -> Nodes {
    Nodes { shares: Zipf::new(what.nodes.get() as usize, what.skew), dice: Dice::new(what.seed) }
}

/// Deals calls to nodes, as a load balancer in front of them does.
#[derive(Clone, Debug)]
struct Nodes {
    shares: Zipf,
    dice: Dice,
}

impl Nodes {
    fn next(&mut self) -> usize {
        self.shares.pick(&mut self.dice)
    }
}

fn made_up(what: &Simulate, limit: &Limit, rule: &Rule) -> Result<(Vec<Call>, Duration), SimulateError> {
    let window = Duration::from_micros(rule.window());
    let calls_per_second = match what.rate {
        Some(rate) => f64::from(rate.count()) / rate.period().as_secs_f64(),
        None => 1.5 * f64::from(rule.limit()) / f64::from(limit.cost.estimate().get()) / window.as_secs_f64(),
    };
    let windows = if window > LONG_WINDOW { 2 } else { 10 };
    let by_window = || (window * windows).max(Duration::from_secs(10));
    let length = what.length.map_or_else(by_window, |length| *length);
    let calls = (calls_per_second * length.as_secs_f64()) as u64;
    if calls > MOST_CALLS {
        return Err(SimulateError::TooMany { length, calls });
    }
    let load = Load {
        nodes: what.nodes.get() as usize,
        calls_per_second,
        skew: what.skew,
        keys: if limit.key.is_empty() { 1 } else { what.keys.get() as usize },
        key_skew: what.key_skew,
        cost: limit.cost.estimate().get(),
        seed: what.seed,
    };
    Ok((load.calls(length).collect(), length))
}

fn run(
    what: &Simulate,
    name: &str,
    rule: Rule,
    calls: Vec<Call>,
    start: Option<u64>,
    length: Duration,
) -> Report {
    let mut scenario = Scenario::new(rule);
    scenario.latency = *what.latency;
    scenario.seed = what.seed;
    scenario.faults = what.faults.iter().map(|fault| (fault.at, fault.what)).collect();
    scenario.start = start.unwrap_or(scenario.start);
    let bar = bar(name, calls.len() as u64);
    let mut drawn = Instant::now();
    let report = Fleet::new(scenario, what.nodes.get() as usize).run(calls.into_iter(), length, |progress| {
        if drawn.elapsed() > Duration::from_millis(50) {
            drawn = Instant::now();
            bar.set_position(progress.calls);
        }
    });
    bar.finish_and_clear();
    report
}

/// A bar on a terminal, and nothing elsewhere.
fn bar(name: &str, calls: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{prefix} {wide_bar} {human_pos} of {human_len} calls, {eta} left")
            .expect("the template is sound");
    ProgressBar::new(calls).with_style(style).with_prefix(name.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    const CONFIG: &str = "\
upstreams:
  orders: { endpoints: [\"http://127.0.0.1:9001\"] }
limits:
  backend: { rate: 100/s, algorithm: fixed-window }
  per-client: { rate: 10/s, key: [client-ip] }
routes:
  - { match: { path: /orders }, upstream: orders, limits: [backend, per-client] }
  - { upstream: orders, limits: [per-client] }
";

    fn parsed(line: &str) -> Simulate {
        let line = ["tidegate", "simulate"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(line).unwrap().command.unwrap() {
            Command::Simulate(what) => what,
            other => panic!("{other:?}"),
        }
    }

    fn folder(trace: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tidegate.yaml"), CONFIG).unwrap();
        fs::write(folder.path().join("access.log"), trace).unwrap();
        folder
    }

    fn found(what: &Simulate) -> serde_json::Value {
        serde_json::from_str(&simulate(&Simulate { json: true, ..what.clone() }).unwrap()).unwrap()
    }

    #[test]
    fn a_made_up_load_is_decided_by_each_limit_and_each_rate_that_is_tried() {
        let folder = folder("");
        let at = folder.path().display();
        let what = parsed(&format!(
            "-c {at}/tidegate.yaml --limit backend --try 50/s --rate 150/s --for 5s --nodes 3 --fault lost@2s --svg {at}/a.svg"
        ));
        let found = found(&what);
        let runs = found["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 2);
        for (run, most) in runs.iter().zip([100, 50]) {
            assert_eq!(run["over"], 0);
            let windows = run["windows"].as_array().unwrap();
            assert!(windows.iter().all(|window| window["admitted"].as_u64().unwrap() <= most), "{windows:?}");
            assert!(windows[0]["admitted"].as_u64().unwrap() > most * 9 / 10, "{windows:?}");
        }
        let picture = fs::read_to_string(folder.path().join("a.svg")).unwrap();
        assert!(picture.contains("backend: 100/s") && picture.contains("backend: 50/s"), "{picture}");
    }

    #[test]
    fn a_trace_is_keyed_and_routed_as_the_gateway_does() {
        let line = |client: &str, path: &str| {
            format!("{client} - - [21/Nov/2026:05:12:48 +0000] \"GET {path} HTTP/1.1\" 200 5 \"-\" \"-\"\n")
        };
        let trace: String =
            [line("192.0.2.1", "/orders/1").repeat(60), line("192.0.2.2", "/").repeat(4)].concat();
        let folder = folder(&trace);
        let at = folder.path().display();
        let found = found(&parsed(&format!("-c {at}/tidegate.yaml --trace {at}/access.log --nodes 1")));
        let of = |name: &str| {
            let runs = found["runs"].as_array().unwrap();
            runs.iter().find(|run| run["limit"] == name).unwrap().clone()
        };
        assert_eq!((&of("backend")["offered"], &of("backend")["refused"]), (&60.into(), &0.into()));
        assert_eq!(of("per-client")["offered"], 64);
        let refused = of("per-client")["refused"].as_u64().unwrap();
        assert!(
            (38..=60).contains(&refused),
            "60 calls of one client in a second, at 10/s and a burst of 10: {refused}"
        );
    }

    #[test]
    fn what_cannot_be_simulated_says_what_to_write_instead() {
        let folder = folder("hello\n");
        let at = folder.path().display();
        for (line, remedy) in [
            (format!("-c {at}/tidegate.yaml --limit nobody"), "there are backend, per-client"),
            (
                format!("-c {at}/tidegate.yaml --trace {at}/access.log"),
                "access.log:1: not a line of an access log",
            ),
            (format!("-c {at}/nothing.yaml"), "nothing.yaml"),
            ("--rate 4000000000/s --for 1d".into(), "lower --rate or --for"),
            // A bucket that fills in less time than any rate has as its period.
            ("--limit backend --try 4000000/s --rate 4000000000/s --for 1d".into(), "lower --rate or --for"),
            ("--for 10s --fault lost@100s".into(), "lower its @, or raise --for"),
            ("--nodes 2 --fault dies:3@1s".into(), "gateway 3 cannot die where there are 2"),
            (format!("-c {at}/tidegate.yaml --for 1s --svg {at}/no/such.svg"), "cannot write"),
        ] {
            let error = simulate(&parsed(&line)).unwrap_err().to_string();
            assert!(error.contains(remedy), "{line}: {error}");
        }
    }
}
