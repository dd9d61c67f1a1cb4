//! Notices when the files of a configuration change. What counts is their content: a touched file is the same file.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    io::Read,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher, event::AccessKind, event::AccessMode};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::Loaded;

/// How long it must be quiet before files are looked at. Default: 200 ms.
const QUIET: Duration = Duration::from_millis(200);
/// Longest wait for quiet. Default: 2 s.
const LONGEST_UNREST: Duration = Duration::from_secs(2);
/// How often files are looked at anyway, as some file systems tell nothing. Default: 10 s.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often they are looked at while a directory cannot be watched. Default: 1 s.
const LOOK_EVERY_UNWATCHED: Duration = Duration::from_secs(1);
/// Most bytes of a file that count. Default: 1 MiB.
const MOST_BYTES: u64 = 1 << 20;

/// What was in the files of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(Vec<Option<u64>>);

impl Fingerprint {
    fn of(files: &[PathBuf]) -> Self {
        let mut fingerprint = Self::default();
        files.iter().for_each(|file| fingerprint.add_file(file));
        fingerprint
    }

    /// Adds the content of the next file.
    pub(super) fn add(&mut self, content: &[u8]) {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        self.0.push(Some(hasher.finish()));
    }

    /// Adds the next file; one that can not be read is noted as such.
    pub(super) fn add_file(&mut self, path: &Path) {
        match content_of(path) {
            Ok(content) => self.add(&content),
            Err(_) => self.0.push(None),
        }
    }

    /// Takes over what `before` knew of files that are gone: there is nothing to load from them.
    fn or(mut self, before: &Self) -> Self {
        for (now, before) in self.0.iter_mut().zip(&before.0) {
            *now = now.or(*before);
        }
        self
    }
}

/// Reads a regular file; a pipe would give its content once, or never.
fn content_of(path: &Path) -> std::io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::ErrorKind::Unsupported.into());
    }
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(MOST_BYTES).read_to_end(&mut content)?;
    Ok(content)
}

/// Watches the files of a configuration, by their directories: Kubernetes swaps symbolic links there, editors rename.
#[derive(Debug)]
pub struct Watch {
    files: Vec<PathBuf>,
    seen: Fingerprint,
    /// Whether files may have changed since they were looked at.
    dirty: bool,
    watcher: Option<RecommendedWatcher>,
    directories: BTreeSet<PathBuf>,
    signal: Arc<Signal>,
}

/// What the watching thread tells.
#[derive(Debug, Default)]
struct Signal {
    event: Notify,
    /// Whether a directory may be another one now under the same name.
    moved: AtomicBool,
}

impl Watch {
    /// Watches the files that `loaded` was made of. What changed since then is noticed too.
    pub fn new(loaded: &Loaded) -> Self {
        Self {
            files: loaded.files.clone(),
            seen: loaded.fingerprint.clone(),
            dirty: true,
            watcher: None,
            directories: BTreeSet::new(),
            signal: Arc::default(),
        }
    }

    /// Watches the files of a newer configuration from now on.
    pub fn follow(&mut self, loaded: &Loaded) {
        self.files.clone_from(&loaded.files);
        self.seen.clone_from(&loaded.fingerprint);
        self.dirty = true;
    }

    /// What is in the files now, for [`Watch::refused`].
    pub fn glance(&self) -> Fingerprint {
        Fingerprint::of(&self.files)
    }

    /// The files were loaded after they were `glance`d at, and refused: the same content is not told again.
    pub fn refused(&mut self, glance: Fingerprint) {
        self.seen = glance.or(&self.seen);
    }

    /// Waits until the content of a file differs from what was loaded or last told. A configuration without files never
    /// changes.
    ///
    /// # Cancel safety
    /// Cancel safe: a change that was not told yet is told by the next call.
    pub async fn changed(&mut self) {
        if self.files.is_empty() {
            return std::future::pending().await;
        }
        loop {
            let watched = self.arm();
            if !self.dirty {
                let every = if watched { LOOK_EVERY } else { LOOK_EVERY_UNWATCHED };
                tokio::select! {
                    () = self.signal.event.notified() => {}
                    () = sleep(every) => {}
                }
                self.dirty = true;
                // What was moved away must be watched at its new place before it is read.
                continue;
            }
            let unrest = Instant::now();
            while timeout(QUIET, self.signal.event.notified()).await.is_ok()
                && unrest.elapsed() < LONGEST_UNREST
            {}
            if self.look().await {
                return;
            }
        }
    }

    /// Looks at the files now; whether their content differs from what was seen before.
    async fn look(&mut self) -> bool {
        let files = self.files.clone();
        // A failed look leaves everything as dirty as it was.
        let Ok(now) = tokio::task::spawn_blocking(move || Fingerprint::of(&files)).await else {
            return false;
        };
        let now = now.or(&self.seen);
        self.dirty = false;
        let differs = now != self.seen;
        self.seen = now;
        differs
    }

    /// Watches the directories as they are now; whether all of them could be watched.
    fn arm(&mut self) -> bool {
        let wanted: BTreeSet<PathBuf> = self.files.iter().flat_map(|file| directories(file)).collect();
        let moved = self.signal.moved.swap(false, Ordering::AcqRel);
        if self.watcher.is_some() && !moved && wanted == self.directories {
            return true;
        }
        self.watcher = None;
        self.directories.clear();
        let signal = Arc::clone(&self.signal);
        let Ok(mut watcher) = notify::recommended_watcher(move |event| signal.take(event)) else {
            return false;
        };
        for directory in wanted {
            if watcher.watch(&directory, RecursiveMode::NonRecursive).is_err() {
                return false;
            }
            self.directories.insert(directory);
        }
        self.watcher = Some(watcher);
        // What happened before this watcher began was told to nobody.
        self.dirty = true;
        true
    }
}

