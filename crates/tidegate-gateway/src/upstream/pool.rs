//! The connections of one endpoint: how many there are, which are idle, and who gets the next one.
//!
//! A connection lives on the worker thread that opened it, whose runtime watches its socket; so idle connections are kept
//! per worker, and a worker takes its own first (the newest: it is the warmest), then opens one, and takes another
//! worker's only when no more may be opened. Everything that is taken out of the pool is given back by drop.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence},
    },
    thread,
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{http1, http2, queue::Queue};

/// Bounds on the number of shards; a thread's shard is its number modulo the count.
const FEWEST_SHARDS: usize = 4;
const MOST_SHARDS: usize = 64;

/// Ticks of idleness after which a connection gives up its buffers: one call with large bodies would make it hold 64 KiB
/// and more for as long as it is kept. Two, so that it rested for a whole one.
const RESTED: u32 = 2;

/// The connections of one endpoint.
#[derive(Debug)]
pub(super) struct Pool {
    max: u32,
    /// Connections that exist or are being opened.
    open: AtomicU32,
    calls: Apart<AtomicU32>,
    shards: Box<[Apart<Mutex<Shard>>]>,
    pub(super) queue: Queue,
    /// Counts eighths of the idle time.
    pub(super) tick: AtomicU32,
    pub(super) sweeping: AtomicBool,
    closed: AtomicBool,
    pub(super) closing: CancellationToken,
}

/// A value on cache lines of its own, so that workers do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// What one worker has.
#[derive(Debug, Default)]
struct Shard {
    /// Idle HTTP/1 connections, the newest last, each with the tick at which it came.
    http1: Vec<(http1::Boxed, u32)>,
    /// HTTP/2 connections, busy or not.
    http2: Vec<Arc<http2::Connection>>,
    /// Whether an HTTP/2 connection is being opened: one at a time.
    opening: bool,
}

/// What an endpoint's connections are doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Connections that exist or are being opened; never more than `connections.max`.
    pub open: u32,
    /// Of those, the ones without a call.
    pub idle: u32,
    /// Of those, the ones that speak HTTP/2.
    pub http2: u32,
    /// Calls under way on HTTP/2 connections.
    pub streams: u32,
    /// Calls that wait for a connection or a stream.
    pub waiting: u32,
}

/// The right to one connection, given back by drop.
#[derive(Debug)]
pub(super) struct Slot(Arc<Pool>);

/// The right to open an HTTP/2 connection for one shard; no other is opened there meanwhile.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) home: usize,
    pub(super) slot: Option<Slot>,
    pool: Arc<Pool>,
}

/// One call under way.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Pool>);

/// A ready HTTP/1 connection on its way to a caller; it goes back to the pool if it never arrives.
#[derive(Debug)]
pub(super) struct Lent {
    connection: Option<http1::Boxed>,
    pool: Arc<Pool>,
}

/// The calling thread's number, counted from its first use.
pub(super) fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

