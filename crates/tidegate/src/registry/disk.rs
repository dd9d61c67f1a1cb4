//! Snapshots on disk: one file a service, written whole or not at all, with a checksum and its age.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Instance, ServiceName, entry::Entry, snapshot::Origin};
use crate::{Instant, clock};

/// The first word of a file, and the version of what follows.
const MAGIC: &str = "tidegate-registry-snapshot-1";

/// How files end.
const EXTENSION: &str = "snapshot";

/// The most files that are read.
const MOST_FILES: usize = 10_000;

/// The most bytes of a file that is read.
const LARGEST: u64 = 64 << 20;

/// Changes are gathered for this long, so that a storm of them is one write.
const GATHER: Duration = Duration::from_secs(1);

/// The most problems that are remembered.
const MOST_PROBLEMS: usize = 32;

/// The directory.
#[derive(Clone)]
pub(super) struct Disk(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    dirty: Mutex<Dirty>,
    problems: Mutex<Vec<String>>,
    loaded: Mutex<Vec<Loaded>>,
}

#[derive(Default)]
struct Dirty {
    entries: HashMap<ServiceName, Arc<Entry>>,
    writing: bool,
}

/// What was on disk.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) service: ServiceName,
    pub(super) as_of: Instant,
    pub(super) instances: Vec<Arc<Instance>>,
}

#[derive(Serialize, Deserialize)]
struct File {
    service: ServiceName,
    /// Milliseconds since the Unix epoch.
    as_of: u64,
    instances: Vec<Arc<Instance>>,
}

impl Disk {
    /// Makes the directory if need be, and reads what is there.
    pub(super) fn open(directory: &Path) -> Self {
        let disk = Self(Arc::new(Inner {
            directory: directory.to_owned(),
            dirty: Mutex::default(),
            problems: Mutex::default(),
            loaded: Mutex::default(),
        }));
        match disk.load() {
            Ok(loaded) => *disk.0.loaded.lock() = loaded,
            Err(error) => disk.problem(format!(
                "snapshot directory {}: {error}; make it a directory that this process may write",
                directory.display()
            )),
        }
        disk
    }

    fn load(&self) -> io::Result<Vec<Loaded>> {
        fs::create_dir_all(&self.0.directory)?;
        let mut loaded = Vec::new();
        let is_snapshot = |path: &PathBuf| path.extension().is_some_and(|extension| extension == EXTENSION);
        let paths = fs::read_dir(&self.0.directory)?.filter_map(|entry| Some(entry.ok()?.path()));
        for path in paths.filter(is_snapshot).take(MOST_FILES) {
            match read(&path) {
                Ok(file) => loaded.push(file),
                Err(why) => self.problem(format!("snapshot {} is ignored: {why}", path.display())),
            }
        }
        Ok(loaded)
    }

    /// What was on disk at the start; once.
    pub(super) fn take_loaded(&self) -> Vec<Loaded> {
        std::mem::take(&mut *self.0.loaded.lock())
    }

