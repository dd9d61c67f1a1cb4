//! A table of what happened in one case: counts, not times.

use super::{
    Options,
    print::{self, Column},
};

/// The rows of one case.
pub(crate) struct Counts {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    bar: String,
}

impl Counts {
    pub(super) fn new(title: &str) -> Self {
        Self { title: title.to_owned(), columns: Vec::new(), rows: Vec::new(), bar: String::new() }
    }

    /// Names what is counted, a column each.
    pub(crate) fn columns<const N: usize>(&mut self, names: [&str; N]) {
        self.columns = names.map(str::to_owned).into();
    }

    /// Adds what one subject did.
    pub(crate) fn row<const N: usize>(&mut self, name: &str, cells: [String; N]) {
        let mut row = vec![name.to_owned()];
        row.extend(cells);
        self.rows.push(row);
    }

    /// Says in words what ours must reach; printed under the table.
    pub(crate) fn bar(&mut self, bar: &str) {
        bar.clone_into(&mut self.bar);
    }

    pub(super) fn print(&self, options: &Options) {
        let mut columns = vec![Column::Left(&self.title)];
        columns.extend(self.columns.iter().map(|name| Column::Right(name)));
        print::table(&columns, &self.rows, &self.bar, options.markdown);
    }
}
