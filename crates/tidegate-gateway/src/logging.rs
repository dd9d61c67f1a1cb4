//! The gateway's own log, on standard error: text or JSON, with a filter that a reload can change.

use std::{
    env,
    io::{self, IsTerminal},
};

use thiserror::Error;
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::LevelFilter,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    reload,
    util::{SubscriberInitExt, TryInitError},
};

use crate::config::{Log, LogFormat};

/// The environment variable that overrides `log.level`, for the life of the process.
pub const ENVIRONMENT: &str = "TIDEGATE_LOG";

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// A filter does not parse.
    #[error(
        "{place} `{filter}` is no log filter: {why}; write a level (off, error, warn, info, debug, trace), or TARGET=LEVEL pairs with commas"
    )]
    Filter {
        /// Where the filter came from.
        place: &'static str,
        /// The filter.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// Another log was set up before.
    #[error("the log is set up already")]
    Again(#[from] TryInitError),
}

/// A running log.
#[derive(Debug)]
pub struct Logging {
    filter: reload::Handle<EnvFilter, Registry>,
    /// What the environment says; it wins over every configuration.
    environment: Option<String>,
}

impl Logging {
    /// Sets up the log of the process, on standard error.
    ///
    /// # Errors
    /// When the filter does not parse, or the process has a log already.
    pub fn init(log: &Log) -> Result<Self, LoggingError> {
        // What is no text is no filter either, and is told as one.
        let environment = env::var_os(ENVIRONMENT).map(|filter| filter.to_string_lossy().into_owned());
        let environment = environment.filter(|filter| !filter.is_empty());
        let colours = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none();
        let (subscriber, logging) = build(log, environment, colours, io::stderr)?;
        subscriber.try_init()?;
        Ok(logging)
    }

    /// Takes over the level of a reloaded configuration; the format stays until a restart.
    ///
    /// # Errors
    /// When the filter does not parse; the old one stays then.
    pub fn configure(&self, log: &Log) -> Result<(), LoggingError> {
        let filter = effective(log, self.environment.as_deref())?;
        // It fails only when the subscriber is gone, and then there is nothing to change.
        let _gone = self.filter.reload(filter);
        Ok(())
    }
}

/// Tells whether `filter` is one, as `log.level` or in the environment.
///
/// # Errors
/// What is wrong with it.
pub fn check_filter(filter: &str) -> Result<(), String> {
    parse(filter).map(drop)
}

fn build<W>(
    log: &Log,
    environment: Option<String>,
    colours: bool,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync, Logging), LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(effective(log, environment.as_deref())?);
    let lines = fmt::layer().with_writer(writer).with_ansi(colours);
    let lines = match log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    Ok((subscriber, Logging { filter: handle, environment }))
}

fn effective(log: &Log, environment: Option<&str>) -> Result<EnvFilter, LoggingError> {
    let (place, filter) =
        environment.map_or(("log.level", log.level.as_str()), |filter| (ENVIRONMENT, filter));
    parse(filter).map_err(|why| LoggingError::Filter { place, filter: filter.to_owned(), why })
}

/// Parses as `EnvFilter` does, but takes a lone word that is no level for the typing error that it nearly always is:
/// `EnvFilter` would take it for a target, and log nothing else.
fn parse(filter: &str) -> Result<EnvFilter, String> {
    if filter.trim().is_empty() {
        return Err("it is empty".into());
    }
    let words: Vec<&str> = filter.split(',').map(str::trim).collect();
    for word in &words {
        if !word.contains(['=', '[', ']', '{', '}']) && word.parse::<LevelFilter>().is_err() {
            return Err(format!("`{word}` is no level"));
        }
    }
    EnvFilter::builder().parse(words.join(",")).map_err(|error| error.to_string())
}

/// What is logged while `act` runs on this thread, as text at `level`.
#[cfg(test)]
pub(crate) fn captured(level: &str, act: impl FnOnce()) -> String {
    tests::with(&tests::at(level, LogFormat::Text), None, |_| act())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    pub(super) fn at(level: &str, format: LogFormat) -> Log {
        Log { level: level.into(), format, ..Log::default() }
    }

    pub(super) fn with(log: &Log, environment: Option<&str>, then: impl FnOnce(&Logging)) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let (subscriber, logging) =
            build(log, environment.map(str::to_owned), false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || then(&logging));
        sink.text()
    }

    #[test]
    fn a_reload_changes_the_level() {
        let lines = with(&at("warn", LogFormat::Text), None, |logging| {
            tracing::info!("before");
            logging.configure(&at("info", LogFormat::Text)).unwrap();
            tracing::info!("after");
        });
        assert!(!lines.contains("before") && lines.contains("after"), "{lines}");
    }

    #[test]
    fn the_environment_wins_over_every_configuration() {
        let lines = with(&at("trace", LogFormat::Text), Some("error"), |logging| {
            logging.configure(&at("trace", LogFormat::Text)).unwrap();
            tracing::warn!("hidden");
            tracing::error!("shown");
        });
        assert!(!lines.contains("hidden") && lines.contains("shown"), "{lines}");
    }

    #[test]
    fn a_line_of_json_is_one_object_and_a_line_of_text_drives_no_terminal() {
        let say = |_: &Logging| tracing::info!(address = "127.0.0.1:8080", "a \"line\"\u{1b}[2J");
        let json: serde_json::Value =
            serde_json::from_str(&with(&at("info", LogFormat::Json), None, say)).unwrap();
        assert_eq!((&json["level"], &json["address"]), (&"INFO".into(), &"127.0.0.1:8080".into()));
        assert!(!with(&at("info", LogFormat::Text), None, say).contains('\u{1b}'));
    }

    #[test]
    fn a_filter_that_would_log_nothing_by_mistake_is_refused_with_the_remedy() {
        for good in
            ["info", "WARN", "off", "info,tidegate_gateway::upstream=debug", "hyper=off", "debug, h2=info"]
        {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for bad in ["", " ", "inof", "tidegate=loud", "info,verbose"] {
            assert!(check_filter(bad).is_err(), "{bad}");
        }
        let error = effective(&at("inof", LogFormat::Text), None).unwrap_err();
        insta::assert_snapshot!(error, @"log.level `inof` is no log filter: `inof` is no level; write a level (off, error, warn, info, debug, trace), or TARGET=LEVEL pairs with commas");
    }
}
