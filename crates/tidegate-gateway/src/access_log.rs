//! One line a call on standard output, written by a thread of its own so that no call waits for its reader.
//!
//! A worker appends to a buffer of its own. A buffer that is big or old goes to the writer; when the writer cannot
//! keep up, whole buffers are dropped and their lines counted. Header values other than `Host`, `Referer` and
//! `User-Agent` are never logged.

mod escape;
mod line;
mod stamp;
mod writer;

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;

use self::{
    stamp::Stamps,
    writer::{Batch, Queue},
};
use crate::{
    config::{Log, LogFormat},
    record::CallRecord,
    telemetry::Sharded,
};

/// A worker's buffer goes to the writer at this size.
const BATCH_BYTES: usize = 64 << 10;
/// A worker's buffer goes to the writer at this age.
const BATCH_AGE: Duration = Duration::from_millis(200);

/// The access log. Dropping it writes what is left, in the background; [`AccessLog::flush`] waits for that.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    enabled: AtomicBool,
    json: AtomicBool,
    buffers: Sharded<Mutex<Buffer>>,
    /// Whether the writer knows that some buffer holds lines.
    pending: AtomicBool,
    queue: Queue,
    lines: AtomicU64,
    dropped: AtomicU64,
}

/// One worker's lines that the writer has not seen.
#[derive(Debug, Default)]
struct Buffer {
    batch: Batch,
    stamps: Stamps,
}

impl AccessLog {
    /// Starts the log on standard output, as `log` says, with a buffer for each of `workers` threads.
    ///
    /// # Errors
    /// When standard output is closed or no thread can be started.
    pub fn stdout(log: &Log, workers: usize) -> io::Result<Self> {
        // Past the buffer and the lock of `io::stdout()`: batches are written whole.
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Self::start(log, workers, stdout)
    }

    /// Starts the log on any sink.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(log: &Log, workers: usize, sink: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            enabled: AtomicBool::new(log.access),
            json: AtomicBool::new(log.format == LogFormat::Json),
            buffers: Sharded::new(workers),
            pending: AtomicBool::new(false),
            queue: Queue::default(),
            lines: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let writer = Arc::clone(&shared);
        thread::Builder::new().name("access-log".into()).spawn(move || writer::run(&writer, sink))?;
        Ok(Self { shared })
    }

    /// Takes over the settings of a reloaded configuration.
    pub fn configure(&self, log: &Log) {
        self.shared.enabled.store(log.access, Relaxed);
        self.shared.json.store(log.format == LogFormat::Json, Relaxed);
    }

    /// Whether lines are written: what only the log needs need not be kept otherwise.
    pub fn enabled(&self) -> bool {
        self.shared.enabled.load(Relaxed)
    }

    /// Appends a line. It never waits for the reader of the log.
    pub fn write(&self, line: &CallRecord<'_>) {
        let shared = &*self.shared;
        if !shared.enabled.load(Relaxed) {
            return;
        }
        let full = {
            let mut buffer = shared.buffers.here().lock();
            let Buffer { batch, stamps } = &mut *buffer;
            if shared.json.load(Relaxed) {
                line::json(&mut batch.bytes, stamps, line);
            } else {
                line::text(&mut batch.bytes, stamps, line);
            }
            batch.lines += 1;
            (batch.bytes.len() >= BATCH_BYTES).then(|| shared.queue.swap_for_spare(batch))
        };
        if let Some(batch) = full {
            if let Err(batch) = shared.queue.push(batch) {
                shared.dropped.fetch_add(batch.lines, Relaxed);
                shared.queue.recycle(batch);
            }
        } else if !shared.pending.load(Relaxed) && !shared.pending.swap(true, Relaxed) {
            shared.queue.wake();
        }
    }

    /// Waits until every line appended so far is written, at most for `patience`. Answers whether they were.
    ///
    /// It blocks the thread: meant for the end of the process.
    pub fn flush(&self, patience: Duration) -> bool {
        self.shared.queue.flush(patience)
    }

    /// Lines that were written.
    pub fn lines(&self) -> u64 {
        self.shared.lines.load(Relaxed)
    }

    /// Lines that were dropped, because the reader of the log was too slow or gone.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

#[cfg(test)]
mod tests;
