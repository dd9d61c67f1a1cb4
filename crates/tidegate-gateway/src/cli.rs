//! The command line.

use std::{
    convert::Infallible, net::SocketAddr, num::NonZeroU32, path::PathBuf, str::FromStr, time::Duration,
};

use clap::{Args, Parser, Subcommand, builder::NonEmptyStringValueParser};
use tidegate::{
    Secret,
    registry::{Address, ServiceName},
};
use tidegate_core::{Rate, simulation::Fault};
use tidegate_etcd::Layout;

use crate::config::{EndpointArg, HumanDuration};

/// Keeps the services that everybody depends on alive.
///
/// Without a command it is `tidegate serve`: a gateway on 127.0.0.1:8080 in front of a small built-in example.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 100)]
#[command(
    after_help = "Environment: TIDEGATE_CONFIG is --config; TIDEGATE_LOG is the filter of the log, like debug or \
                        info,tidegate_gateway=debug, in place of log.level; TIDEGATE_ADMIN is --admin of limits; TIDEGATE_REGISTRY is \
                        --registry of register.\n\n\
                        Signals: SIGHUP reloads the configuration, SIGUSR2 puts a new process in the place of this one without \
                        losing a call, SIGTERM and SIGINT drain, a second one aborts.\n\n\
                        Exit codes: 0 after an orderly end, 1 when it could not run or was aborted, 2 for a wrong command \
                        line or configuration."
)]
pub struct Cli {
    /// What to do. Default: serve the built-in example.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Cli {
    /// What to do: without a command, what `tidegate serve` does, its environment included.
    pub fn command_or_serve(self) -> Command {
        self.command.unwrap_or_else(|| {
            let serve = Self::try_parse_from(["tidegate", "serve"]).unwrap_or_else(|error| error.exit());
            serve.command.unwrap_or_else(|| Command::Serve(Serve::default()))
        })
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway.
    Serve(Serve),
    /// Validate a configuration without starting: exit 0, or 2 with every error at once.
    Check {
        /// The configuration file, YAML.
        file: PathBuf,
    },
    /// Print the JSON Schema of the configuration, for editors and CI.
    Schema,
    /// Read, adjust and reset the counters of a running gateway.
    #[command(subcommand)]
    Limits(Limits),
    /// Keep an instance of a service registered, as its sidecar, until SIGTERM or SIGINT.
    Register(Box<Register>),
    /// Try the limits of a configuration on an access log or a made-up load, on virtual time.
    Simulate(Simulate),
}

/// What to register, and where.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Exit codes: 0 once it is deregistered, 1 when it could not be (it ends with its lease then), 2 for \
                        a wrong command line."
)]
pub struct Register {
    /// The registry, like etcd://user:pass@10.0.0.1:2379,10.0.0.2:2379/tidegate/; etcds over TLS. A password is better
    /// given by the variable, or by --password-file.
    // A text that never shows: an error of the command line would repeat it.
    #[arg(long, value_name = "URL", env = "TIDEGATE_REGISTRY", hide_env_values = true, value_parser = secret)]
    pub registry: Secret,
    /// The name of the service.
    #[arg(long, value_name = "NAME")]
    pub service: ServiceName,
    /// Where the instance listens: [http://|https://]HOST:PORT, as others reach it.
    #[arg(long, value_name = "ADDRESS")]
    pub address: Address,
    /// What tells it from other instances, the same over a restart. Default: its address.
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub id: Option<String>,
    /// How long it stays registered when this process ends without a word; whole seconds. Default: 30s, more in a large
    /// fleet that logs in.
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    pub ttl: Option<Duration>,
    /// What else it says of itself; may be given again.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub metadata: Vec<(String, String)>,
    /// Its share of the calls, beside the others'; 0: no new calls. Default: 1.
    #[arg(long, value_name = "N")]
    pub weight: Option<u32>,
    /// The zone it runs in.
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
    /// The version of the service that it is.
    #[arg(long = "version", value_name = "VERSION")]
    pub release: Option<String>,
    /// How registrations stand in etcd: tidegate or go-micro.
    #[arg(long, value_name = "LAYOUT", default_value_t)]
    pub layout: Layout,
    /// Who logs in, where that does not stand in the URL.
    #[arg(long, value_name = "USER", requires = "password_file")]
    pub user: Option<String>,
    /// The file of the password.
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
    /// Roots to trust instead of the system's, PEM; for etcds.
    #[arg(long, value_name = "FILE")]
    pub roots: Option<PathBuf>,
    /// A client certificate, PEM; for etcds.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// How long deregistering may take at the end.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = length)]
    pub patience: HumanDuration,
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of a parser")]
fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

fn ttl(text: &str) -> Result<Duration, &'static str> {
    let ttl = *text.parse::<HumanDuration>()?;
    let whole = ttl.subsec_nanos() == 0 && (2..=3600).contains(&ttl.as_secs());
    if whole { Ok(ttl) } else { Err("write whole seconds, 2s to 1h, like 15s") }
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("write KEY=VALUE, like team=payments"),
    }
}

