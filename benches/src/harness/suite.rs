//! All the tables of one run.

use std::process::ExitCode;

use super::{Counts, Options, Timings};

/// Runs the tables that were asked for, one after the other.
pub(crate) struct Suite {
    options: Options,
    tables: usize,
}

impl Suite {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, tables: 0 }
    }

    /// Times one primitive beside its peers. `fill` adds the rows; it does not run when the title is filtered out.
    pub(crate) fn timings(&mut self, title: &str, fill: impl FnOnce(&mut Timings)) {
        if self.options.wants(title) {
            self.tables += 1;
            let mut table = Timings::new(title);
            fill(&mut table);
            table.run(&self.options);
        }
    }

    /// Counts what happens in one case. `fill` runs the case and adds the rows, unless the title is filtered out.
    pub(crate) fn counts(&mut self, title: &str, fill: impl FnOnce(&mut Counts)) {
        if self.options.wants(title) {
            self.tables += 1;
            let mut table = Counts::new(title);
            fill(&mut table);
            table.print(&self.options);
        }
    }

    /// Says so when nothing matched the filter.
    pub(crate) fn finish(self) -> ExitCode {
        if self.tables == 0 {
            eprintln!(
                "no table's title contains {:?}; run without a filter to see them all",
                self.options.filter
            );
            return ExitCode::from(2);
        }
        ExitCode::SUCCESS
    }
}
