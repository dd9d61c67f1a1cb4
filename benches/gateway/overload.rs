//! The parts of scripts/bench-overload that must be quick.
//!
//! Usage: overload upstream ADDRESS WORKERS SERVICE_MS
//!        overload tower ADDRESS UPSTREAM LIMIT
//!        overload load ADDRESS RATE WARM_MS MEASURED_MS DEADLINE_MS SEED

#[path = "overload/load.rs"]
mod load;
#[path = "overload/tower_proxy.rs"]
mod tower_proxy;
#[path = "overload/upstream.rs"]
mod upstream;

use std::{error::Error, io::Write as _, net::SocketAddr, str::FromStr, time::Duration};

/// What stops a part, with its remedy.
type Failed = Box<dyn Error + Send + Sync>;

const USAGE: &str = "usage: overload upstream ADDRESS WORKERS SERVICE_MS | tower ADDRESS UPSTREAM LIMIT | \
                     load ADDRESS RATE WARM_MS MEASURED_MS DEADLINE_MS SEED";

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["upstream", address, workers, service] => {
                upstream::serve(parse(address)?, parse(workers)?, millis(service)?).await
            }
            ["tower", address, upstream, limit] => {
                tower_proxy::serve(parse(address)?, parse::<SocketAddr>(upstream)?, parse(limit)?).await
            }
            ["load", address, rate, warm, measured, deadline, seed] => {
                let plan = load::Plan {
                    address: parse(address)?,
                    rate: parse(rate)?,
                    warm: millis(warm)?,
                    measured: millis(measured)?,
                    deadline: millis(deadline)?,
                    seed: parse(seed)?,
                };
                let met = load::run(plan).await;
                writeln!(std::io::stdout(), "{met}")?;
                Ok(())
            }
            _ => Err(USAGE.into()),
        }
    })
}

fn parse<T: FromStr<Err: Error + Send + Sync + 'static>>(text: &str) -> Result<T, Failed> {
    text.parse().map_err(|error| format!("{text:?}: {error}; {USAGE}").into())
}

fn millis(text: &str) -> Result<Duration, Failed> {
    Ok(Duration::from_millis(parse(text)?))
}
