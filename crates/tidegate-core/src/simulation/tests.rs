use std::time::Duration;

use super::*;
use crate::{
    Algorithm, Quota,
    ledger::{Opening, Rule},
};

fn rule(rate: &str, algorithm: Algorithm) -> Rule {
    Rule::of(Quota::of(rate.parse().unwrap()).algorithm(algorithm).build().unwrap()).build().unwrap()
}

#[test]
fn grid() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::TokenBucket] {
        for (rate, per) in [("1/s", 1.0), ("5/s", 5.0), ("100/s", 100.0), ("1000/s", 1000.0)] {
            for nodes in [1, 4, 32] {
                for offered in [1.5, 4.0] {
                    for skew in [0.0, 1.0] {
                        let length = Duration::from_secs(if per < 50.0 { 40 } else { 5 });
                        let load = Load { nodes, calls_per_second: per * offered, skew, ..Load::default() };
                        let report = Fleet::new(Scenario::new(rule(rate, algorithm)), nodes).run(
                            load.calls(length),
                            length,
                            |_| {},
                        );
                        let all = report.ideal as f64;
                        let late: u64 = report.windows[3..].iter().map(|window| window.admitted).sum();
                        print!("late {:.4} ", late as f64 / (report.windows.len() - 3) as f64 / per);
                        println!(
                            "{algorithm:?} {rate} G={nodes} x{offered} skew {skew}: over {} admitted {:.4} local {:.4} asks {:.4} p99 {:?}",
                            report.over,
                            report.admitted as f64 / all,
                            report.local_share(),
                            report.asked_per_decision(),
                            report.wait(0.99),
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn below() {
    for (rate, per, seconds) in [
        ("10000/10s", 1000.0, 60),
        ("10000/s", 10000.0, 5),
        ("6000/min", 100.0, 180),
        ("1000/s", 1000.0, 5),
        ("100000/s", 100000.0, 2),
    ] {
        for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::TokenBucket] {
            let length = Duration::from_secs(seconds);
            let load = Load { nodes: 64, calls_per_second: per * 0.9, skew: 1.0, ..Load::default() };
            let report =
                Fleet::new(Scenario::new(rule(rate, algorithm)), 64).run(load.calls(length), length, |_| {});
            println!(
                "{algorithm:?} {rate}: over {} admitted {:.4} local {:.4} asks {:.4} p99 {:?}",
                report.over,
                report.admitted as f64 / report.ideal as f64,
                report.local_share(),
                report.asked_per_decision(),
                report.wait(0.99),
            );
        }
    }
    let _ = Opening::Clock;
}

#[test]
fn debug_one() {
    let length = Duration::from_secs(5);
    let load = Load { nodes: 32, calls_per_second: 150.0, skew: 1.0, ..Load::default() };
    let report = Fleet::new(Scenario::new(rule("100/s", Algorithm::FixedWindow)), 32).run(
        load.calls(length),
        length,
        |_| {},
    );
    println!("{:?} {}", report.windows, report.ideal);
}
