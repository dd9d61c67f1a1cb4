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
    simulation::{Call, Dice, Fleet, Load, Report, Scenario, Zipf},
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
        "{rate} for {length:?} is {calls} calls, and one run takes at most {MOST_CALLS}; lower --rate or --for"
    )]
    TooMany {
        /// Calls per time.
        rate: Rate,
        /// How long.
        length: Duration,
        /// Calls that would be.
        calls: u64,
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
        None => 1.5 * f64::from(rule.limit()) / window.as_secs_f64(),
    };
    let length = what.length.map_or_else(|| (window * 10).max(Duration::from_secs(10)), |length| *length);
    let calls = (calls_per_second * length.as_secs_f64()) as u64;
    if calls > MOST_CALLS {
        let rate =
            what.rate.or(limit.rate).unwrap_or(Rate::new(rule.limit(), window).expect("a rule's window"));
        return Err(SimulateError::TooMany { rate, length, calls });
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
