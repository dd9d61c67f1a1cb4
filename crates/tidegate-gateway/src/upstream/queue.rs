//! Who waits for a connection or a stream, first come first served: a bounded line for each protocol, two polls a waiter.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering, fence},
    },
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    error::{ConnectError, Unsent},
    http1, http2,
    pool::{Lent, Opening, Pool, Slot},
};

/// Most callers that wait for connections of one endpoint; one more is refused. The limiter's own queue stands before
/// this one, so this is the bound for upstreams without `in_flight`.
const MOST_WAITING: u32 = 10_000;

/// What a waiter gets. Whatever is not taken goes back by drop.
#[derive(Debug)]
pub(super) enum Grant {
    /// A ready HTTP/1 connection.
    Connection(Lent),
    /// The right to open an HTTP/1 connection.
    Slot(Slot),
    /// A stream on an HTTP/2 connection.
    Stream(http2::StreamSlot),
    /// The right to open an HTTP/2 connection for the waiter's worker.
    Opening(Opening),
    /// The endpoint turned out to speak another protocol: decide anew.
    Again,
    /// The connection that was waited for could not be opened.
    Failed(ConnectError),
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Http1,
    Http2,
}

/// The lines of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Queue {
    http1: AtomicU32,
    http2: AtomicU32,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    next: u64,
    http1: VecDeque<Waiter>,
    http2: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    home: usize,
    grant: oneshot::Sender<Grant>,
}

/// A place in a line, given up by drop.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    pool: &'a Arc<Pool>,
    line: Line,
    ticket: u64,
    grant: oneshot::Receiver<Grant>,
}

impl Queue {
    /// Whether anybody waits.
    pub(super) fn is_waiting(&self) -> bool {
        self.http1.load(Ordering::SeqCst) > 0 || self.http2.load(Ordering::SeqCst) > 0
    }

    /// Whether anybody waits in one line; who comes then stands behind them.
    pub(super) fn is_waiting_in(&self, line: Line) -> bool {
        self.count(line).load(Ordering::SeqCst) > 0
    }

    pub(super) fn waiting(&self) -> u32 {
        self.http1.load(Ordering::Relaxed) + self.http2.load(Ordering::Relaxed)
    }

    fn count(&self, line: Line) -> &AtomicU32 {
        match line {
            Line::Http1 => &self.http1,
            Line::Http2 => &self.http2,
        }
    }
}

impl Lines {
    fn line(&mut self, line: Line) -> &mut VecDeque<Waiter> {
        match line {
            Line::Http1 => &mut self.http1,
            Line::Http2 => &mut self.http2,
        }
    }

    /// The lines in the order in which their first waiters came.
    fn oldest_first(&self) -> [Line; 2] {
        let first = |line: &VecDeque<Waiter>| line.front().map_or(u64::MAX, |waiter| waiter.ticket);
        if first(&self.http1) <= first(&self.http2) {
            [Line::Http1, Line::Http2]
        } else {
            [Line::Http2, Line::Http1]
        }
    }
}

/// What was found dead or evicted: dropped after the locks.
#[derive(Default)]
struct Leftovers {
    http1: Vec<http1::Boxed>,
    http2: Vec<Arc<http2::Connection>>,
    grants: Vec<Grant>,
}

impl Pool {
    /// Enters a line; with a `ticket` from an earlier stand, at the place that it had.
    ///
    /// # Errors
    /// [`Unsent::PoolFull`] when the line is as long as it may be.
    pub(super) fn enter(
        self: &Arc<Self>,
        line: Line,
        home: usize,
        ticket: Option<u64>,
    ) -> Result<Waiting<'_>, Unsent> {
        let (sender, receiver) = oneshot::channel();
        let ticket = {
            let mut lines = self.queue.lines.lock();
            if self.queue.count(line).load(Ordering::Relaxed) >= MOST_WAITING {
                return Err(Unsent::PoolFull);
            }
            let ticket = ticket.unwrap_or(lines.next);
            lines.next += 1;
            let waiters = lines.line(line);
            let at = waiters.partition_point(|waiter| waiter.ticket < ticket);
            waiters.insert(at, Waiter { ticket, home, grant: sender });
            self.queue.count(line).fetch_add(1, Ordering::SeqCst);
            ticket
        };
        fence(Ordering::SeqCst);
        // What was given back between the caller's look and its place in the line is found here.
        self.serve();
        Ok(Waiting { pool: self, line, ticket, grant: receiver })
    }

    /// Hands what is free to those who wait, in the order in which they came.
    pub(super) fn serve(self: &Arc<Self>) {
        let mut left = Leftovers::default();
        {
            let mut lines = self.queue.lines.lock();
            'next: loop {
                for line in lines.oldest_first() {
                    let Some(first) = lines.line(line).front() else { continue };
                    let found = match line {
                        Line::Http1 => self.find_http1(first.home, &mut left),
                        Line::Http2 => self.find_http2(first.home, &mut left),
                    };
                    if let Some(grant) = found {
                        let waiter = lines.line(line).pop_front().expect("the first one was just seen");
                        self.queue.count(line).fetch_sub(1, Ordering::SeqCst);
                        left.grants.extend(waiter.grant.send(grant).err());
                        continue 'next;
                    }
                }
                break;
            }
        }
    }

    fn find_http1(self: &Arc<Self>, home: usize, left: &mut Leftovers) -> Option<Grant> {
        if let Some(connection) = self.any_http1(home, &mut left.http1) {
            return Some(Grant::Connection(Lent::new(connection, self)));
        }
        if let Some(slot) = self.reserve() {
            return Some(Grant::Slot(slot));
        }
        if left.http1.is_empty() && left.http2.is_empty() {
            left.http2.extend(self.evict_http2(home));
        }
        None
    }

    fn find_http2(self: &Arc<Self>, home: usize, left: &mut Leftovers) -> Option<Grant> {
        if let Some(stream) = self.any_stream(home) {
            return Some(Grant::Stream(stream));
        }
        if let Some(opening) = self.begin_open(home) {
            return Some(Grant::Opening(opening));
        }
        if left.http1.is_empty() && left.http2.is_empty() {
            left.http1.extend(self.evict_http1(home));
        }
        None
    }

    /// Tells all who wait for a stream the same.
    pub(super) fn tell_http2(&self, mut grant: impl FnMut() -> Grant) {
        let waiters = {
            let mut lines = self.queue.lines.lock();
            self.queue.http2.store(0, Ordering::SeqCst);
            std::mem::take(&mut lines.http2)
        };
        for waiter in waiters {
            drop(waiter.grant.send(grant()));
        }
    }
}

impl Waiting<'_> {
    /// Waits for a turn.
    ///
    /// # Cancel safety
    /// Dropping the future gives the place up; what was granted meanwhile goes to the next.
    pub(super) async fn turn(mut self) -> (Grant, u64) {
        let granted = (&mut self.grant).await;
        (granted.unwrap_or(Grant::Again), self.ticket)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let _dropped_without_the_lock = {
            let mut lines = self.pool.queue.lines.lock();
            let waiters = lines.line(self.line);
            match waiters.binary_search_by_key(&self.ticket, |waiter| waiter.ticket) {
                Ok(at) => {
                    self.pool.queue.count(self.line).fetch_sub(1, Ordering::SeqCst);
                    waiters.remove(at)
                }
                Err(_) => None,
            }
        };
    }
}
