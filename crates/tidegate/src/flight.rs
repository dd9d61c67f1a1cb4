//! Work that belongs to nobody who waits for it: it runs to its end whatever its callers do, and all of them learn the end.
//!
//! It costs a spawn. To have one of the callers drive it would save that, and would stop the work when the last caller
//! leaves; but what a fetch brings is wanted by the next caller too, what a grant did is not undone by leaving, and a
//! driver that is no longer polled would hold up all others. So there is no such kind.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use tidegate::flight::Flight;
//!
//! let flight = Flight::detached(async { 6 * 7 });
//! let (first, second) = tokio::join!(flight.join(), flight.join());
//! assert_eq!((first, second), (Ok(42), Ok(42)));
//! # }
//! ```

use std::{
    any::Any,
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use waiters::{Place, Waiters};

use crate::sync::Mutex;

#[cfg(all(test, shuttle))]
mod interleavings;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
mod waiters;

/// Why a flight has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The work panicked, with this message.
    Panicked(Arc<str>),
    /// The work was dropped before its end: its runtime was shut down.
    Lost,
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(message) => write!(f, "it panicked: {message}"),
            Self::Lost => f.write_str("it was dropped before its end, with its runtime"),
        }
    }
}

impl std::error::Error for Crash {}

/// Work under way. Clones are the same flight.
pub struct Flight<T>(Arc<Inner<T>>);

struct Inner<T> {
    /// Set once, by the one [`Lander`], before the waiters are taken: who finds none here under their lock will be woken.
    end: OnceLock<Result<T, Crash>>,
    waiters: Mutex<Waiters>,
}

impl<T> Clone for Flight<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Flight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.end.get().is_some() { "Flight(landed)" } else { "Flight(under way)" })
    }
}

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// Spawns the work on the runtime of the caller. It runs to its end, even if nobody waits.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn detached(work: impl Future<Output = T> + Send + 'static) -> Self {
        let (flight, lander) = Self::new();
        tokio::spawn(async move {
            match caught(work).await {
                Ok(result) => lander.land(Ok(result)),
                Err(message) => lander.land(Err(Crash::Panicked(message))),
            }
        });
        flight
    }
}

impl<T> Flight<T> {
    /// A flight that whoever has the lander ends.
    pub(crate) fn new() -> (Self, Lander<T>) {
        let inner = Arc::new(Inner { end: OnceLock::new(), waiters: Mutex::new(Waiters::default()) });
        (Self(Arc::clone(&inner)), Lander(Some(inner)))
    }

    /// Waits for the end. It is polled twice: to begin to wait, and when the end is there.
    ///
    /// # Errors
    /// [`Crash`] when the work panicked or was dropped.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing for the work and for others who wait.
    pub fn join(&self) -> Join<T> {
        self.clone().into_join()
    }

    /// The same, for the last use of a flight: many who wait then share one count less.
    pub(crate) fn into_join(self) -> Join<T> {
        Join { flight: self, place: None }
    }
}

/// The future of [`Flight::join`].
#[must_use = "a future does nothing unless it is polled"]
pub struct Join<T> {
    flight: Flight<T>,
    place: Option<Place>,
}

impl<T> Join<T> {
    /// Waits for the end, and lets it be looked at where it is: ten thousand who wait need no copies.
    pub(crate) async fn landed(&mut self) -> &Result<T, Crash> {
        poll_fn(|cx| self.poll_landed(cx)).await;
        self.flight.0.end.get().expect("it landed")
    }

    fn poll_landed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let inner = &*self.flight.0;
        if inner.end.get().is_none() {
            let mut waiters = inner.waiters.lock();
            if inner.end.get().is_none() {
                self.place = Some(waiters.wait(self.place, cx.waker()));
                return Poll::Pending;
            }
        }
        self.place = None;
        Poll::Ready(())
    }
}

impl<T: Clone> Future for Join<T> {
    type Output = Result<T, Crash>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_landed(cx).map(|()| self.flight.0.end.get().cloned().expect("it landed"))
    }
}

impl<T> Drop for Join<T> {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let left = self.flight.0.waiters.lock().leave(place);
        // A waker's drop is foreign code: outside the lock.
        drop(left);
    }
}

/// The end of a flight, in the hands of its work. Dropped without a landing, the flight is lost.
pub(crate) struct Lander<T>(Option<Arc<Inner<T>>>);

impl<T> Lander<T> {
    /// Ends the flight and wakes all who wait.
    pub(crate) fn land(mut self, end: Result<T, Crash>) {
        self.end(end);
    }

    fn end(&mut self, end: Result<T, Crash>) {
        let Some(inner) = self.0.take() else { return };
        // Nobody else sets it.
        let _ = inner.end.set(end);
        let waiters = std::mem::take(&mut *inner.waiters.lock());
        waiters.wake();
    }
}

impl<T> Drop for Lander<T> {
    fn drop(&mut self) {
        self.end(Err(Crash::Lost));
    }
}

/// Runs a future and catches its panic, as the panic's message.
pub(crate) const fn caught<F: Future>(work: F) -> Caught<F> {
    Caught { work }
}

pin_project! {
    /// The future of [`caught`].
    pub(crate) struct Caught<F> {
        #[pin]
        work: F,
    }
}

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Arc<str>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let work = self.project().work;
        // What panicked is dropped and not polled again, so nobody sees what the panic left half done.
        match catch_unwind(AssertUnwindSafe(|| work.poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(message(&*panic))),
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> Arc<str> {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").into()
}
