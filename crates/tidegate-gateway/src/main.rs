//! The command `tidegate`.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use tidegate_gateway::{
    cli::{Cli, Command},
    config, operate,
    register::register,
    serve::serve,
    simulate::simulate,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().command_or_serve() {
        Command::Serve(flags) => serve(&flags),
        Command::Check { file } => {
            let (report, code) = config::check_report(&file);
            say(&report);
            code
        }
        Command::Limits(what) => match operate::limits(&what) {
            Ok(said) => {
                say(&said);
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("tidegate: {error}");
                ExitCode::FAILURE
            }
        },
        Command::Register(what) => register(&what),
        Command::Simulate(what) => match simulate(&what) {
            Ok(said) => {
                say(&said);
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("tidegate: {error}");
                ExitCode::from(2)
            }
        },
        Command::Schema => {
            say(&config::schema());
            ExitCode::SUCCESS
        }
    }
}

/// Prints, and does not mind a reader that has seen enough.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
