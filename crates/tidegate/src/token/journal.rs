//! Sessions on disk: a sealed file that grows by what changes, and is written anew when most of it is old.
//!
//! A change is on disk before its operation is answered, in one write for all that come together. What was being
//! written when the machine stopped is cut off at the next start.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
};

use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::{Seal, SessionId};
use crate::sync::now;

/// The first bytes of a file, and the version of what follows.
const MAGIC: &[u8; 24] = b"tidegate-token-sessions1";
/// What frames are sealed for.
const CONTEXT: &[u8] = b"tidegate sessions on disk";
/// The longest frame that is read.
const LONGEST_FRAME: u32 = 16 << 20;
/// Bytes of old frames that are not worth writing a file anew.
const FEW: u64 = 1 << 20;

/// Why sessions cannot be read from disk.
#[derive(Debug)]
#[non_exhaustive]
pub enum JournalError {
    /// The file cannot be opened, read or written.
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another process has it.
    Taken(PathBuf),
    /// It is not a file of sessions.
    Foreign(PathBuf),
    /// Its sessions were sealed with a key that is not known.
    Sealed(PathBuf),
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => write!(f, "sessions: {}: {error}", path.display()),
            Self::Taken(path) => write!(
                f,
                "sessions: {} belongs to another process that runs; give each its own, or share a store",
                path.display()
            ),
            Self::Foreign(path) => write!(
                f,
                "sessions: {} is not a file of sessions; name another one, or move it away",
                path.display()
            ),
            Self::Sealed(path) => write!(
                f,
                "sessions: {} cannot be opened with any key that is known; keep the key that sealed it in the ring, or \
                 move the file away, and all users log in again",
                path.display()
            ),
        }
    }
}

impl std::error::Error for JournalError {}

/// What stands in a file of a session. Times are nanoseconds since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) version: u64,
    pub(super) written_at: u64,
    pub(super) ends_at: u64,
    pub(super) fence: u64,
    /// When a grant was sent of which nothing was heard; 0: none.
    pub(super) sent_at: u64,
    pub(super) record: Vec<u8>,
}

/// An entry, or that the session is gone.
fn encode(id: &SessionId, entry: Option<&Entry>) -> Zeroizing<Vec<u8>> {
    let record = entry.map_or(&[][..], |entry| &entry.record);
    let mut plain = Zeroizing::new(Vec::with_capacity(record.len() + 200));
    plain.push(u8::from(entry.is_some()));
    plain.push(u8::try_from(id.as_str().len()).expect("an id has at most 128 bytes"));
    plain.extend_from_slice(id.as_str().as_bytes());
    if let Some(entry) = entry {
        for number in [entry.version, entry.written_at, entry.ends_at, entry.fence, entry.sent_at] {
            plain.extend_from_slice(&number.to_be_bytes());
        }
        plain.extend_from_slice(record);
    }
    plain
}

fn decode(plain: &[u8]) -> Option<(SessionId, Option<Entry>)> {
    let (&[kind, length], rest) = plain.split_first_chunk::<2>()?;
    let (id, rest) = rest.split_at_checked(length.into())?;
    let id = SessionId::new(std::str::from_utf8(id).ok()?).ok()?;
    if kind == 0 {
        return Some((id, None));
    }
    let (numbers, record) = rest.split_first_chunk::<40>()?;
    let number = |at: usize| numbers[at * 8..].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let [version, written_at, ends_at, fence, sent_at] = [0, 1, 2, 3, 4].map(number);
    Some((id, Some(Entry { version, written_at, ends_at, fence, sent_at, record: record.to_vec() })))
}

/// A file that sessions are written to, by a thread of its own.
pub(super) struct Journal(mpsc::Sender<Job>);

enum Job {
    Put(Put),
    /// The whole file is to be sealed by the key of now.
    Anew,
}

struct Put {
    id: SessionId,
    plain: Zeroizing<Vec<u8>>,
    is_there: bool,
    done: oneshot::Sender<Result<(), Arc<str>>>,
}

