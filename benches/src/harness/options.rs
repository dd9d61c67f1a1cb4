//! The command line of the benches.

use std::time::Duration;

const USAGE: &str = "usage: tidegate-benches [--quick] [--markdown] [FILTER]";

/// What to run, how long, and how to print it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Fewer and shorter repeats: all tables in well under 30 s.
    pub(crate) quick: bool,
    /// Print markdown tables.
    pub(crate) markdown: bool,
    /// A part of the titles to run; everything when empty.
    pub(crate) filter: String,
}

impl Options {
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        for argument in arguments {
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--markdown" => options.markdown = true,
                unknown if unknown.starts_with('-') => {
                    return Err(format!("unknown option {unknown}; {USAGE}"));
                }
                filter if options.filter.is_empty() => options.filter = filter.to_lowercase(),
                second => return Err(format!("one filter at most, and {second} is a second one; {USAGE}")),
            }
        }
        Ok(options)
    }

    /// Whether the table called `title` was asked for.
    pub(super) fn wants(&self, title: &str) -> bool {
        title.to_lowercase().contains(&self.filter)
    }

    /// Times every row is run; the median counts.
    pub(super) const fn repeats(&self) -> usize {
        if self.quick { 5 } else { 21 }
    }

    /// How long one run of one row lasts.
    pub(super) const fn slice(&self) -> Duration {
        Duration::from_millis(if self.quick { 5 } else { 20 })
    }
}
