//! What a simulation found, as text and as JSON.

use std::{fmt::Write as _, time::Duration};

use serde_json::json;

use super::Run;
use crate::{
    cli::Simulate,
    text_table::{Align, Table},
};

/// A table, and what is to be known beside it.
pub(super) fn text(runs: &[Run], notes: &[String], what: &Simulate) -> String {
    let right = Align::Right;
    let mut table = Table::new([
        ("LIMIT", Align::Left),
        ("AMOUNT", Align::Left),
        ("OFFERED", right),
        ("ADMITTED", right),
        ("REFUSED", right),
        ("UNDER", right),
        ("OVER", right),
        ("LOCAL", right),
        ("STORE/CALL", right),
        ("WAIT P50", right),
        ("WAIT P99", right),
    ]);
    for Run { limit, amount, counting, report, .. } in runs {
        table.row([
            limit.clone(),
            format!("{amount} {counting}"),
            report.offered.to_string(),
            report.admitted.to_string(),
            report.refused.to_string(),
            percent(under(report.ideal, report.admitted)),
            report.over.to_string(),
            percent(report.local_share()),
            format!("{:.3}", report.asked_per_decision()),
            millis(report.wait(0.5)),
            millis(report.wait(0.99)),
        ]);
    }
    let mut text = table.print();
    let nodes = what.nodes;
    let _ = writeln!(
        text,
        "\nEach limit alone, on {nodes} gateways that share a store {} away. Units, not calls, where a call costs more \
         than 1.\nUNDER: what one gateway that knows everything would have admitted beyond. OVER: the most that any \
         window held beyond its limit.\nLOCAL: decided without waiting for the store; WAIT is of the others.",
        what.latency
    );
    for note in notes {
        let _ = writeln!(text, "note: {note}");
    }
    if let Some(file) = &what.svg {
        let _ = writeln!(text, "drawn in {}", file.display());
    }
    text
}

pub(super) fn json(runs: &[Run], notes: &[String]) -> String {
    let runs: Vec<_> = runs
        .iter()
        .map(|Run { limit, amount, counting, rule, report }| {
            let windows = report.windows.iter().map(|window| {
                json!({
                    "offered": window.offered, "admitted": window.admitted, "refused": window.refused,
                    "store_operations": window.asked,
                })
            });
            json!({
                "limit": limit, "amount": amount, "algorithm": counting,
                "offered": report.offered, "admitted": report.admitted, "refused": report.refused,
                "refused_for_want_of_an_answer": report.unanswered, "ideal": report.ideal, "over": report.over,
                "local_share": report.local_share(), "store_operations": report.asked,
                "store_operations_per_decision": report.asked_per_decision(),
                "wait_seconds": { "p50": report.wait(0.5).as_secs_f64(), "p99": report.wait(0.99).as_secs_f64() },
                "window_seconds": Duration::from_micros(rule.window()).as_secs_f64(),
                "windows": windows.collect::<Vec<_>>(),
            })
        })
        .collect();
    format!("{:#}\n", json!({ "runs": runs, "notes": notes }))
}

fn under(ideal: u64, admitted: u64) -> f64 {
    ideal.saturating_sub(admitted) as f64 / ideal.max(1) as f64
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn millis(wait: Duration) -> String {
    format!("{:.1} ms", wait.as_secs_f64() * 1e3)
}
