//! Times and counts of a run, as JSON.

use std::{fmt::Write as _, time::Duration};

use hdrhistogram::Histogram;
use redis::aio::ConnectionManager;

use crate::Outcome;

/// Times, in nanoseconds, to three digits.
#[derive(Clone)]
pub struct Times(Histogram<u64>);

impl Times {
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, 120_000_000_000, 3).expect("bounds in order"))
    }

    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(time.as_nanos().max(1) as u64);
    }

    pub fn add(&mut self, other: &Self) {
        self.0 += &other.0;
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Seconds; null when there is none.
    pub fn json(&self) -> String {
        if self.0.is_empty() {
            return "null".into();
        }
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e9;
        format!(
            "{{\"count\":{},\"p50\":{:e},\"p90\":{:e},\"p99\":{:e},\"max\":{:e}}}",
            self.count(),
            at(0.5),
            at(0.9),
            at(0.99),
            self.0.max() as f64 / 1e9
        )
    }
}

/// An object of what is given, whose values are JSON.
pub fn print(fields: &[(&str, String)]) {
    let mut line = String::from("{");
    for (at, (name, value)) in fields.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        write!(line, "{comma}\"{name}\":{value}").expect("a string takes all");
    }
    println!("{line}}}");
}

/// Resident bytes of this process.
pub fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    pages.and_then(|line| line.split(' ').nth(1)?.parse::<u64>().ok()).map_or(0, |pages| pages * 4096)
}

/// A connection that asks the store about itself.
pub struct Store(ConnectionManager);

impl Store {
    pub async fn open(url: &str) -> Outcome<Self> {
        Ok(Self(redis::Client::open(url)?.get_connection_manager().await?))
    }

    /// Scripts that it has run.
    pub async fn scripts(&mut self) -> Outcome<u64> {
        let info = self.info("commandstats").await?;
        let calls =
            info.lines().filter(|line| line.starts_with("cmdstat_eval") || line.starts_with("cmdstat_fcall"));
        Ok(calls.filter_map(|line| line.split("calls=").nth(1)?.split(',').next()?.parse::<u64>().ok()).sum())
    }

    /// Seconds of a processor that it has used.
    pub async fn cpu(&mut self) -> Outcome<f64> {
        let info = self.info("cpu").await?;
        let used = |name: &str| {
            info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok()).unwrap_or(0.0)
        };
        Ok(used("used_cpu_user:") + used("used_cpu_sys:"))
    }

    /// Bytes that it uses, and the keys that it has.
    pub async fn size(&mut self) -> Outcome<(u64, u64)> {
        let info = self.info("memory").await?;
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok());
        let keys = redis::cmd("DBSIZE").query_async(&mut self.0).await?;
        Ok((used.ok_or("a store that does not tell its memory")?, keys))
    }

    async fn info(&mut self, section: &str) -> Outcome<String> {
        Ok(redis::cmd("INFO").arg(section).query_async(&mut self.0).await?)
    }
}
