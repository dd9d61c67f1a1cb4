//! Prints a table, aligned for a terminal or as markdown.

use std::io::{self, Write};

/// A column's heading and the side it is aligned to.
#[derive(Clone, Copy)]
pub(super) enum Column<'a> {
    Left(&'a str),
    Right(&'a str),
}

impl Column<'_> {
    const fn name(&self) -> &str {
        match self {
            Self::Left(name) | Self::Right(name) => name,
        }
    }

    fn pad(&self, cell: &str, width: usize) -> String {
        match self {
            Self::Left(_) => format!("{cell:<width$}"),
            Self::Right(_) => format!("{cell:>width$}"),
        }
    }

    fn rule(&self, width: usize) -> String {
        match self {
            Self::Left(_) => "-".repeat(width),
            Self::Right(_) => format!("{}:", "-".repeat(width.saturating_sub(1))),
        }
    }
}

pub(super) fn table(columns: &[Column<'_>], rows: &[Vec<String>], bar: &str, markdown: bool) {
    // A closed pipe (`| head`) is the reader's choice, not an error of ours.
    let _ = write(&mut io::stdout().lock(), columns, rows, bar, markdown);
}

fn write(
    out: &mut impl Write,
    columns: &[Column<'_>],
    rows: &[Vec<String>],
    bar: &str,
    markdown: bool,
) -> io::Result<()> {
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let cells = rows.iter().map(|row| row[at].chars().count());
            cells.chain([column.name().chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: Vec<String>| match markdown {
        true => format!("| {} |", cells.join(" | ")),
        false => cells.join("  ").trim_end().to_owned(),
    };
    let padded = |cell: &dyn Fn(usize) -> String| {
        columns
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(at, (column, width))| column.pad(&cell(at), *width))
            .collect()
    };
    writeln!(out, "{}", line(padded(&|at| columns[at].name().to_owned())))?;
    writeln!(
        out,
        "{}",
        line(columns.iter().zip(&widths).map(|(column, width)| column.rule(*width)).collect())
    )?;
    for row in rows {
        writeln!(out, "{}", line(padded(&|at| row[at].clone())))?;
    }
    if !bar.is_empty() {
        writeln!(out, "{}bar: {bar}", if markdown { "\n" } else { "" })?;
    }
    writeln!(out)
}
