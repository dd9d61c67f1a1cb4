//! Draws how the laws of adaptive limits do, from the simulation of core's tests, as SVG:
//! `cargo run --release -p tidegate-core --example limit_plots -- docs`.

#[path = "../tests/support/simulation.rs"]
mod simulation;

use std::{env, fmt::Write, fs, io, path::Path, time::Duration};

use simulation::{CAPACITY, Policy, Run, SCENARIOS, Scenario};
use tidegate_core::limit::{Adaptive, Aimd, Bounds, Gradient, Vegas};

const COLOURS: [(&str, &str); 5] = [
    ("gradient", "#1b7837"),
    ("vegas", "#2166ac"),
    ("aimd", "#b35806"),
    ("fixed 32", "#555555"),
    ("no limit", "#b2182b"),
];

fn policy(name: &str) -> Policy {
    let bounds = || Bounds::new(1, 1000).expect("1 is below 1000");
    match name {
        "gradient" => Policy::Adaptive(Box::new(move || Adaptive::new(Gradient::new(bounds())))),
        "vegas" => Policy::Adaptive(Box::new(move || Adaptive::new(Vegas::new(bounds())))),
        "aimd" => Policy::Adaptive(Box::new(move || {
            Adaptive::new(Aimd::new(bounds()).latency(Duration::from_millis(100)))
        })),
        "fixed 32" => Policy::Fixed(32),
        _ => Policy::None,
    }
}

fn main() -> io::Result<()> {
    let docs = env::args().nth(1).unwrap_or_else(|| "docs".into());
    fs::create_dir_all(&docs)?;
    fs::write(Path::new(&docs).join("limit-goodput.svg"), goodput())?;
    fs::write(Path::new(&docs).join("limit-adapting.svg"), adapting())
}

/// Calls served in time against calls offered: eight clients, a steady upstream.
fn goodput() -> String {
    let mut svg = Svg::new(720.0, 380.0, "Served in time against offered load: 8 clients, steady upstream");
    let panel = Panel { x: 60.0, y: 50.0, width: 520.0, height: 270.0, most: (5.0, 1.1) };
    svg.axes(&panel, "offered load, in multiples of capacity", "goodput, in multiples of capacity");
    for (at, (name, colour)) in COLOURS.into_iter().enumerate() {
        let line = (1..=10).map(|half| {
            let load = f64::from(half) / 2.0;
            let run = Run {
                scenario: Scenario::Steady,
                clients: 8,
                load,
                length: Duration::from_secs(30),
                seed: 7,
            };
            (load, run.go(&policy(name)).good as f64 / 30.0 / CAPACITY)
        });
        svg.line(&panel, line, colour);
        svg.legend(600.0, 70.0 + 22.0 * at as f64, name, colour);
    }
    svg.finish()
}

/// How each law follows an upstream that changes: calls served in time each second.
fn adapting() -> String {
    let mut svg =
        Svg::new(720.0, 1020.0, "Goodput at twice the capacity while the upstream changes: 8 clients");
    for (row, scenario) in SCENARIOS.into_iter().enumerate() {
        let y = 60.0 + 190.0 * row as f64;
        let panel = Panel { x: 60.0, y, width: 520.0, height: 140.0, most: (30.0, 1.2) };
        let name = format!("{scenario:?}").to_lowercase();
        svg.axes(&panel, &format!("{name}: seconds"), "goodput");
        for (at, (name, colour)) in COLOURS.into_iter().enumerate() {
            let run = Run { scenario, clients: 8, load: 2.0, length: Duration::from_secs(30), seed: 7 };
            let trace = run.go(&policy(name)).trace;
            let line = trace.chunks(5).enumerate().map(|(half, ticks)| {
                let good: u32 = ticks.iter().map(|(_, good)| good).sum();
                (half as f64 / 2.0, f64::from(good) * 2.0 / CAPACITY)
            });
            svg.line(&panel, line, colour);
            if row == 0 {
                svg.legend(600.0, y + 20.0 + 22.0 * at as f64, name, colour);
            }
        }
    }
    svg.finish()
}

struct Panel {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    most: (f64, f64),
}

impl Panel {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let (most_x, most_y) = self.most;
        (self.x + x / most_x * self.width, self.y + self.height * (1.0 - (y / most_y).min(1.0)))
    }
}

struct Svg(String);

impl Svg {
    fn new(width: f64, height: f64, title: &str) -> Self {
        let mut svg = Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
        ));
        svg.text(60.0, 28.0, title, "font-size=\"15\"");
        svg
    }

    fn text(&mut self, x: f64, y: f64, text: &str, style: &str) {
        writeln!(self.0, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{text}</text>")
            .expect("a string takes all that is written");
    }

    fn stroke(&mut self, points: &str, colour: &str, width: f64) {
        writeln!(
            self.0,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
        )
        .expect("a string takes all that is written");
    }

    fn axes(&mut self, panel: &Panel, across: &str, up: &str) {
        let Panel { x, y, width, height, most } = *panel;
        let (right, bottom) = (x + width, y + height);
        self.stroke(&format!("{x},{y} {x},{bottom} {right},{bottom}"), "#333333", 1.0);
        self.text(x, bottom + 32.0, across, "fill=\"#333333\"");
        self.text(x + 4.0, y - 6.0, up, "fill=\"#333333\"");
        for part in 0..=5 {
            let value = most.0 * f64::from(part) / 5.0;
            self.text(panel.at((value, 0.0)).0 - 4.0, bottom + 16.0, &format!("{value}"), "fill=\"#333333\"");
        }
        for value in [0.5, 1.0] {
            let (_, y) = panel.at((0.0, value));
            self.stroke(&format!("{x},{y:.1} {right},{y:.1}"), "#dddddd", 1.0);
            self.text(x - 26.0, y + 4.0, &format!("{value:.1}"), "fill=\"#333333\"");
        }
    }

    fn line(&mut self, panel: &Panel, points: impl Iterator<Item = (f64, f64)>, colour: &str) {
        let points: Vec<_> = points
            .map(|point| {
                let (x, y) = panel.at(point);
                format!("{x:.1},{y:.1}")
            })
            .collect();
        self.stroke(&points.join(" "), colour, 2.0);
    }

    fn legend(&mut self, x: f64, y: f64, name: &str, colour: &str) {
        self.stroke(&format!("{x},{y} {:.1},{y}", x + 18.0), colour, 3.0);
        self.text(x + 24.0, y + 4.0, name, "");
    }

    fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}
