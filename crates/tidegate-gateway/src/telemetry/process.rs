//! The standard metrics of a process, as far as Linux tells them; nothing elsewhere.

use std::{fmt, fs};

use super::page::{BYTES, NONE, Page, SECONDS};

/// Clock ticks a second in `/proc`: part of Linux's ABI.
const TICKS_A_SECOND: f64 = 100.0;

pub(super) fn encode(page: &mut Page) -> fmt::Result {
    if let Some(seconds) = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| cpu_seconds(&stat)) {
        page.counter("process_cpu", "Processor time used, user and system", SECONDS, [(NONE, seconds)])?;
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        if let Some(kibibytes) = field(&status, "VmRSS:") {
            page.gauge("process_resident_memory", "Resident memory", BYTES, [(NONE, kibibytes * 1024.0)])?;
        }
        if let Some(threads) = field(&status, "Threads:") {
            page.gauge("process_threads", "Threads", None, [(NONE, threads)])?;
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        page.gauge("process_open_fds", "Open file descriptors", None, [(NONE, open.count() as f64)])?;
    }
    Ok(())
}

/// The fields after the command's name, which may hold spaces: utime and stime are the 14th and 15th of all.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_A_SECOND)
}

fn field(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_spaces_and_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 3 0 100 1 2";
        assert_eq!(cpu_seconds(stat), Some(4.0));
        assert_eq!(cpu_seconds("7 (cut"), None);
        assert_eq!(field("Name:\tx\nVmRSS:\t  1234 kB\n", "VmRSS:"), Some(1234.0));
    }
}