/// What to try, on which calls, in which fleet.
#[derive(Clone, Debug, Args)]
pub struct Simulate {
    /// The configuration whose limits are tried. Default: the built-in example's.
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Only this limit; may be given again. Default: all.
    #[arg(long = "limit", value_name = "NAME")]
    pub limits: Vec<String>,
    /// Try this rate too, in place of the limit's own; may be given again.
    #[arg(long = "try", value_name = "RATE")]
    pub rates: Vec<Rate>,
    /// Calls as an access log has them: Tidegate's, as text or JSON, or nginx's combined. Default: a made-up load.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rate", "length", "keys", "key_skew"])]
    pub trace: Option<PathBuf>,
    /// Made-up load: calls per time, over all gateways and keys. Default: 1.5 times the limit of one key.
    #[arg(long, value_name = "RATE", value_parser = some_rate)]
    pub rate: Option<Rate>,
    /// Made-up load: how long. Default: ten windows of the limit, two where it is longer than an hour, at least 10s.
    #[arg(long = "for", value_name = "DURATION", value_parser = length)]
    pub length: Option<HumanDuration>,
    /// Made-up load: how many keys call, where a limit has a key.
    #[arg(long, value_name = "N", default_value = "1")]
    pub keys: NonZeroU32,
    /// Made-up load: how unevenly keys call, as the exponent of Zipf's law; 0 is evenly.
    #[arg(long, value_name = "S", default_value = "1", value_parser = skew)]
    pub key_skew: f64,
    /// How many gateways share the store.
    #[arg(long, value_name = "N", default_value = "4", value_parser = nodes)]
    pub nodes: NonZeroU32,
    /// How unevenly gateways are called, as the exponent of Zipf's law; 0 is evenly.
    #[arg(long, value_name = "S", default_value = "0", value_parser = skew)]
    pub skew: f64,
    /// How long the store takes to answer.
    #[arg(long, value_name = "DURATION", default_value = "500us")]
    pub latency: HumanDuration,
    /// What goes wrong: away:5s@10s (the store answers nothing for 5s from second 10), lost@10s (it forgets everything),
    /// dies:2@10s (the second gateway dies and another takes its place); may be given again.
    #[arg(long = "fault", value_name = "FAULT")]
    pub faults: Vec<PlannedFault>,
    /// The seed of the dice: the same seed gives the same run.
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,
    /// Draw it into this file.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Print JSON, with every window.
    #[arg(long)]
    pub json: bool,
}

/// Something that goes wrong in a simulation, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedFault {
    /// When, from the start.
    pub at: Duration,
    /// What.
    pub what: Fault,
}

impl FromStr for PlannedFault {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const NOT: &str = "write away:5s@10s, lost@10s or dies:2@10s";
        let (what, at) = text.split_once('@').ok_or(NOT)?;
        let at = *at.parse::<HumanDuration>()?;
        let (what, of) = what.split_once(':').unwrap_or((what, ""));
        let what = match (what, of) {
            ("away", length) => Fault::Away(*length.parse::<HumanDuration>()?),
            ("lost", "") => Fault::Lost,
            ("dies", node) => Fault::Dies(node.parse::<NonZeroU32>().map_err(|_| NOT)?.get() as usize - 1),
            _ => return Err(NOT),
        };
        Ok(Self { at, what })
    }
}

