//! A wall clock that a test sets, for a process of its own. Its monotonic clock runs on, as that of a machine does whose
//! time is stepped.

use std::{fs, path::Path};

use tempfile::TempDir;

/// Debian's `libfaketime`; the loader puts the machine's name in.
const LIBRARY: &str = "/usr/$LIB/faketime/libfaketime.so.1";
/// The command that comes with it.
const COMMAND: &str = "/usr/bin/faketime";

/// A running clock; it goes with its owner.
pub struct Clock(TempDir);

impl Clock {
    /// Whether there can be any; says so if not.
    pub fn can_be() -> bool {
        let is_there = Path::new(COMMAND).exists();
        if !is_there {
            eprintln!("left out: {COMMAND} is not there; `make test-tools` installs it");
        }
        is_there
    }

    /// A clock that is so many seconds ahead.
    pub fn ahead(seconds: i64) -> Self {
        let clock = Self(TempDir::new().expect("a directory for the clock"));
        clock.step(seconds);
        clock
    }

    /// Sets it, from the next time on that anybody looks.
    pub fn step(&self, seconds_ahead: i64) {
        // In one step: who looks meanwhile must not find half a number.
        let next = self.0.path().join("next");
        fs::write(&next, format!("{seconds_ahead:+}")).expect("it can be written");
        fs::rename(next, self.0.path().join("now")).expect("it can be replaced");
    }

    /// What a process needs in its environment to have this clock.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("LD_PRELOAD", LIBRARY.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.0.path().join("now").display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
    }
}
