//! Calls a second over time, one panel a scenario, on a logarithmic scale.

use std::fmt::Write as _;

use super::{Pair, Record};

const WIDTH: f64 = 860.0;
const TOP: f64 = 66.0;
const PANEL: f64 = 232.0;
const LEFT: f64 = 64.0;
const PLOT: (f64, f64) = (600.0, 160.0);
/// Seconds of which one point is the mean.
const STEP: usize = 5;
/// Decades from one call in ten seconds; nothing at all is drawn at the bottom.
const DECADES: f64 = 6.0;

const STYLE: &str = "\
text{fill:#1f2328;font:12px sans-serif}.title{font-size:15px}.frame{fill:#fff}.axis{stroke:#59636e}\
.grid{stroke:#d1d9e0}.phase{stroke:#d1d9e0;stroke-dasharray:2 3}path{fill:none;stroke-width:1.8}.ours{stroke:#1a7f37}\
.fixed{stroke:#cf222e}.capacity{stroke:#0969da;stroke-dasharray:5 4}.bar{stroke:#8c959f;stroke-dasharray:5 4}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.frame{fill:#0d1117}.axis{stroke:#9198a1}.grid{stroke:#30363d}\
.phase{stroke:#30363d}.ours{stroke:#3fb950}.fixed{stroke:#f85149}.capacity{stroke:#58a6ff}.bar{stroke:#9198a1}}";

pub(crate) fn draw(pairs: &[Pair], clients: usize, limits: [(&str, f64); 2]) -> String {
    let height = TOP + PANEL * pairs.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n<style>{STYLE}</style>\n\
         <rect class=\"frame\" width=\"{WIDTH}\" height=\"{height}\"/>\n"
    );
    let title =
        format!("Calls a second that reach a registry: {clients} clients, {} services", super::SERVICES);
    text(&mut svg, LEFT, 26.0, "title", &title);
    let legend = [
        ("ours", "tidegate"),
        ("fixed", "fixed interval of 5 s"),
        ("capacity", limits[0].0),
        ("bar", limits[1].0),
    ];
    for (at, (class, name)) in legend.into_iter().enumerate() {
        let x = LEFT + 160.0 * at as f64;
        line(&mut svg, class, &format!("M{x} 44h22"));
        text(&mut svg, x + 28.0, 48.0, "", name);
    }
    for (row, pair) in pairs.iter().enumerate() {
        panel(&mut svg, TOP + PANEL * row as f64 + 24.0, pair, limits);
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, top: f64, pair: &Pair, limits: [(&str, f64); 2]) {
    let seconds = pair.ours.seconds.len() as f64;
    let (width, height) = PLOT;
    let (right, bottom) = (LEFT + width, top + height);
    let x = |second: f64| LEFT + second / seconds * width;
    let y = |calls: f64| bottom - ((calls.max(0.1).log10() + 1.0) / DECADES).min(1.0) * height;
    text(svg, LEFT, top - 8.0, "", pair.name);
    for decade in 0..=(DECADES as i32 - 1) {
        let calls = 10_f64.powi(decade);
        line(svg, "grid", &format!("M{LEFT} {:.1}H{right}", y(calls)));
        text(svg, 8.0, y(calls) + 4.0, "", &format!("{calls}"));
    }
    text(svg, 8.0, bottom + 4.0, "", "0");
    for (name, range) in &pair.ours.phases {
        line(svg, "phase", &format!("M{:.1} {top}V{bottom}", x(range.start as f64)));
        if range.len() as f64 > seconds / 9.0 {
            text(svg, x(range.start as f64) + 3.0, top + 12.0, "", name);
        }
    }
    for tick in 0..=5 {
        let second = seconds * f64::from(tick) / 5.0;
        text(svg, x(second) - 10.0, bottom + 18.0, "", &format!("{second:.0} s"));
    }
    line(svg, "axis", &format!("M{LEFT} {top}V{bottom}H{right}"));
    for (class, (_, calls)) in ["capacity", "bar"].into_iter().zip(limits) {
        line(svg, class, &format!("M{LEFT} {:.1}H{right}", y(calls)));
    }
    for (class, record) in [("fixed", &pair.fixed), ("ours", &pair.ours)] {
        let mut path = String::new();
        for (step, seen) in record.seconds.chunks(STEP).enumerate() {
            let calls = seen.iter().map(|second| second.calls).sum::<u64>() as f64 / seen.len() as f64;
            let begin = if path.is_empty() { 'M' } else { 'L' };
            let middle = (step * STEP) as f64 + seen.len() as f64 / 2.0;
            write!(path, "{begin}{:.1} {:.1}", x(middle), y(calls)).expect("a string takes it");
        }
        line(svg, class, &path);
    }
    text(svg, right + 16.0, top + 16.0, "", "answered at once");
    for (at, (name, record)) in [("tidegate", &pair.ours), ("fixed", &pair.fixed)].into_iter().enumerate() {
        let fact = format!("{name}: {:.2} %", 100.0 * answered(record));
        text(svg, right + 16.0, top + 36.0 + 20.0 * at as f64, "", &fact);
    }
}

/// The share of all lookups that got endpoints without waiting, but for the start of the clients.
fn answered(record: &Record) -> f64 {
    let start = record.phases.iter().find(|(name, _)| *name == "start").map_or(0, |(_, range)| range.end);
    let (answered, all) = record.seconds[start..].iter().fold((0, 0), |(answered, all), second| {
        (answered + second.answered(), all + second.answered() + second.waited + second.in_vain())
    });
    answered as f64 / all.max(1) as f64
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, text: &str) {
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>")
        .expect("a string takes it");
}

fn line(svg: &mut String, class: &str, path: &str) {
    writeln!(svg, "<path class=\"{class}\" d=\"{path}\"/>").expect("a string takes it");
}
