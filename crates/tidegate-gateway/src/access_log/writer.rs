//! The thread that writes batches, and the bounded queue in front of it.

use std::{
    collections::VecDeque,
    io::Write,
    mem,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{BATCH_AGE, Shared};

/// Most batches that wait for the writer: 4 MiB of lines.
const MOST_BATCHES: usize = 64;
/// Most empty buffers kept for the next batches.
const MOST_SPARES: usize = 8;

/// Lines on their way.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u64,
}

/// What workers and the writer tell each other.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inbox: Mutex<Inbox>,
    to_writer: Condvar,
    to_flushers: Condvar,
    spares: Mutex<Vec<Vec<u8>>>,
}

#[derive(Debug, Default)]
struct Inbox {
    batches: VecDeque<Batch>,
    lines_pending: bool,
    flushes_asked: u64,
    flushes_done: u64,
    closed: bool,
}

impl Queue {
    /// Takes what is in `batch` and leaves an empty one.
    pub(super) fn swap_for_spare(&self, batch: &mut Batch) -> Batch {
        let bytes = self.spares.lock().pop().unwrap_or_default();
        mem::replace(batch, Batch { bytes, lines: 0 })
    }

    /// Keeps the memory of a batch for another one.
    pub(super) fn recycle(&self, mut batch: Batch) {
        batch.bytes.clear();
        let mut spares = self.spares.lock();
        if spares.len() < MOST_SPARES {
            spares.push(batch.bytes);
        }
    }

    /// Hands a batch to the writer, or back when too many wait.
    pub(super) fn push(&self, batch: Batch) -> Result<(), Batch> {
        let mut inbox = self.inbox.lock();
        if inbox.batches.len() >= MOST_BATCHES {
            return Err(batch);
        }
        inbox.batches.push_back(batch);
        drop(inbox);
        self.to_writer.notify_one();
        Ok(())
    }

    /// Tells the writer that a buffer is no longer empty.
    pub(super) fn wake(&self) {
        self.inbox.lock().lines_pending = true;
        self.to_writer.notify_one();
    }

    pub(super) fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut inbox = self.inbox.lock();
        inbox.flushes_asked += 1;
        let mine = inbox.flushes_asked;
        self.to_writer.notify_one();
        while inbox.flushes_done < mine {
            if self.to_flushers.wait_until(&mut inbox, deadline).timed_out() {
                return inbox.flushes_done >= mine;
            }
        }
        true
    }

    pub(super) fn close(&self) {
        self.inbox.lock().closed = true;
        self.to_writer.notify_one();
    }
}

/// What the writer does next.
enum Work {
    Write(Batch),
    Sweep { flushes: u64, then: Then },
}

enum Then {
    Continue,
    End,
}

/// Writes until the log is dropped.
pub(super) fn run(shared: &Shared, sink: impl Write) {
    let mut output = Output { sink, failing: false };
    loop {
        match next(&shared.queue) {
            Work::Write(batch) => output.write(shared, batch),
            Work::Sweep { flushes, then } => {
                // Before the buffers are read: who appends later finds it unset, and wakes the writer again.
                shared.pending.store(false, Relaxed);
                for buffer in shared.buffers.all() {
                    let batch = shared.queue.swap_for_spare(&mut buffer.lock().batch);
                    output.write(shared, batch);
                }
                shared.queue.inbox.lock().flushes_done = flushes;
                shared.queue.to_flushers.notify_all();
                if let Then::End = then {
                    return;
                }
            }
        }
    }
}

/// Waits for a batch, for buffered lines to be old, for somebody who flushes, or for the end.
fn next(queue: &Queue) -> Work {
    let mut inbox = queue.inbox.lock();
    let mut sweep_at = None;
    loop {
        if let Some(batch) = inbox.batches.pop_front() {
            return Work::Write(batch);
        }
        let flushes = inbox.flushes_asked;
        if inbox.closed {
            return Work::Sweep { flushes, then: Then::End };
        }
        if flushes > inbox.flushes_done {
            return Work::Sweep { flushes, then: Then::Continue };
        }
        if inbox.lines_pending {
            let at = *sweep_at.get_or_insert_with(|| Instant::now() + BATCH_AGE);
            if queue.to_writer.wait_until(&mut inbox, at).timed_out() && inbox.batches.is_empty() {
                inbox.lines_pending = false;
                return Work::Sweep { flushes: inbox.flushes_done, then: Then::Continue };
            }
        } else {
            queue.to_writer.wait(&mut inbox);
        }
    }
}

struct Output<W> {
    sink: W,
    failing: bool,
}

impl<W: Write> Output<W> {
    fn write(&mut self, shared: &Shared, batch: Batch) {
        if batch.lines > 0 {
            match self.sink.write_all(&batch.bytes).and_then(|()| self.sink.flush()) {
                Ok(()) => {
                    shared.lines.fetch_add(batch.lines, Relaxed);
                    if mem::take(&mut self.failing) {
                        tracing::info!("the access log can be written again");
                    }
                }
                Err(error) => {
                    shared.dropped.fetch_add(batch.lines, Relaxed);
                    if !mem::replace(&mut self.failing, true) {
                        tracing::warn!(%error, "the access log cannot be written; its lines are dropped and counted");
                    }
                }
            }
        }
        shared.queue.recycle(batch);
    }
}