/// What to do with the counters of a running gateway.
#[derive(Clone, Debug, Subcommand)]
pub enum Limits {
    /// Show a counter; without a limit, all limits.
    Get {
        /// The name of a limit.
        limit: Option<String>,
        /// Which counter.
        #[command(flatten)]
        key: Key,
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
    /// Give a counter more units, or take some from it when they are negative.
    Add {
        /// The name of a limit.
        limit: String,
        /// Which counter.
        #[command(flatten)]
        key: Key,
        /// How many units to give.
        #[arg(long, short, value_name = "N", allow_negative_numbers = true, value_parser = units)]
        units: i64,
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
    /// Give a counter the whole limit.
    Reset {
        /// The name of a limit.
        limit: String,
        /// Which counter.
        #[command(flatten)]
        key: Key,
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
}

/// Which counter of a limit.
#[derive(Clone, Debug, Args)]
pub struct Key {
    /// The values of the limit's key, in the order of the configuration; - for one that calls lack.
    #[arg(value_name = "KEY")]
    pub key: Vec<String>,
}

/// Which gateway, and how to print.
#[derive(Clone, Debug, Args)]
pub struct At {
    /// The admin address of the gateway. Changes are made on its own machine only.
    #[arg(long, value_name = "ADDR", env = "TIDEGATE_ADMIN", default_value = "127.0.0.1:9900", value_parser = admin)]
    pub admin: SocketAddr,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Where the configuration of a gateway comes from: a file, a few flags, or the built-in example.
#[derive(Clone, Debug, Default, Args)]
pub struct Serve {
    /// The configuration file; it is reloaded when it changes and on SIGHUP.
    #[arg(long, short, value_name = "FILE", env = "TIDEGATE_CONFIG", conflicts_with_all = ["upstream", "rate", "in_flight", "listen"])]
    pub config: Option<PathBuf>,
    /// Guard this one service.
    #[arg(long, value_name = "URL")]
    pub upstream: Option<EndpointArg>,
    /// With --upstream: calls per time to the service, like 100/s.
    #[arg(long, value_name = "RATE", requires = "upstream")]
    pub rate: Option<Rate>,
    /// With --upstream: calls in flight to the service.
    #[arg(long, value_name = "N", requires = "upstream", value_parser = in_flight)]
    pub in_flight: Option<NonZeroU32>,
    /// The address for traffic. Default: 127.0.0.1:8080.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub listen: Option<SocketAddr>,
    /// The address for /live /ready /metrics /state /config. Default: 127.0.0.1:9900.
    #[arg(long, value_name = "ADDR", value_parser = address, conflicts_with = "config")]
    pub admin: Option<SocketAddr>,
}

fn some_rate(text: &str) -> Result<Rate, String> {
    let rate = Rate::from_str(text).map_err(|wrong| wrong.to_string())?;
    if rate.count() > 0 {
        Ok(rate)
    } else {
        Err("that is no call at all; write a rate above 0, like 500/s".into())
    }
}

fn length(text: &str) -> Result<HumanDuration, &'static str> {
    let length = text.parse::<HumanDuration>()?;
    if length.is_zero() { Err("write how long, 1ms or more, like 30s") } else { Ok(length) }
}

fn skew(text: &str) -> Result<f64, &'static str> {
    let skew = text.parse().ok().filter(|skew| (0.0..=10.0).contains(skew));
    skew.ok_or("write a number from 0, which is evenly, to 10, like 1.2")
}

fn nodes(text: &str) -> Result<NonZeroU32, &'static str> {
    let nodes = text.parse().ok().filter(|nodes: &NonZeroU32| nodes.get() <= 10_000);
    nodes.ok_or("write how many gateways there are, 1 to 10000")
}

fn in_flight(text: &str) -> Result<NonZeroU32, &'static str> {
    text.parse().map_err(|_| "write how many calls may be in flight, 1 or more, like 50")
}

fn admin(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write the IP address and port of listen.admin, like 127.0.0.1:9900".into())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).unwrap_or(8080);
        format!(
            "write an IP address and a port, like 127.0.0.1:{port}, or 0.0.0.0:{port} for every interface"
        )
    })
}

fn units(text: &str) -> Result<i64, &'static str> {
    match text.parse() {
        Ok(0) | Err(_) => Err("write a whole number that is not 0, like 500; with a minus it is taken away"),
        Ok(units) => Ok(units),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_value_is_answered_with_a_right_one() {
        for (line, remedy) in [
            ("tidegate serve --listen 8081", "like 127.0.0.1:8081, or 0.0.0.0:8081"),
            ("tidegate serve --listen localhost:8081", "like 127.0.0.1:8081"),
            ("tidegate serve --admin nonsense", "like 127.0.0.1:8080"),
            ("tidegate serve --upstream http://a --in-flight 0", "1 or more, like 50"),
            ("tidegate serve --upstream http://a --in-flight many", "1 or more, like 50"),
            ("tidegate simulate --rate 0/s", "above 0, like 500/s"),
            ("tidegate limits add per-client alice --units ten", "like 500; with a minus"),
            ("tidegate limits add per-client alice --units 0", "that is not 0"),
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err().to_string();
            assert!(error.contains(remedy), "{line}: {error}");
        }
    }

    #[test]
    fn flags_make_no_sense_beside_a_file_or_without_an_upstream() {
        for line in [
            "tidegate serve --config a.yaml --upstream http://a",
            "tidegate serve --rate 100/s",
            "tidegate serve --in-flight 5",
            "tidegate serve --upstream http://a --rate 100",
            "tidegate serve --upstream http://a --in-flight 0",
            "tidegate serve --upstream nonsense",
            "tidegate check",
            "tidegate limits",
            "tidegate limits add",
            "tidegate limits add per-client alice",
            "tidegate limits reset",
            "tidegate limits get --admin localhost",
            "tidegate register",
            "tidegate register --registry etcd://h --service a",
            "tidegate register --registry etcd://h --service a --address nowhere",
            "tidegate register --registry etcd://h --service a --address h:1 --ttl 500ms",
            "tidegate register --registry etcd://h --service a --address h:1 --metadata team",
            "tidegate register --registry etcd://h --service a --address h:1 --layout consul",
            "tidegate register --registry etcd://h --service a --address h:1 --user gate",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
        for line in [
            "tidegate",
            "tidegate serve",
            "tidegate serve --upstream http://a --rate 100/s --in-flight 50",
            "tidegate limits get",
            "tidegate limits get per-client alice - --json",
            "tidegate limits add per-client alice --units -5",
            "tidegate limits reset backend --admin 10.0.0.1:9900",
            "tidegate register --registry etcd://h --service a --address http://h --version 2 --metadata a=b=c",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }
}
