//! Times and counts of a run, as JSON.

use std::{fmt::Write as _, time::Duration};

use hdrhistogram::Histogram;

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
