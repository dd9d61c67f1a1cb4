//! The workers: threads that each run a runtime of their own. A connection lives on one of them from its first byte to
//! its last, so what it touches stays in one core's cache and is never stolen.

use std::{
    cell::Cell,
    future::Future,
    io,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    time::{Instant, timeout_at},
};

thread_local! {
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The index of the worker that this thread is, from 0; none on any other thread.
pub fn current_worker() -> Option<usize> {
    CURRENT.get()
}

/// A set of worker threads. Dropping it tells them to stop and does not wait.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
    stop: oneshot::Sender<()>,
    stopped: oneshot::Receiver<()>,
    thread: thread::JoinHandle<()>,
}

/// A connection counted on its worker, until dropped.
#[derive(Debug)]
pub struct Placed(Arc<AtomicUsize>);

/// How the workers ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// All of them, in time.
    Clean,
    /// So many were still busy and were left behind.
    LeftBehind(usize),
}

impl Workers {
    /// Starts `count` workers, named `tidegate-worker-0` and so on.
    ///
    /// # Errors
    /// When the system refuses a thread or an event queue; those already started are stopped.
    pub fn start(count: NonZeroUsize) -> io::Result<Self> {
        let workers = (0..count.get()).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Self { workers })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.workers.len()
    }

    /// The worker with the fewest connections; the first of them where several have as few.
    pub fn least_loaded(&self) -> usize {
        let fewest =
            self.workers.iter().enumerate().min_by_key(|(_, worker)| worker.connections.load(Relaxed));
        fewest.map_or(0, |(index, _)| index)
    }

    /// Counts a connection on a worker, before it gets there, so that a burst of them is spread.
    pub fn place(&self, worker: usize) -> Placed {
        let connections = Arc::clone(&self.workers[worker].connections);
        connections.fetch_add(1, Relaxed);
        Placed(connections)
    }

    /// Connections on each worker now.
    pub fn connections(&self) -> Vec<usize> {
        self.workers.iter().map(|worker| worker.connections.load(Relaxed)).collect()
    }

    /// Runs a future on a worker to its end, or until the worker stops: then it is dropped.
    pub fn spawn_on(&self, worker: usize, future: impl Future<Output = ()> + Send + 'static) {
        drop(self.workers[worker].runtime.spawn(future));
    }

    /// Runs a future on every worker: `make` is called with each index.
    pub fn spawn_on_each<F, Fut>(&self, make: F)
    where
        F: Fn(usize) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        for index in 0..self.count() {
            self.spawn_on(index, make(index));
        }
    }

    /// Stops all workers, dropping what still runs on them, and waits at most `bound` for their threads.
    ///
    /// If dropped before it ends, the workers stop all the same, unobserved.
    pub async fn stop(self, bound: Duration) -> Stopped {
        let end = Instant::now() + bound;
        let mut leaving = Vec::with_capacity(self.workers.len());
        for worker in self.workers {
            let _ = worker.stop.send(());
            leaving.push((worker.stopped, worker.thread));
        }
        let mut left_behind = 0;
        for (stopped, thread) in leaving {
            // The sender goes with the thread's last breath, so the join that follows does not wait.
            if timeout_at(end, stopped).await.is_ok() {
                let _ = thread.join();
            } else {
                left_behind += 1;
            }
        }
        if left_behind == 0 { Stopped::Clean } else { Stopped::LeftBehind(left_behind) }
    }
}

impl Worker {
    fn start(index: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, told_to_stop) = oneshot::channel();
        let (alive, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name(format!("tidegate-worker-{index}")).spawn(move || {
            CURRENT.set(Some(index));
            let _alive = alive;
            // An error says that `Workers` is gone: that, too, is being told to stop.
            let _ = runtime.block_on(told_to_stop);
            drop(runtime);
        })?;
        Ok(Self { runtime: handle, connections: Arc::default(), stop, stopped, thread })
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    fn two() -> Workers {
        Workers::start(NonZeroUsize::new(2).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_future_runs_on_the_worker_it_was_given_to() {
        let workers = two();
        let (seen, mut names) = mpsc::unbounded_channel();
        workers.spawn_on_each(move |index| {
            let seen = seen.clone();
            async move {
                let name = thread::current().name().map(str::to_owned);
                seen.send((index, current_worker(), name)).unwrap();
            }
        });
        let mut all = [names.recv().await.unwrap(), names.recv().await.unwrap()];
        all.sort();
        assert_eq!(all[0], (0, Some(0), Some("tidegate-worker-0".into())));
        assert_eq!(all[1], (1, Some(1), Some("tidegate-worker-1".into())));
        assert_eq!(workers.stop(Duration::from_secs(10)).await, Stopped::Clean);
    }

    #[tokio::test]
    async fn connections_go_where_the_fewest_are() {
        let workers = two();
        let mut placed = Vec::new();
        for _ in 0..64 {
            placed.push(workers.place(workers.least_loaded()));
        }
        assert_eq!(workers.connections(), [32, 32]);
        placed.retain(|place| Arc::ptr_eq(&place.0, &workers.workers[0].connections));
        assert_eq!(workers.connections(), [32, 0]);
        assert_eq!(workers.least_loaded(), 1);
    }

    #[tokio::test]
    async fn stopping_drops_what_still_runs() {
        let workers = two();
        let (dropped, ended) = oneshot::channel::<()>();
        workers.spawn_on(1, async move {
            let _dropped = dropped;
            std::future::pending::<()>().await;
        });
        assert_eq!(workers.stop(Duration::from_secs(10)).await, Stopped::Clean);
        assert!(ended.await.is_err(), "dropped with its worker");
    }

    #[tokio::test]
    async fn a_busy_worker_is_left_behind_after_the_bound() {
        let workers = two();
        let (entered, is_busy) = oneshot::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        workers.spawn_on(0, async move {
            entered.send(()).unwrap();
            let _ = released.recv();
        });
        is_busy.await.unwrap();
        assert_eq!(workers.stop(Duration::from_millis(20)).await, Stopped::LeftBehind(1));
        drop(release);
    }
}
