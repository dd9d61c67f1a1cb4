//! What the kernel tells of memory: of the cgroup (version 2), else of the machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tidegate_core::pressure::Reading;

/// Reads what the kernel tells.
#[derive(Clone, Debug)]
pub(super) struct Sampler {
    /// The process's cgroup, from its own up to the root: the tightest limit counts.
    groups: Vec<PathBuf>,
    machine: PathBuf,
}

impl Sampler {
    /// Looks for the process's cgroup in the kernel's files below `root`.
    pub(super) fn below(root: &Path) -> Self {
        let mount = root.join("sys/fs/cgroup");
        let own = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        // Of version 2 there is one line, `0::/path`.
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let deepest = mount.join(own);
        let groups = deepest.ancestors().take_while(|group| group.starts_with(&mount)).map(Path::to_path_buf);
        Self { groups: groups.collect(), machine: root.join("proc") }
    }

    /// Looks once. `None`: there is nothing to read.
    pub(super) fn read(&self) -> Option<Reading> {
        let tightest = self.groups.iter().filter_map(|group| read_group(group)).max_by_key(|reading| {
            let limit = u128::from(reading.limit.unwrap_or(u64::MAX).max(1));
            u128::from(reading.used) * 1_000_000 / limit
        });
        let mut reading = tightest.or_else(|| self.read_machine())?;
        let own = self.groups.first().and_then(|group| stalled(&group.join("memory.pressure")));
        reading.stalled = own.or_else(|| stalled(&self.machine.join("pressure/memory")));
        Some(reading)
    }

    fn read_machine(&self) -> Option<Reading> {
        let info = fs::read_to_string(self.machine.join("meminfo")).ok()?;
        let kibibytes = |name: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?;
            value.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        let (total, available) = (kibibytes("MemTotal:")?, kibibytes("MemAvailable:")?);
        Some(Reading { used: total.saturating_sub(available), limit: Some(total), stalled: None })
    }
}

/// A group with a limit. What it only caches of files that nobody used lately can be given back at once.
fn read_group(group: &Path) -> Option<Reading> {
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit = [number("memory.max"), number("memory.high")].into_iter().flatten().min()?;
    let cached = fs::read_to_string(group.join("memory.stat")).ok().and_then(|stat| {
        stat.lines().find_map(|line| line.strip_prefix("inactive_file "))?.trim().parse::<u64>().ok()
    });
    let used = number("memory.current")?.saturating_sub(cached.unwrap_or_default());
    Some(Reading { used, limit: Some(limit), stalled: None })
}

/// `some avg10`, in hundredths of a percent.
fn stalled(file: &Path) -> Option<u32> {
    let text = fs::read_to_string(file).ok()?;
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let average = some.split(' ').find_map(|field| field.strip_prefix("avg10="))?;
    let (whole, hundredths) = average.split_once('.')?;
    whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(hundredths.parse().ok()?)
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn kernel(files: &[(&str, &str)]) -> TempDir {
        let root = TempDir::new().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn read(files: &[(&str, &str)]) -> Option<Reading> {
        Sampler::below(kernel(files).path()).read()
    }

    const MACHINE: (&str, &str) =
        ("proc/meminfo", "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  400 kB\n");

    #[test]
    fn the_tightest_limit_on_the_way_to_the_root_counts_without_what_is_only_cached() {
        let reading = read(&[
            MACHINE,
            ("proc/self/cgroup", "0::/pod/app\n"),
            ("sys/fs/cgroup/pod/app/memory.max", "max\n"),
            ("sys/fs/cgroup/pod/app/memory.high", "900\n"),
            ("sys/fs/cgroup/pod/app/memory.current", "500\n"),
            ("sys/fs/cgroup/pod/memory.max", "1000\n"),
            ("sys/fs/cgroup/pod/memory.current", "950\n"),
            ("sys/fs/cgroup/pod/memory.stat", "anon 1\ninactive_file 50\n"),
            (
                "sys/fs/cgroup/pod/app/memory.pressure",
                "some avg10=12.34 avg60=0.00 avg300=0.00 total=1\nfull x\n",
            ),
        ]);
        assert_eq!(reading, Some(Reading { used: 900, limit: Some(1000), stalled: Some(1234) }));
    }

    #[test]
    fn without_a_limit_the_machine_counts() {
        let unlimited = ("sys/fs/cgroup/memory.max", "max\n");
        let stalled = ("proc/pressure/memory", "some avg10=0.05 avg60=0.00 avg300=0.00 total=1\n");
        let version_1 = ("proc/self/cgroup", "4:memory:/a\n0::/\n");
        for files in [&[MACHINE, stalled][..], &[MACHINE, unlimited, version_1, stalled]] {
            let reading = Reading { used: 600 * 1024, limit: Some(1000 * 1024), stalled: Some(5) };
            assert_eq!(read(files), Some(reading));
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_reading() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[("proc/meminfo", "MemTotal: x kB")]), None);
    }

    #[test]
    fn this_machine_can_be_read() {
        if cfg!(target_os = "linux") {
            let reading = Sampler::below(Path::new("/")).read().unwrap();
            assert!(reading.used > 0 && reading.limit.is_some());
        }
    }
}
