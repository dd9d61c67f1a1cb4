//! Ends a stream in which nothing has moved for too long, whether or not anybody polls it.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::task::AbortHandle;

use crate::{Instant, Outcome, Permit, clock};

/// How a guarded stream ended before its end.
#[derive(Debug, PartialEq, Eq)]
pub enum StreamError<E> {
    /// Nothing moved in either direction for this long; the call's permit is free again.
    Idle(Duration),
    /// The stream itself failed.
    Inner(E),
}

impl<E: fmt::Display> fmt::Display for StreamError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle(idle) => write!(f, "stream cut: nothing moved in it for {idle:?}"),
            Self::Inner(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for StreamError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Idle(_) => None,
            Self::Inner(error) => Some(error),
        }
    }
}

/// What both directions of a stream tell their watch, and learn from it.
pub struct Watch {
    idle: Duration,
    moved: AtomicU64,
    is_cut: AtomicBool,
    wakers: Mutex<[Option<Waker>; 2]>,
}

/// One direction of a watched stream.
#[derive(Clone, Copy)]
pub(crate) enum Direction {
    Request = 0,
    Response = 1,
}

impl Watch {
    pub(crate) fn new(idle: Duration) -> Arc<Self> {
        let moved = AtomicU64::new(clock::now().as_nanos());
        Arc::new(Self { idle, moved, is_cut: AtomicBool::new(false), wakers: Mutex::default() })
    }

    /// Registers who polls `direction`; says whether the stream is cut.
    pub(crate) fn poll_cut(&self, direction: Direction, cx: &Context<'_>) -> Poll<Duration> {
        self.wakers.lock()[direction as usize] = Some(cx.waker().clone());
        if self.is_cut.load(Ordering::Acquire) { Poll::Ready(self.idle) } else { Poll::Pending }
    }

    pub(crate) fn moved(&self) {
        self.moved.store(clock::now().as_nanos(), Ordering::Relaxed);
    }

    fn ends(&self) -> Instant {
        Instant::from_nanos(self.moved.load(Ordering::Relaxed)) + self.idle
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        let wakers = std::mem::take(&mut *self.wakers.lock());
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

/// Takes what it is asked to when the time comes; gone when the stream has ended by itself.
type Slot<T> = Arc<Mutex<Option<T>>>;

/// A permit that the watch may drop first.
pub struct Watched<P>(Slot<P>);

impl<P: Permit> Permit for Watched<P> {
    fn learns(&self) -> bool {
        self.0.lock().as_ref().is_some_and(Permit::learns)
    }

    fn settle(self, outcome: Outcome, now: Instant) {
        let permit = self.0.lock().take();
        if let Some(permit) = permit {
            permit.settle(outcome, now);
        }
    }

    fn settle_now(self, outcome: Outcome) {
        let permit = self.0.lock().take();
        if let Some(permit) = permit {
            permit.settle_now(outcome);
        }
    }
}

impl<P> Drop for Watched<P> {
    fn drop(&mut self) {
        let permit = self.0.lock().take();
        drop(permit);
    }
}

pin_project! {
    /// A response body that may be watched, and is cut then when nothing moves for too long.
    pub struct IdleBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<B> {
        Free { #[pin] body: B },
        Watched { stream: Stream<B> },
    }
}

impl<B> IdleBody<B> {
    #[inline(always)]
    pub(crate) const fn free(body: B) -> Self {
        Self { kind: Kind::Free { body } }
    }

    pub(crate) const fn watched(stream: Stream<B>) -> Self {
        Self { kind: Kind::Watched { stream } }
    }
}

/// A body that its watch can drop.
pub(crate) struct Stream<B> {
    body: Slot<Pin<Box<B>>>,
    watch: Arc<Watch>,
    task: AbortHandle,
}

impl<B> Drop for Stream<B> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<B: Send + 'static> Stream<B> {
    /// Watches `body` and `permit`.
    pub(crate) fn watch<P: Permit + 'static>(watch: Arc<Watch>, body: B, permit: P) -> (Self, Watched<P>) {
        let body = Arc::new(Mutex::new(Some(Box::pin(body))));
        let permit = Arc::new(Mutex::new(Some(permit)));
        let task = tokio::spawn(cut(watch.clone(), Arc::downgrade(&body), Arc::downgrade(&permit)));
        (Self { body, watch, task: task.abort_handle() }, Watched(permit))
    }
}

type WeakSlot<T> = Weak<Mutex<Option<T>>>;

async fn cut<B: Send, P: Permit>(watch: Arc<Watch>, body: WeakSlot<Pin<Box<B>>>, permit: WeakSlot<P>) {
    while clock::now() < watch.ends() {
        tokio::time::sleep_until(clock::timer_at(watch.ends())).await;
    }
    watch.cut();
    // Dropping the body resets the stream, so that the permit is free only after the call is over for the peer too.
    let body = body.upgrade().and_then(|slot| slot.lock().take());
    drop(body);
    let permit = permit.upgrade().and_then(|slot| slot.lock().take());
    drop(permit);
}

impl<B: Body> Body for IdleBody<B> {
    type Data = B::Data;
    type Error = StreamError<B::Error>;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        match self.project().kind.project() {
            KindProjection::Free { body } => {
                body.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(StreamError::Inner)))
            }
            KindProjection::Watched { stream } => {
                if let Poll::Ready(idle) = stream.watch.poll_cut(Direction::Response, cx) {
                    return Poll::Ready(Some(Err(StreamError::Idle(idle))));
                }
                let mut slot = stream.body.lock();
                let Some(body) = slot.as_mut() else {
                    return Poll::Ready(Some(Err(StreamError::Idle(stream.watch.idle))));
                };
                let frame = ready!(body.as_mut().poll_frame(cx));
                stream.watch.moved();
                Poll::Ready(frame.map(|frame| frame.map_err(StreamError::Inner)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Free { body } => body.is_end_stream(),
            Kind::Watched { stream } => stream.body.lock().as_ref().is_some_and(|body| body.is_end_stream()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Free { body } => body.size_hint(),
            Kind::Watched { stream } => {
                stream.body.lock().as_ref().map(|body| body.size_hint()).unwrap_or_default()
            }
        }
    }
}