impl Pool {
    pub(super) fn new(max: u32) -> Arc<Self> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let shards = (threads * 2).next_power_of_two().clamp(FEWEST_SHARDS, MOST_SHARDS);
        Arc::new(Self {
            max,
            open: AtomicU32::new(0),
            calls: Apart::default(),
            shards: (0..shards).map(|_| Apart::default()).collect(),
            queue: Queue::default(),
            tick: AtomicU32::new(0),
            sweeping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            closing: CancellationToken::new(),
        })
    }

    /// The calling worker's shard.
    pub(super) fn home(&self) -> usize {
        thread_number() & (self.shards.len() - 1)
    }

    /// Takes a right to open a connection, if there is one.
    pub(super) fn reserve(self: &Arc<Self>) -> Option<Slot> {
        if self.closed.load(Ordering::SeqCst) {
            return None;
        }
        self.open
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |open| (open < self.max).then_some(open + 1))
            .ok()
            .map(|_| Slot(Arc::clone(self)))
    }

    /// Takes a ready idle connection of one shard. Those found dead are added to `dead`, to be dropped without a lock.
    fn pop(&self, shard: usize, dead: &mut Vec<http1::Boxed>) -> Option<http1::Boxed> {
        loop {
            let (mut connection, _) = self.shards[shard].0.lock().http1.pop()?;
            if connection.is_reusable() {
                return Some(connection);
            }
            dead.push(connection);
        }
    }

    /// Takes a ready idle connection of the caller's own shard.
    pub(super) fn own_http1(&self, home: usize) -> Option<http1::Boxed> {
        let mut dead = Vec::new();
        self.pop(home, &mut dead)
    }

    /// Takes a ready idle connection of any shard, the caller's own first.
    pub(super) fn any_http1(&self, home: usize, dead: &mut Vec<http1::Boxed>) -> Option<http1::Boxed> {
        self.from(home).find_map(|shard| self.pop(shard, dead))
    }

    /// All shards, beginning at `home`.
    fn from(&self, home: usize) -> impl Iterator<Item = usize> + use<> {
        let mask = self.shards.len() - 1;
        (0..=mask).map(move |step| (home + step) & mask)
    }

    /// Takes a connection back for the next caller.
    pub(super) fn put(self: &Arc<Self>, connection: http1::Boxed) {
        if self.closed.load(Ordering::SeqCst) {
            return;
        }
        let tick = self.tick.load(Ordering::Relaxed);
        let home = connection.home();
        self.shards[home].0.lock().http1.push((connection, tick));
        self.changed();
    }

    /// Serves those who wait, if anybody does. The fence orders what was just given back before the look at the queue.
    pub(super) fn changed(self: &Arc<Self>) {
        fence(Ordering::SeqCst);
        if self.queue.is_waiting() {
            self.serve();
        } else if self.closed.load(Ordering::SeqCst) {
            self.clear();
        }
    }

    /// Takes a stream on a connection of the caller's own shard.
    pub(super) fn own_stream(self: &Arc<Self>, home: usize) -> Option<http2::StreamSlot> {
        let shard = self.shards[home].0.lock();
        shard.http2.iter().find_map(|connection| http2::StreamSlot::take(connection, self))
    }

    /// Takes a stream on a connection of any shard, the caller's own first.
    pub(super) fn any_stream(self: &Arc<Self>, home: usize) -> Option<http2::StreamSlot> {
        self.from(home).find_map(|shard| self.own_stream(shard))
    }

    /// Takes the right to open an HTTP/2 connection for a shard, unless one is being opened there or none may be.
    pub(super) fn begin_open(self: &Arc<Self>, home: usize) -> Option<Opening> {
        let mut shard = self.shards[home].0.lock();
        if shard.opening {
            return None;
        }
        let slot = self.reserve()?;
        shard.opening = true;
        Some(Opening { home, slot: Some(slot), pool: Arc::clone(self) })
    }

    /// Takes an idle connection of one protocol out, so that dropping it makes room for one of the other.
    pub(super) fn evict_http1(&self, home: usize) -> Option<http1::Boxed> {
        if self.shards[home].0.lock().opening {
            return None;
        }
        self.from(home).find_map(|shard| {
            let mut shard = self.shards[shard].0.lock();
            (!shard.http1.is_empty()).then(|| shard.http1.remove(0).0)
        })
    }

    /// As [`Self::evict_http1`], the other way round; the slot is free when the connection has said goodbye.
    pub(super) fn evict_http2(&self, home: usize) -> Option<Arc<http2::Connection>> {
        self.from(home).find_map(|shard| {
            let mut shard = self.shards[shard].0.lock();
            let idle = shard.http2.iter().position(|connection| connection.streams() == 0)?;
            Some(shard.http2.swap_remove(idle))
        })
    }

    /// Takes a new HTTP/2 connection in.
    pub(super) fn add(self: &Arc<Self>, connection: Arc<http2::Connection>) {
        if self.closed.load(Ordering::SeqCst) {
            return;
        }
        self.shards[connection.home()].0.lock().http2.push(connection);
        self.changed();
    }

    /// Takes an HTTP/2 connection out: it takes no more calls, those under way go on.
    pub(super) fn retire(&self, connection: &Arc<http2::Connection>) {
        let mut shard = self.shards[connection.home()].0.lock();
        let found = shard.http2.iter().position(|other| Arc::ptr_eq(other, connection));
        let _dropped_without_the_lock = found.map(|at| shard.http2.swap_remove(at));
        drop(shard);
    }

    /// Takes out what was idle for `limit` ticks, and what its peer has closed. What stays gives up its buffers once it
    /// has rested for a while.
    pub(super) fn expire(&self, now: u32, limit: u32) -> usize {
        let mut http1 = Vec::new();
        let mut http2 = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.0.lock();
            http1.extend(shard.http1.extract_if(.., |(connection, since)| {
                now.wrapping_sub(*since) >= limit || !connection.is_reusable()
            }));
            let resting = shard.http1.iter_mut().filter(|(_, since)| now.wrapping_sub(*since) >= RESTED);
            resting.for_each(|(connection, _)| connection.shrink());
            http2.extend(shard.http2.extract_if(.., |connection| connection.is_idle_for(now, limit)));
        }
        http1.len() + http2.len()
    }

    /// Closes the idle connections, and keeps none from now on.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.closing.cancel();
        self.clear();
    }

    fn clear(&self) {
        for shard in &self.shards {
            let (http1, http2) = {
                let mut shard = shard.0.lock();
                (std::mem::take(&mut shard.http1), std::mem::take(&mut shard.http2))
            };
            drop((http1, http2));
        }
    }

    /// Bytes that idle connections have room for.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.0.lock().http1.iter().map(|(c, _)| c.room()).sum::<usize>())
            .sum()
    }

    /// Calls under way.
    pub(super) fn in_flight(&self) -> u32 {
        self.calls.0.load(Ordering::Relaxed)
    }

    /// Connections that exist or are being opened.
    pub(super) fn open(&self) -> u32 {
        self.open.load(Ordering::SeqCst)
    }

    /// Whether any HTTP/2 connection takes calls.
    pub(super) fn has_http2(&self) -> bool {
        self.shards.iter().any(|shard| !shard.0.lock().http2.is_empty())
    }

    pub(super) fn stats(&self) -> ConnectionStats {
        let mut stats = ConnectionStats {
            open: self.open(),
            waiting: self.queue.waiting(),
            ..ConnectionStats::default()
        };
        for shard in &self.shards {
            let shard = shard.0.lock();
            stats.idle += shard.http1.len() as u32;
            stats.http2 += shard.http2.len() as u32;
            for streams in shard.http2.iter().map(|connection| connection.streams()) {
                stats.streams += streams;
                stats.idle += u32::from(streams == 0);
            }
        }
        stats
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        self.0.changed();
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.pool.shards[self.home].0.lock().opening = false;
        drop(self.slot.take());
        self.pool.changed();
    }
}

impl InFlight {
    pub(super) fn new(pool: &Arc<Pool>) -> Self {
        pool.calls.0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(pool))
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.calls.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lent {
    pub(super) fn new(connection: http1::Boxed, pool: &Arc<Pool>) -> Self {
        Self { connection: Some(connection), pool: Arc::clone(pool) }
    }

    /// Takes the connection for good.
    pub(super) fn keep(mut self) -> http1::Boxed {
        self.connection.take().expect("only `keep` takes it, and `keep` ends the loan")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.put(connection);
        }
    }
}
