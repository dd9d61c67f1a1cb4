//! A fleet's registry through outages, a mass expiry and a deployment, with the guard and with a fixed interval: counts
//! every call on virtual time, prints a table, writes `registry-fleet.csv` and draws `registry-fleet.svg`.
//!
//! Usage: `registry-fleet CSV_DIR SVG_DIR [CLIENTS]`

#[path = "../../crates/tidegate/tests/registry_fleet/clients.rs"]
mod clients;
#[path = "../../crates/tidegate/tests/registry_fleet/fleet.rs"]
mod fleet;
#[path = "fleet/plot.rs"]
mod plot;
#[path = "../../crates/tidegate/tests/registry_fleet/scenarios.rs"]
mod scenarios;

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    io::{Write as _, stdout},
    path::Path,
};

use clients::{Client, FixedInterval};
use fleet::{Record, SERVICES, capacity};
use scenarios::simulate;
use tidegate::registry::Registry;

const USAGE: &str = "usage: registry-fleet CSV_DIR SVG_DIR [CLIENTS], like: registry-fleet target docs 4000";

/// One scenario, with the guard and with a fixed interval.
struct Pair {
    name: &'static str,
    ours: Record,
    fixed: Record,
}

type Scenario = fn(usize) -> [Record; 2];

const SCENARIOS: [(&str, Scenario); 4] = [
    ("outage, empty caches", |clients| {
        [
            simulate(scenarios::outage_with_empty_caches::<Registry>(clients)),
            simulate(scenarios::outage_with_empty_caches::<FixedInterval>(clients)),
        ]
    }),
    ("outage, warm caches", |clients| {
        [
            simulate(scenarios::outage_with_warm_caches::<Registry>(clients)),
            simulate(scenarios::outage_with_warm_caches::<FixedInterval>(clients)),
        ]
    }),
    ("every lease ends at once", |clients| {
        [
            simulate(scenarios::mass_expiry::<Registry>(clients)),
            simulate(scenarios::mass_expiry::<FixedInterval>(clients)),
        ]
    }),
    ("rolling deployment", |clients| {
        [
            simulate(scenarios::rolling_deployment::<Registry>(clients)),
            simulate(scenarios::rolling_deployment::<FixedInterval>(clients)),
        ]
    }),
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [csv, svg, rest @ ..] = &*arguments else { return Err(USAGE.into()) };
    let clients = match rest {
        [] => 4000,
        [clients] => clients.parse().map_err(|error| format!("CLIENTS {clients:?}: {error}; {USAGE}"))?,
        _ => return Err(USAGE.into()),
    };
    let mut pairs = Vec::new();
    for (name, scenario) in SCENARIOS {
        let [ours, fixed] = scenario(clients);
        let pair = Pair { name, ours, fixed };
        write!(stdout(), "{}", table(&pair))?;
        pairs.push(pair);
    }
    fs::write(Path::new(csv).join("registry-fleet.csv"), lines(&pairs))?;
    let limits = [("capacity", capacity(clients) as f64), ("N·S/60", (clients * SERVICES) as f64 / 60.0)];
    fs::write(Path::new(svg).join("registry-fleet.svg"), plot::draw(&pairs, clients, limits))?;
    Ok(())
}

fn kinds(pair: &Pair) -> [(&'static str, &Record); 2] {
    [(Registry::NAME, &pair.ours), (FixedInterval::NAME, &pair.fixed)]
}

fn table(pair: &Pair) -> String {
    let mut table = format!(
        "| {} | seconds | calls/s, mean | most in a second | refused for want of capacity | lookups answered | in vain |\n\
         |---|---:|---:|---:|---:|---:|---:|\n",
        pair.name
    );
    for (at, (phase, range)) in pair.ours.phases.iter().enumerate() {
        for (kind, record) in kinds(pair) {
            let (seen, peak) = record.phase(record.phases[at].0);
            let seconds = range.len();
            let answered = 100.0 * seen.answered() as f64
                / (seen.answered() + seen.in_vain() + seen.waited).max(1) as f64;
            writeln!(
                table,
                "| {phase}: {kind} | {seconds} | {:.1} | {peak} | {} | {answered:.2} % | {} |",
                seen.calls as f64 / seconds as f64,
                seen.over_capacity,
                seen.in_vain()
            )
            .expect("a string takes all that is written");
        }
    }
    table.push('\n');
    table
}

fn lines(pairs: &[Pair]) -> String {
    let mut csv =
        "scenario,cache,second,phase,calls,over_capacity,live,known,waited,none,failed\n".to_owned();
    for pair in pairs {
        for (kind, record) in kinds(pair) {
            for (second, seen) in record.seconds.iter().enumerate() {
                let phase = record.phases.iter().find(|(_, range)| range.contains(&second));
                let phase = phase.map_or("", |(name, _)| name);
                writeln!(
                    csv,
                    "\"{}\",{kind},{second},{phase},{},{},{},{},{},{},{}",
                    pair.name,
                    seen.calls,
                    seen.over_capacity,
                    seen.live,
                    seen.known,
                    seen.waited,
                    seen.none,
                    seen.failed
                )
                .expect("a string takes all that is written");
            }
        }
    }
    csv
}
