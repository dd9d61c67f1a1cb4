//! Tidegate beside its peers, as tables: what a guard costs a call, and what it does when things go wrong.
//!
//! `cargo run --release -p tidegate-benches [-- [--quick] [--markdown] [FILTER]]`. A filter picks tables by a part
//! of their title. One file for each guard; `harness` times, counts and prints.

mod breaker;
mod fleet_throttle;
mod harness;
mod keeper;
mod limiter;
mod stack;
mod throttle;
mod token;
mod waiters;

use std::process::ExitCode;

use harness::{Options, Suite};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let mut suite = Suite::new(options);
    breaker::tables(&mut suite);
    fleet_throttle::tables(&mut suite);
    keeper::tables(&mut suite);
    limiter::tables(&mut suite);
    stack::tables(&mut suite);
    throttle::tables(&mut suite);
    token::tables(&mut suite);
    suite.finish()
}
