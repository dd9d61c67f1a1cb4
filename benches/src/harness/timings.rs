//! A table of what one operation costs: ours, the peers', and the ratio to the best of them.

use super::{
    Options,
    measure::{Run, Subject, subject},
    print::{self, Column},
};

/// Whose row it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Tidegate's.
    Ours,
    /// A peer's: the best of them is what ours is divided by.
    Peer,
    /// Shown, compared with nothing: a floor or a part of a sum.
    Note,
}

struct Row {
    name: String,
    side: Side,
    subject: Subject,
    one: Vec<f64>,
    two: Vec<f64>,
    allocations: f64,
}

/// The rows of one primitive.
pub(crate) struct Timings {
    title: String,
    bar: String,
    rows: Vec<Row>,
}

impl Timings {
    pub(super) fn new(title: &str) -> Self {
        Self { title: title.to_owned(), bar: String::new(), rows: Vec::new() }
    }

    /// Adds a row of Tidegate's: an operation on one object that all threads share.
    pub(crate) fn ours<S: Sync + Clone + 'static, R: 'static>(
        &mut self,
        name: &str,
        shared: S,
        operation: impl Fn(&mut S) -> R + Sync + 'static,
    ) {
        self.push(name, Side::Ours, subject(shared, S::clone, operation));
    }

    /// Adds a row of Tidegate's with something of its own for each thread, such as a place in a list of keys.
    pub(crate) fn ours_with<S: Sync + 'static, T: 'static, R: 'static>(
        &mut self,
        name: &str,
        shared: S,
        each: impl Fn(&S) -> T + Sync + 'static,
        operation: impl Fn(&mut T) -> R + Sync + 'static,
    ) {
        self.push(name, Side::Ours, subject(shared, each, operation));
    }

    /// Adds a peer's row; see [`ours`](Self::ours).
    pub(crate) fn peer<S: Sync + Clone + 'static, R: 'static>(
        &mut self,
        name: &str,
        shared: S,
        operation: impl Fn(&mut S) -> R + Sync + 'static,
    ) {
        self.push(name, Side::Peer, subject(shared, S::clone, operation));
    }

    /// Adds a peer's row; see [`ours_with`](Self::ours_with).
    pub(crate) fn peer_with<S: Sync + 'static, T: 'static, R: 'static>(
        &mut self,
        name: &str,
        shared: S,
        each: impl Fn(&S) -> T + Sync + 'static,
        operation: impl Fn(&mut T) -> R + Sync + 'static,
    ) {
        self.push(name, Side::Peer, subject(shared, each, operation));
    }

    /// Adds a row that is shown and compared with nothing.
    pub(crate) fn note<S: Sync + Clone + 'static, R: 'static>(
        &mut self,
        name: &str,
        shared: S,
        operation: impl Fn(&mut S) -> R + Sync + 'static,
    ) {
        self.push(name, Side::Note, subject(shared, S::clone, operation));
    }

    /// Says in words what ours must reach; printed under the table.
    pub(crate) fn bar(&mut self, bar: &str) {
        bar.clone_into(&mut self.bar);
    }

    fn push(&mut self, name: &str, side: Side, subject: Subject) {
        let (one, two) = (Vec::new(), Vec::new());
        self.rows.push(Row { name: name.to_owned(), side, subject, one, two, allocations: 0.0 });
    }

    /// Runs the rows in turn, again and again, so that a noisy neighbour disturbs them all alike; then prints.
    pub(super) fn run(mut self, options: &Options) {
        for row in &mut self.rows {
            row.allocations = (row.subject)(Run::Allocations);
        }
        for _ in 0..options.repeats() {
            for row in &mut self.rows {
                row.one.push((row.subject)(Run::Time { threads: 1, slice: options.slice() }));
                row.two.push((row.subject)(Run::Time { threads: 2, slice: options.slice() }));
            }
        }
        for row in &mut self.rows {
            row.one.sort_by(f64::total_cmp);
            row.two.sort_by(f64::total_cmp);
        }
        self.print(options);
    }

    fn print(&self, options: &Options) {
        let best = |of: fn(&Row) -> f64| {
            let peers = self.rows.iter().filter(|row| row.side == Side::Peer).map(of);
            peers.min_by(f64::total_cmp)
        };
        let one = |row: &Row| median(&row.one);
        let two = |row: &Row| median(&row.two);
        let (best_one, best_two) = (best(one), best(two));
        let cells: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| {
                let ratio = |ours: f64, best: Option<f64>| match (row.side, best) {
                    (Side::Ours, Some(best)) => format!("{:.2}x", ours / best),
                    (Side::Ours | Side::Peer | Side::Note, _) => String::new(),
                };
                let name =
                    if row.side == Side::Ours { format!("tidegate {}", row.name) } else { row.name.clone() };
                vec![
                    name,
                    format!("{:.1}", one(row)),
                    format!("{:.1}", two(row)),
                    allocations(row.allocations),
                    ratio(one(row), best_one),
                    ratio(two(row), best_two),
                ]
            })
            .collect();
        let columns = [
            Column::Left(&self.title),
            Column::Right("ns/op, 1 thread"),
            Column::Right("2 threads"),
            Column::Right("allocations"),
            Column::Right("to best peer, 1"),
            Column::Right("2"),
        ];
        print::table(&columns, &cells, &self.bar, options.markdown);
    }
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

fn allocations(count: f64) -> String {
    if count.fract() < 0.005 { format!("{count:.0}") } else { format!("{count:.2}") }
}
