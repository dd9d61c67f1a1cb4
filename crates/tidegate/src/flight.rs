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
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::sync::Mutex;

#[cfg(all(test, shuttle))]
mod interleavings;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

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

struct Inner<T>(Mutex<State<T>>);

enum State<T> {
    /// Goes to `Landed` once, by the one [`Lander`].
    Flying(Waiters),
    Landed(Result<T, Crash>),
}

/// Wakers at their places; a place that was left is used again.
#[derive(Default)]
struct Waiters {
    places: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Waiters {
    fn join(&mut self, waker: &Waker) -> usize {
        let waker = Some(waker.clone());
        match self.free.pop() {
            Some(place) => {
                self.places[place] = waker;
                place
            }
            None => {
                self.places.push(waker);
                self.places.len() - 1
            }
        }
    }
}

impl<T> Clone for Flight<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Flight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &*self.0.0.lock() {
            State::Flying(_) => "Flight(under way)",
            State::Landed(_) => "Flight(landed)",
        })
    }
}

impl<T: Clone + Send + 'static> Flight<T> {
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

impl<T: Clone> Flight<T> {
    /// A flight that whoever has the lander ends.
    pub(crate) fn new() -> (Self, Lander<T>) {
        let inner = Arc::new(Inner(Mutex::new(State::Flying(Waiters::default()))));
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
        Join { inner: Arc::clone(&self.0), place: None }
    }
}

/// The future of [`Flight::join`].
#[must_use = "a future does nothing unless it is polled"]
pub struct Join<T> {
    inner: Arc<Inner<T>>,
    place: Option<usize>,
}

impl<T: Clone> Future for Join<T> {
    type Output = Result<T, Crash>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut place = self.place;
        let polled = match &mut *self.inner.0.lock() {
            State::Landed(end) => Poll::Ready(end.clone()),
            State::Flying(waiters) => {
                match place {
                    Some(place) => match &mut waiters.places[place] {
                        Some(waker) => waker.clone_from(cx.waker()),
                        vacant @ None => *vacant = Some(cx.waker().clone()),
                    },
                    None => place = Some(waiters.join(cx.waker())),
                }
                Poll::Pending
            }
        };
        self.place = if polled.is_ready() { None } else { place };
        polled
    }
}

impl<T> Drop for Join<T> {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let left = match &mut *self.inner.0.lock() {
            State::Flying(waiters) => {
                waiters.free.push(place);
                waiters.places[place].take()
            }
            State::Landed(_) => None,
        };
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
        let before = std::mem::replace(&mut *inner.0.lock(), State::Landed(end));
        if let State::Flying(waiters) = before {
            waiters.places.into_iter().flatten().for_each(Waker::wake);
        }
    }
}

impl<T> Drop for Lander<T> {
    fn drop(&mut self) {
        self.end(Err(Crash::Lost));
    }
}

/// Runs a future and catches its panic, as the panic's message.
pub(crate) async fn caught<F: Future>(work: F) -> Result<F::Output, Arc<str>> {
    let mut work = Box::pin(work);
    std::future::poll_fn(move |cx| {
        // What panicked is dropped and not polled again, so nobody sees what the panic left half done.
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(message(&*panic))),
        }
    })
    .await
}

fn message(panic: &(dyn Any + Send)) -> Arc<str> {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").into()
}