/// Where a file is named, and where it really is.
fn directories(file: &Path) -> impl Iterator<Item = PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        Some(parent) => Some(parent.to_owned()),
        None => None,
    };
    let real = file.canonicalize().ok().and_then(|real| parent(&real));
    parent(file).into_iter().chain(real)
}

impl Signal {
    fn take(&self, event: notify::Result<notify::Event>) {
        match event.map(|event| event.kind) {
            // Reading is no change; our own reading would wake us for ever.
            Ok(EventKind::Access(kind)) if kind != AccessKind::Close(AccessMode::Write) => return,
            Ok(EventKind::Access(_) | EventKind::Create(_)) => {}
            Ok(EventKind::Modify(notify::event::ModifyKind::Data(_))) => {}
            Ok(_) | Err(_) => self.moved.store(true, Ordering::Release),
        }
        self.event.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::config::{Source, load};

    /// Longest wait for a change that was made; shorter than [`LOOK_EVERY`], so that looking does not stand in for
    /// watching.
    const SOON: Duration = Duration::from_secs(8);

    fn text(namespace: &str) -> String {
        format!(
            "namespace: {namespace}\nupstreams: {{ a: {{ endpoints: [http://h:1] }} }}\nroutes: [{{ upstream: a }}]\n"
        )
    }

    fn watch(file: &Path) -> Watch {
        Watch::new(&load(&Source::File(file.into())).unwrap())
    }

    async fn changes(watch: &mut Watch) {
        timeout(SOON, watch.changed()).await.expect("the change is noticed");
    }

    #[tokio::test]
    async fn what_was_refused_is_told_again_only_if_it_changes() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("tidegate.yaml");
        fs::write(&file, text("one")).unwrap();
        let mut watch = watch(&file);
        fs::write(&file, "wrong").unwrap();
        let glance = watch.glance();
        watch.refused(glance);
        assert!(!watch.look().await, "it was told already");
        fs::write(&file, "as wrong").unwrap();
        assert!(watch.look().await);
    }

    #[tokio::test]
    async fn a_file_that_is_written_or_replaced_is_noticed() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("tidegate.yaml");
        fs::write(&file, text("one")).unwrap();
        let mut watch = watch(&file);
        fs::write(&file, text("two")).unwrap();
        changes(&mut watch).await;
        fs::write(home.path().join("new"), text("three")).unwrap();
        fs::rename(home.path().join("new"), &file).unwrap();
        changes(&mut watch).await;
        fs::remove_file(&file).unwrap();
        fs::write(&file, text("four")).unwrap();
        changes(&mut watch).await;
    }

    #[tokio::test]
    async fn the_same_content_is_no_change_and_the_next_real_one_is() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("tidegate.yaml");
        fs::write(&file, text("one")).unwrap();
        let mut watch = watch(&file);
        fs::write(&file, text("one")).unwrap();
        fs::write(home.path().join("neighbour"), "x").unwrap();
        assert!(!watch.look().await);
        fs::write(&file, text("two")).unwrap();
        changes(&mut watch).await;
        assert!(!watch.look().await);
    }

    #[tokio::test]
    async fn a_swapped_symbolic_link_is_noticed() {
        // As Kubernetes mounts a ConfigMap: file -> ..data/file, ..data -> ..1, and ..data is swapped by a rename.
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        for (version, namespace) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("tidegate.yaml"), text(namespace)).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/tidegate.yaml", at("tidegate.yaml")).unwrap();
        let mut watch = watch(&at("tidegate.yaml"));
        assert!(watch.arm() && watch.directories.iter().any(|directory| directory.ends_with("..1")));
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        fs::remove_dir_all(at("..1")).unwrap();
        changes(&mut watch).await;
        assert!(watch.arm() && watch.directories.iter().any(|directory| directory.ends_with("..2")));
    }

    #[tokio::test]
    async fn a_directory_that_goes_away_and_comes_back_is_watched_again() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("etc");
        let file = directory.join("tidegate.yaml");
        fs::create_dir(&directory).unwrap();
        fs::write(&file, text("one")).unwrap();
        let mut watch = watch(&file);
        for namespace in ["two", "three"] {
            assert!(watch.arm());
            fs::remove_dir_all(&directory).unwrap();
            timeout(SOON, watch.signal.event.notified()).await.expect("the directory's end is noticed");
            assert!(!watch.look().await, "a file that is gone is no change: there is nothing to load");
            fs::create_dir(&directory).unwrap();
            fs::write(&file, text(namespace)).unwrap();
            changes(&mut watch).await;
        }
    }

    #[tokio::test]
    async fn a_changed_certificate_is_noticed_and_a_dropped_wait_loses_nothing() {
        let home = tempfile::tempdir().unwrap();
        let write = || {
            let pair = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
            fs::write(home.path().join("tls.crt"), pair.cert.pem()).unwrap();
            fs::write(home.path().join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
        };
        write();
        let file = home.path().join("tidegate.yaml");
        fs::write(&file, format!("{}listen: {{ tls: {{ cert: tls.crt, key: tls.key }} }}\n", text("one")))
            .unwrap();
        let mut watch = watch(&file);
        assert!(!watch.look().await);
        write();
        for _ in 0..3 {
            assert!(timeout(Duration::ZERO, watch.changed()).await.is_err());
        }
        changes(&mut watch).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_configuration_without_files_never_changes() {
        let source = Source::Text { name: "embedded".into(), text: text("one") };
        let mut watch = Watch::new(&load(&source).unwrap());
        assert!(timeout(Duration::from_secs(3600), watch.changed()).await.is_err());
    }
}