    pub(super) fn problem(&self, problem: String) {
        let mut problems = self.0.problems.lock();
        if problems.len() < MOST_PROBLEMS && !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    pub(super) fn problems(&self) -> Vec<String> {
        self.0.problems.lock().clone()
    }

    /// Writes what is known of a service, soon.
    pub(super) fn changed(&self, entry: &Arc<Entry>) {
        let mut dirty = self.0.dirty.lock();
        dirty.entries.insert(entry.name().clone(), Arc::clone(entry));
        if std::mem::replace(&mut dirty.writing, true) {
            return;
        }
        drop(dirty);
        let disk = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(GATHER).await;
                let entries = {
                    let mut dirty = disk.0.dirty.lock();
                    if dirty.entries.is_empty() {
                        dirty.writing = false;
                        return;
                    }
                    std::mem::take(&mut dirty.entries)
                };
                let writer = disk.clone();
                // A panic in there is ours to fix, and no reason to stop writing.
                let _ = tokio::task::spawn_blocking(move || writer.write_all(entries.values())).await;
            }
        });
    }

    fn write_all<'a>(&self, entries: impl Iterator<Item = &'a Arc<Entry>>) {
        for entry in entries {
            let file = entry.change(|known| {
                let as_of = match known.origin {
                    Origin::Watch => Some(clock::now()),
                    Origin::Read | Origin::Disk => known.service.as_of(),
                };
                let endpoints = known.service.snapshot().endpoints;
                let instances: Vec<_> = endpoints.into_iter().map(|endpoint| endpoint.instance).collect();
                let as_of = as_of.unwrap_or_default().as_nanos() / 1_000_000;
                File { service: entry.name().clone(), as_of, instances }
            });
            let path = self.0.directory.join(file_name(entry.name()));
            let written = if file.instances.is_empty() { remove(&path) } else { write(&path, &file) };
            if let Err(error) = written {
                self.problem(format!("snapshot {} is not written: {error}", path.display()));
            }
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Writes beside the old file and then replaces it: a crash leaves one of them whole.
fn write(path: &Path, file: &File) -> io::Result<()> {
    use io::Write as _;
    let body = serde_json::to_vec(file)?;
    let beside = path.with_extension("new");
    let mut new = fs::File::create(&beside)?;
    writeln!(new, "{MAGIC} {:016x}", checksum(&body))?;
    new.write_all(&body)?;
    new.sync_all()?;
    fs::rename(&beside, path)
}

fn read(path: &Path) -> Result<Loaded, String> {
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > LARGEST {
        return Err(format!("it has {length} bytes; at most {LARGEST} are read"));
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or("its first line has no end")?;
    let (head, body) = (&bytes[..end], &bytes[end + 1..]);
    if !head.starts_with(MAGIC.as_bytes()) {
        return Err("it is not a snapshot of this version".to_owned());
    }
    if head != format!("{MAGIC} {:016x}", checksum(body)).as_bytes() {
        return Err("its checksum is wrong: it is damaged".to_owned());
    }
    let file: File = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if file.instances.iter().any(|instance| instance.service != file.service) {
        return Err(format!("it lists an instance of another service than {}", file.service));
    }
    let as_of = Instant::EPOCH + Duration::from_millis(file.as_of);
    Ok(Loaded { service: file.service, as_of, instances: file.instances })
}

/// A name of its own for every service, whatever characters the service's has.
fn file_name(service: &ServiceName) -> String {
    let mut name = String::new();
    for byte in service.as_str().bytes().take(120) {
        let plain = byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        name.push(if plain { char::from(byte) } else { '_' });
    }
    // What was replaced, cut off or written in capitals tells in the hash.
    let _ = write!(name, ".{:016x}.{EXTENSION}", checksum(service.as_str().as_bytes()));
    name
}

/// FNV-1a, 64 bits: it finds damage, it does not stop forgery.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl super::Registry {
    /// Takes what the snapshots on disk tell. Unless the source says something else, it is served, marked.
    pub(super) fn restore(&self) {
        let Some(disk) = &self.0.books.disk else { return };
        let now = clock::now();
        for Loaded { service, as_of, instances } in disk.take_loaded() {
            // A wall clock that was set back must not make a snapshot younger than now.
            let as_of = as_of.min(now);
            let age = now.since(as_of);
            if age >= self.0.books.settings.max_stale {
                disk.problem(format!(
                    "snapshot of {service} is ignored: it is {age:?} old, older than max_stale"
                ));
                continue;
            }
            let entry = self.0.books.entry(&service);
            entry.change(|known| {
                known.origin = Origin::Disk;
                known.service.restore(instances, as_of, now);
            });
            self.0.publish(&entry);
        }
    }

    /// What is wrong with the snapshots on disk, for people: damaged files, a directory that cannot be written.
    pub fn problems(&self) -> Vec<String> {
        self.0.books.disk.as_ref().map(Disk::problems).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(service: &str) -> File {
        let service: ServiceName = service.parse().unwrap();
        let instance = Instance::new(service.clone(), "7", "10.0.0.7:9001".parse().unwrap());
        File { service, as_of: 1_700_000_000_000, instances: vec![Arc::new(instance)] }
    }

    #[test]
    fn what_is_written_reads_back_and_every_damage_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.snapshot");
        write(&path, &file("a/b")).unwrap();
        let loaded = read(&path).unwrap();
        assert_eq!((loaded.service.as_str(), loaded.instances.len()), ("a/b", 1));
        assert_eq!(loaded.as_of.as_nanos(), 1_700_000_000_000_000_000);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            assert!(read(&path).is_err(), "byte {at}");
            fs::write(&path, &good[..at]).unwrap();
            assert!(read(&path).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn names_with_separators_have_files_of_their_own() {
        let name = |service: &str| file_name(&service.parse().unwrap());
        let names = ["a/b", "a_b", "a-b", "A_b", "../a", "a.b", "ä"].map(name);
        let all: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(all.len(), names.len(), "{names:?}");
        assert!(names.iter().all(|name| !name.contains('/') && !name.starts_with("..")));
        assert!(name(&"x".repeat(255)).len() < 200);
    }
}
