//! A drawing of a simulation: offered, admitted and refused over time beside the limit, one panel a run.

use std::{fmt::Write as _, time::Duration};

use tidegate_core::simulation::Window;

use super::Run;

const WIDTH: f64 = 840.0;
const PANEL: f64 = 230.0;
const TOP: f64 = 70.0;
const LEFT: f64 = 70.0;
const PLOT: (f64, f64) = (600.0, 150.0);
/// More steps than this cannot be told apart.
const MOST_STEPS: usize = 300;

const STYLE: &str = "\
text{fill:#1f2328;font:12px sans-serif}.title{font-size:15px}.frame{fill:#fff}.axis{stroke:#59636e}\
.grid{stroke:#d1d9e0}path{fill:none;stroke-width:1.8}.offered{stroke:#8c959f}.admitted{stroke:#1a7f37}\
.refused{stroke:#cf222e}.limit{stroke:#0969da;stroke-dasharray:5 4}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.frame{fill:#0d1117}.axis{stroke:#9198a1}.grid{stroke:#30363d}\
.offered{stroke:#9198a1}.admitted{stroke:#3fb950}.refused{stroke:#f85149}.limit{stroke:#58a6ff}}";

/// Draws all runs, one below the other.
pub(super) fn draw(runs: &[Run]) -> String {
    let height = TOP + PANEL * runs.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n<style>{STYLE}</style>\n\
         <rect class=\"frame\" width=\"{WIDTH}\" height=\"{height}\"/>\n"
    );
    text(&mut svg, LEFT, 28.0, "title", "What the limits would have done, in units a second");
    for (at, name) in ["offered", "admitted", "refused", "limit"].into_iter().enumerate() {
        let x = LEFT + 110.0 * at as f64;
        let _ = writeln!(svg, "<path class=\"{name}\" d=\"M{x} 48h22\"/>");
        text(&mut svg, x + 28.0, 52.0, "", name);
    }
    for (row, run) in runs.iter().enumerate() {
        panel(&mut svg, TOP + PANEL * row as f64 + 24.0, run);
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, top: f64, run: &Run) {
    let window = Duration::from_micros(run.rule.window()).as_secs_f64();
    let steps = steps(&run.report.windows, window);
    let seconds = steps.last().map_or(window, |step| step.until);
    let limit = f64::from(run.rule.limit()) / window;
    let most = steps.iter().map(|step| step.offered).fold(limit, f64::max).max(f64::MIN_POSITIVE) * 1.05;
    let (width, height) = PLOT;
    let (right, bottom) = (LEFT + width, top + height);
    let x = |at: f64| LEFT + at / seconds * width;
    let y = |value: f64| bottom - value / most * height;
    let heading = format!("{}: {} {}", run.limit, run.amount, run.counting);
    text(svg, LEFT, top - 8.0, "", &escaped(&heading));
    for part in [0.0, 0.5, 1.0] {
        let (value, at) = (most * part / 1.05, part * seconds);
        let line = y(value);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {line:.1}H{right}\"/>");
        text(svg, 8.0, line + 4.0, "", &short(value));
        text(svg, x(at) - 8.0, bottom + 18.0, "", &format!("{} s", short(at)));
    }
    let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {top}V{bottom}H{right}\"/>");
    let line = y(limit);
    let _ = writeln!(svg, "<path class=\"limit\" d=\"M{LEFT} {line:.1}H{right}\"/>");
    type Of = fn(&Step) -> f64;
    let lines: [(&str, Of); 3] =
        [("offered", |s| s.offered), ("refused", |s| s.refused), ("admitted", |s| s.admitted)];
    for (class, of) in lines {
        let mut path = String::new();
        for step in &steps {
            let begin = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{begin}{:.1} {:.1}H{:.1}", x(step.from), y(of(step)), x(step.until));
        }
        let _ = writeln!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
    }
    let report = &run.report;
    let wait = |share| report.wait(share).as_secs_f64() * 1e3;
    let facts = [
        format!("over: {}", report.over),
        format!("local: {:.1} %", report.local_share() * 100.0),
        format!("store: {:.3} a call", report.asked_per_decision()),
        format!("wait p50: {:.1} ms", wait(0.5)),
        format!("wait p99: {:.1} ms", wait(0.99)),
    ];
    for (at, fact) in facts.iter().enumerate() {
        text(svg, right + 18.0, top + 16.0 + 20.0 * at as f64, "", fact);
    }
}

/// What happened a second, over one window or several.
struct Step {
    from: f64,
    until: f64,
    offered: f64,
    admitted: f64,
    refused: f64,
}

fn steps(windows: &[Window], window: f64) -> Vec<Step> {
    let each = windows.len().div_ceil(MOST_STEPS).max(1);
    let steps = windows.chunks(each).enumerate().map(|(at, chunk)| {
        let from = (at * each) as f64 * window;
        let length = chunk.len() as f64 * window;
        let rate = |of: fn(&Window) -> u64| chunk.iter().map(of).sum::<u64>() as f64 / length;
        Step {
            from,
            until: from + length,
            offered: rate(|window| window.offered),
            admitted: rate(|window| window.admitted),
            refused: rate(|window| window.refused),
        }
    });
    steps.collect()
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A number with about three digits.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.1} M", value / 1e6),
        value if value >= 1e4 => format!("{:.0} k", value / 1e3),
        value if value >= 10.0 || value == 0.0 => format!("{value:.0}"),
        value => format!("{value:.2}"),
    }
}
