//! What was admitted when, for a checker that knows the instant of each call only within bounds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// Microseconds of the clock that servers and test share, being on one host.
pub(crate) fn micros_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_micros()).expect("before the year 586 912")
}

/// What a limit promises.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// So many calls in each window of the clock.
    Window { calls: usize, period: Duration },
    /// So many calls in any span of a period.
    Span { calls: usize, period: Duration },
    /// So many calls in any span, and more the longer it is.
    Bucket { burst: usize, a_second: usize },
}

/// The calls of one key that were admitted, each at some instant of a span. Spans begin in order, nearly.
#[derive(Default)]
pub(crate) struct Record(Mutex<Vec<(u64, u64)>>);

impl Record {
    /// A call was admitted at some time between the two.
    pub(crate) fn admitted(&self, from: u64, to: u64) {
        self.0.lock().push((from, to));
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// Panics where more was admitted for certain than the bound allows.
    pub(crate) fn check(&self, bound: &Bound, name: &str) {
        let mut calls = self.0.lock().clone();
        calls.sort_unstable();
        let micros = |time: Duration| u64::try_from(time.as_micros()).expect("short");
        for (at, &(from, _)) in calls.iter().enumerate() {
            let later = &calls[at..];
            // Spans that begin with this call.
            let within = |end: u64| {
                later.iter().take_while(move |(from, _)| *from < end).filter(move |(_, to)| *to < end).count()
            };
            match *bound {
                Bound::Window { calls: most, period } => {
                    let end = (from / micros(period) + 1) * micros(period);
                    let surely = within(end);
                    assert!(surely <= most, "{name}: {surely} of {most} in the window that ends at {end}");
                }
                Bound::Span { calls: most, period } => {
                    let surely = within(from + micros(period));
                    assert!(surely <= most, "{name}: {surely} of {most} in the period from {from}");
                }
                Bound::Bucket { burst, a_second } => {
                    for seconds in [0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 20.0] {
                        let most = burst + (a_second as f64 * seconds) as usize + 1;
                        let surely = within(from + (seconds * 1e6) as u64);
                        assert!(surely <= most, "{name}: {surely} of {most} in {seconds} s from {from}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_record_finds_what_was_admitted_too_much() {
    let second = 1_000_000;
    let found = |bound: Bound, calls: &[(u64, u64)]| {
        let record = Record(Mutex::new(calls.to_vec()));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| record.check(&bound, "test"))).is_err()
    };
    let (window, span) = (
        Bound::Window { calls: 1, period: Duration::from_secs(1) },
        Bound::Span { calls: 1, period: Duration::from_secs(1) },
    );
    let (edge, over_edge) =
        ([(5 * second + 999_990, 5 * second + 999_995), (6 * second, 6 * second + 5)], 10);
    assert!(!found(window, &edge) && found(span, &edge));
    let over_edge = [(5 * second - over_edge, 5 * second + over_edge), (5 * second + 20, 5 * second + 30)];
    assert!(!found(window, &over_edge), "it may have been in either window");
    assert!(found(window, &[(5 * second, 5 * second + 1), (5 * second + 2, 5 * second + 3)]));
    let bucket = Bound::Bucket { burst: 2, a_second: 10 };
    let many = |count: u64, apart: u64| (0..count).map(|n| (n * apart, n * apart + 1)).collect::<Vec<_>>();
    assert!(!found(bucket, &many(12, second / 10)) && found(bucket, &many(12, second / 50)));
}
