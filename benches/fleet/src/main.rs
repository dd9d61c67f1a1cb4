//! The parts of scripts/bench-fleet that must be quick. Each prints its figures as one line of JSON.
//!
//! Usage: tidegate-fleet-bench load UPSTREAM GATEWAY,GATEWAY,.. RATE SECONDS CONNECTIONS [STOP_FROM STOP_TO]
//!        tidegate-fleet-bench keys-load UPSTREAM GATEWAY,.. KEYS SECONDS CONNECTIONS
//!        tidegate-fleet-bench burst STORE CONTENDER NODES LIMIT
//!        tidegate-fleet-bench paced STORE CONTENDER NODES RATE SECONDS
//!        tidegate-fleet-bench keys RATE SECONDS [STORE]
//!        tidegate-fleet-bench sync STORE ROUNDS

mod burst;
mod contender;
mod figures;
mod keys;
mod load;
mod sync;
mod upstream;

use std::{error::Error, process::ExitCode, str::FromStr};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run(std::env::args().skip(1).collect())));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate-fleet-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Vec<String>) -> Outcome {
    let arg = |at: usize| {
        args.get(at).cloned().ok_or_else(|| format!("argument {at} is missing; see the head of main.rs"))
    };
    let command = arg(0)?;
    match command.as_str() {
        "load" | "keys-load" => {
            let plan = load::Plan {
                upstream: arg(1)?.parse()?,
                gateways: arg(2)?.split(',').map(FromStr::from_str).collect::<Result<_, _>>()?,
                pace: if command == "load" {
                    load::Pace::Rate(arg(3)?.parse()?)
                } else {
                    load::Pace::Distinct(arg(3)?.parse()?)
                },
                seconds: arg(4)?.parse()?,
                connections: arg(5)?.parse()?,
                stop: if args.len() > 6 { Some((arg(6)?.parse()?, arg(7)?.parse()?)) } else { None },
            };
            load::run(plan).await
        }
        "burst" => burst::burst(&arg(1)?, &arg(2)?, arg(3)?.parse()?, arg(4)?.parse()?).await,
        "paced" => {
            burst::paced(&arg(1)?, &arg(2)?, arg(3)?.parse()?, arg(4)?.parse()?, arg(5)?.parse()?).await
        }
        "keys" => keys::run(arg(1)?.parse()?, arg(2)?.parse()?, args.get(3).map(String::as_str)).await,
        "sync" => sync::run(&arg(1)?, arg(2)?.parse()?).await,
        other => Err(format!("there is no command {other}; see the head of main.rs").into()),
    }
}
