//! The flows of a worker, looked through ten times a second.

use std::{
    cell::RefCell,
    sync::{Arc, Weak},
    time::Duration,
};

use tidegate_core::Instant;

/// How often a worker looks for flows to cut; a cut comes at most so much late.
pub const SWEEP: Duration = Duration::from_millis(100);

/// Something that a sweep looks at.
pub(super) trait Swept: Send + Sync {
    fn sweep(&self, now: Instant);
}

thread_local! {
    pub(super) static LIVE: RefCell<Places> = const { RefCell::new(Places { flows: Vec::new(), free: Vec::new(), swept: false }) };
}

pub(super) struct Places {
    pub(super) flows: Vec<Option<Weak<dyn Swept>>>,
    pub(super) free: Vec<usize>,
    /// Whether a sweep runs on this thread.
    swept: bool,
}

/// A place in its thread's list, given back by drop.
#[derive(Debug)]
pub(super) struct Place {
    index: usize,
    home: std::thread::ThreadId,
}

impl Place {
    pub(super) fn take<S: Swept + 'static>(shared: &Arc<S>) -> Option<Self> {
        LIVE.with_borrow_mut(|places| {
            if !places.swept {
                return None;
            }
            let weak: Weak<dyn Swept> = Arc::downgrade(shared) as Weak<dyn Swept>;
            let index = match places.free.pop() {
                Some(index) => {
                    places.flows[index] = Some(weak);
                    index
                }
                None => {
                    places.flows.push(Some(weak));
                    places.flows.len() - 1
                }
            };
            Some(Self { index, home: std::thread::current().id() })
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::current().id() != self.home {
            // The sweep finds it dead.
            return;
        }
        // At the end of a thread the list may be gone already; so is the sweep.
        let _ = LIVE.try_with(|places| {
            if let Ok(mut places) = places.try_borrow_mut() {
                places.flows[self.index] = None;
                places.free.push(self.index);
            }
        });
    }
}

/// Sweeps the flows of this thread for as long as it is polled. Run one on each worker.
///
/// # Cancel safety
/// Dropping it ends the sweeping; flows made on this thread afterwards are not cut.
pub async fn sweeper() {
    struct Running;
    impl Drop for Running {
        fn drop(&mut self) {
            let _ = LIVE.try_with(|places| places.borrow_mut().swept = false);
        }
    }
    LIVE.with_borrow_mut(|places| places.swept = true);
    let _running = Running;
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut due: Vec<Arc<dyn Swept>> = Vec::new();
    loop {
        ticks.tick().await;
        // Collected first: ending a flow gives its place back, which borrows the list.
        LIVE.with_borrow_mut(|places| {
            let Places { flows, free, .. } = places;
            for (index, slot) in flows.iter_mut().enumerate() {
                match slot.as_ref().map(Weak::upgrade) {
                    Some(Some(flow)) => due.push(flow),
                    Some(None) => {
                        *slot = None;
                        free.push(index);
                    }
                    None => {}
                }
            }
        });
        let now = tidegate::clock::now();
        due.drain(..).for_each(|flow| flow.sweep(now));
    }
}