impl Journal {
    /// Opens a file, or begins one: and what stands in it.
    pub(super) fn open(
        path: &Path,
        seal: Arc<dyn Seal>,
    ) -> Result<(Self, HashMap<SessionId, Entry>), JournalError> {
        let failed = |error| JournalError::File { path: path.to_owned(), error };
        let lock = private().truncate(false).open(path.with_extension("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Taken(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut file = private().truncate(false).open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let (sessions, places, end) = read(&bytes, &*seal, path)?;
        if end == 0 {
            file.write_all(MAGIC).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        let end = end.max(MAGIC.len() as u64);
        file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).map_err(failed)?;
        let live = places.values().map(|place| place.1).sum();
        let mut writer = Writer { path: path.to_owned(), file, seal, places, end, live, _lock: lock };
        // Keys that sealed it long ago may leave the ring then. If it cannot be done now, it is still a good file.
        let _ = writer.write_anew();
        let (jobs, to_do) = mpsc::channel();
        thread::Builder::new().name("sessions".into()).spawn(move || writer.run(&to_do)).map_err(failed)?;
        Ok((Self(jobs), sessions))
    }

    /// Takes a change, in the order of calls; what is returned tells when it is on disk.
    pub(super) fn put(&self, id: &SessionId, entry: Option<&Entry>) -> OnDisk {
        let (done, on_disk) = oneshot::channel();
        let put = Put { id: id.clone(), plain: encode(id, entry), is_there: entry.is_some(), done };
        // A writer that is gone drops `done`, which is told as a failure.
        let _ = self.0.send(Job::Put(put));
        OnDisk(on_disk)
    }

    /// Has the whole file sealed by the key of now.
    pub(super) fn seal_anew(&self) {
        let _ = self.0.send(Job::Anew);
    }
}

/// A change that is being written.
pub(super) struct OnDisk(oneshot::Receiver<Result<(), Arc<str>>>);

impl OnDisk {
    pub(super) async fn done(self) -> Result<(), Arc<str>> {
        self.0.await.unwrap_or_else(|_| Err("the file of sessions is not written any more".into()))
    }
}

/// Opens a file that nobody else may read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Where the last frame of a session is, and how long.
type Places = HashMap<SessionId, (u64, u64)>;

/// Reads all frames, up to one that is not whole.
fn read(
    bytes: &[u8],
    seal: &dyn Seal,
    path: &Path,
) -> Result<(HashMap<SessionId, Entry>, Places, u64), JournalError> {
    let (mut sessions, mut places) = (HashMap::new(), Places::new());
    if bytes.len() < MAGIC.len() && MAGIC.starts_with(bytes) {
        return Ok((sessions, places, 0));
    }
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return Err(JournalError::Foreign(path.to_owned()));
    };
    let mut at = MAGIC.len() as u64;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length);
        let Some((sealed, after)) =
            after.split_at_checked(length as usize).filter(|_| length <= LONGEST_FRAME)
        else {
            break;
        };
        let opened = seal.open(sealed, CONTEXT);
        let Some((id, entry)) = opened.as_ref().and_then(|plain| decode(plain)) else {
            // The last frame may be torn; anything before it is whole, or sealed by a key that is not known.
            if after.is_empty() && !sessions.is_empty() {
                break;
            }
            return Err(JournalError::Sealed(path.to_owned()));
        };
        let long = u64::from(length) + 4;
        match entry {
            Some(entry) => {
                sessions.insert(id.clone(), entry);
                places.insert(id, (at, long));
            }
            None => {
                sessions.remove(&id);
                places.remove(&id);
            }
        }
        (rest, at) = (after, at + long);
    }
    Ok((sessions, places, at))
}

struct Writer {
    path: PathBuf,
    file: File,
    seal: Arc<dyn Seal>,
    places: Places,
    end: u64,
    /// Bytes of frames that are the last of their session.
    live: u64,
    /// Held as long as the file is written.
    _lock: File,
}

impl Writer {
    fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let (mut together, mut anew) = (Vec::new(), false);
            for job in std::iter::once(first).chain(jobs.try_iter()) {
                match job {
                    Job::Put(put) => together.push(put),
                    Job::Anew => anew = true,
                }
            }
            let written =
                self.write(&together).map_err(|error| Arc::from(format!("{}: {error}", self.path.display())));
            for job in together {
                // Who does not wait any more need not be told.
                let _ = job.done.send(written.clone());
            }
            if anew || self.end - self.live > self.live + FEW {
                // A file that is too long is still a good one: it is tried again after the next change.
                let _ = self.write_anew();
            }
        }
    }

    fn write(&mut self, jobs: &[Put]) -> io::Result<()> {
        if jobs.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        let mut places = Vec::new();
        for job in jobs {
            let sealed = self.seal.seal(&job.plain, CONTEXT);
            let length = u32::try_from(sealed.len()).ok().filter(|length| *length <= LONGEST_FRAME);
            let length = length.ok_or_else(|| io::Error::other("a session is longer than 16 MiB"))?;
            places.push((self.end + bytes.len() as u64, u64::from(length) + 4));
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(&sealed);
        }
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What was written in part must not stand before what comes next.
            self.file.set_len(self.end)?;
            self.file.seek(SeekFrom::Start(self.end))?;
            return Err(error);
        }
        self.end += bytes.len() as u64;
        for (job, place) in jobs.iter().zip(places) {
            let before = if job.is_there {
                self.live += place.1;
                self.places.insert(job.id.clone(), place)
            } else {
                self.places.remove(&job.id)
            };
            self.live -= before.map_or(0, |before| before.1);
        }
        Ok(())
    }

    /// Copies what is live to a new file, sealed by the key of now, which takes the place of the old one.
    fn write_anew(&mut self) -> io::Result<()> {
        let path = self.path.with_extension("new");
        let mut new = private().truncate(true).open(&path)?;
        new.write_all(MAGIC)?;
        let (mut places, mut end) = (Places::new(), MAGIC.len() as u64);
        let (mut frame, now) = (Vec::new(), now().as_nanos());
        let mut written = io::BufWriter::new(&mut new);
        for (id, &(at, long)) in &self.places {
            self.file.seek(SeekFrom::Start(at))?;
            frame.resize(usize::try_from(long).map_err(io::Error::other)?, 0);
            self.file.read_exact(&mut frame)?;
            // A frame that does not open any more is kept as it is: its key may come back.
            if let Some(plain) = self.seal.open(&frame[4..], CONTEXT) {
                let is_over =
                    |(_, entry): (_, Option<Entry>)| entry.is_some_and(|entry| entry.ends_at <= now);
                if decode(&plain).is_some_and(is_over) {
                    continue;
                }
                let sealed = self.seal.seal(&plain, CONTEXT);
                let length = u32::try_from(sealed.len()).map_err(io::Error::other)?;
                frame.clear();
                frame.extend_from_slice(&length.to_be_bytes());
                frame.extend_from_slice(&sealed);
            }
            written.write_all(&frame)?;
            places.insert(id.clone(), (end, frame.len() as u64));
            end += frame.len() as u64;
        }
        written.flush()?;
        drop(written);
        new.sync_all()?;
        fs::rename(&path, &self.path)?;
        if let Some(directory) = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(directory)?.sync_all()?;
        }
        (self.file, self.places, self.end) = (new, places, end);
        self.live = end - MAGIC.len() as u64;
        Ok(())
    }
}
