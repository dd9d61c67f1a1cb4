//! Calls are shed while memory is short, by their priority.
#![cfg(not(any(loom, shuttle)))]

use std::{fs, time::Duration};

use tidegate::{
    By, Call, Gate as _, Instant, Outcome, Permit as _, Priority,
    pressure::{Level, Limits, Pressure, Reading, Settings},
};

fn call(priority: Priority) -> Call {
    Call::at(Instant::EPOCH).priority(priority)
}

#[test]
fn what_is_sheddable_is_shed_first_and_what_is_critical_never() {
    let pressure = Pressure::told(Limits::default()).unwrap();
    let shed = |percent: u64| {
        pressure.learn(Reading { used: percent, limit: Some(100), stalled: None });
        [Priority::Sheddable, Priority::Normal, Priority::Critical]
            .map(|priority| pressure.try_enter(&call(priority), "").is_err())
    };
    assert_eq!(shed(50), [false, false, false]);
    assert_eq!(shed(90), [true, false, false]);
    assert_eq!(shed(99), [true, true, false]);
    let refused = pressure.admit(&call(Priority::Normal)).unwrap_err();
    assert_eq!((refused.by, refused.retry_after), (By::Pressure, Some(Duration::from_secs(1))));
    assert_eq!(shed(10), [false, false, false]);
    pressure.try_enter(&call(Priority::Normal), "").unwrap().settle(Outcome::Success, Instant::EPOCH);
}

#[tokio::test]
async fn memory_is_looked_at_in_the_background() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("proc")).unwrap();
    let meminfo = root.path().join("proc/meminfo");
    let free = |kibibytes: u64| {
        fs::write(&meminfo, format!("MemTotal: 1000 kB\nMemAvailable: {kibibytes} kB\n")).unwrap();
    };
    free(500);
    let settings =
        Settings { every: Duration::from_millis(10), root: root.path().to_owned(), ..Settings::default() };
    let pressure = Pressure::watch(settings).unwrap();
    assert_eq!(pressure.level(), Level::None, "the first look is at once");
    for (kibibytes, level) in [(10, Level::Critical), (130, Level::High), (900, Level::None)] {
        free(kibibytes);
        let seen = async {
            while pressure.level() != level {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), seen).await.expect("it is seen");
    }
    fs::remove_file(&meminfo).unwrap();
    let unread = async {
        while pressure.reading().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), unread).await.expect("it is seen");
    assert_eq!(pressure.level(), Level::None, "what nobody knows sheds nothing");
}

#[tokio::test]
async fn settings_out_of_range_are_named() {
    let settings = Settings { every: Duration::ZERO, ..Settings::default() };
    let error = Pressure::watch(settings).unwrap_err();
    assert_eq!(error.to_string(), "pressure: every is 0ns; it is at least 10ms, like 1s");
}
