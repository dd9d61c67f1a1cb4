//! A response on its way down. It carries what the call holds to the end of its body, and it is cut when it outlives
//! its time or falls silent, whether or not anybody polls it.
//!
//! A client that opens a stream and grants it no window leaves the body unpolled, so a timer inside the body would
//! never fire and the permit would be held for ever. Each worker therefore keeps a list of its live flows and looks
//! through it ten times a second: one timer a worker instead of one a call.

use std::{
    cell::RefCell,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tidegate_core::Instant;

use crate::body::BodyError;

/// How often a worker looks for flows to cut; a cut comes at most so much late.
pub const SWEEP: Duration = Duration::from_millis(100);

/// How a flow ended.
#[derive(Debug)]
pub enum End<'a> {
    /// The whole body went by; trailers, if there were any.
    Complete(Option<&'a HeaderMap>),
    /// The upstream broke off.
    Broken,
    /// The upstream fell silent for longer than it may.
    Silent,
    /// The client took nothing for longer than it may.
    Stalled,
    /// The call's time was up while it waited for the upstream.
    Overdue,
    /// The call's time was up while it was being served.
    OutOfTime,
    /// The client went away.
    Abandoned,
    /// What it held belongs to somebody else by now.
    Revoked,
}

/// Who is told, once, how a flow ended. What the call holds is given back there.
pub trait Ending: Send + 'static {
    /// Takes the end, and how many bytes went by. `now` is known when a sweep made the end.
    fn end(self, end: End<'_>, bytes: u64, now: Option<Instant>);

    /// Whether the other direction moved since this was last asked: then the flow is not silent. Default: no.
    fn moved(&mut self) -> bool {
        false
    }

    /// Whether what the call holds is its own no more; asked of revocable flows only. Default: no.
    fn is_revoked(&mut self, _now: Instant) -> bool {
        false
    }
}

/// When a flow is cut.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// The end of the whole call.
    pub deadline: Option<Instant>,
    /// The longest silence, of either side.
    pub idle: Option<Duration>,
    /// Whether what the call holds may be taken from it.
    pub revocable: bool,
    /// What a client gets that is cut off.
    pub last_words: LastWords,
    /// What it gets when what it held was taken from it.
    pub when_revoked: LastWords,
}

/// What a client gets that is cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastWords {
    /// A broken connection or a reset stream, so that nobody takes the part for the whole.
    #[default]
    Reset,
    /// gRPC trailers that say why.
    GrpcTrailers,
    /// The end of the body, of which no part is the whole anyway: a stream of events.
    End,
}

impl LastWords {
    fn frame(self, grpc_status: u16) -> Option<Result<Frame<Bytes>, BodyError>> {
        Some(match self {
            Self::End => return None,
            Self::Reset => Err("the gateway cut this response: its time was up".into()),
            Self::GrpcTrailers => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", grpc_status.into());
                trailers.insert(
                    "grpc-message",
                    HeaderValue::from_static("the gateway cut this response: its time was up"),
                );
                Ok(Frame::trailers(trailers))
            }
        })
    }
}

/// A body that ends `E` when it ends.
#[derive(Debug)]
pub struct Flow<B: Send + 'static, E: Ending>(Arc<Shared<B, E>>);

#[derive(Debug)]
struct Shared<B, E> {
    patience: Patience,
    state: Mutex<State<B, E>>,
}

#[derive(Debug)]
enum State<B, E> {
    /// Frames may come. Ends by the body's own end, by a cut, or by drop.
    Live(Live<B, E>),
    /// It was cut; the next poll says so with these words, for which gRPC has this status. Exits: `Done`.
    Cut(LastWords, u16),
    /// Everything went by. Final.
    Done,
}

#[derive(Debug)]
struct Live<B, E> {
    body: B,
    ending: E,
    bytes: u64,
    place: Option<Place>,
    /// Frames went by since the last sweep.
    moved: bool,
    /// The last poll found nothing: the upstream owes a frame. Otherwise the client owes a poll.
    waker: Option<Waker>,
    /// When a sweep first found that nothing moved.
    still_since: Option<Instant>,
}

impl<B, E> Flow<B, E>
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
    E: Ending,
{
    /// Carries `body` down; `ending` is told how it ended.
    pub fn new(body: B, ending: E, patience: Patience) -> Self {
        if body.is_end_stream() {
            ending.end(End::Complete(None), 0, None);
            return Self(Arc::new(Shared { patience, state: Mutex::new(State::Done) }));
        }
        let live = Live { body, ending, bytes: 0, place: None, moved: true, waker: None, still_since: None };
        let shared = Arc::new(Shared { patience, state: Mutex::new(State::Live(live)) });
        if patience.deadline.is_some() || patience.idle.is_some() || patience.revocable {
            let place = Place::take(&shared);
            if let State::Live(live) = &mut *shared.state.lock() {
                live.place = place;
            }
        }
        Self(shared)
    }
}

impl<B, E> Body for Flow<B, E>
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
    E: Ending,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.0.state.lock();
        let State::Live(live) = &mut *state else {
            return Poll::Ready(match std::mem::replace(&mut *state, State::Done) {
                State::Cut(last_words, grpc_status) => last_words.frame(grpc_status),
                State::Live(_) | State::Done => None,
            });
        };
        let Poll::Ready(frame) = Pin::new(&mut live.body).poll_frame(cx) else {
            if !live.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                live.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        };
        live.moved = true;
        live.waker = None;
        let frame = frame.map(|result| result.map_err(Into::into));
        let end = match &frame {
            Some(Ok(frame)) => {
                live.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                match frame.trailers_ref() {
                    Some(trailers) => Some(End::Complete(Some(trailers))),
                    None => live.body.is_end_stream().then_some(End::Complete(None)),
                }
            }
            Some(Err(_)) => Some(End::Broken),
            None => Some(End::Complete(None)),
        };
        if let Some(end) = end
            && let State::Live(live) = std::mem::replace(&mut *state, State::Done)
        {
            drop(state);
            live.end(end, None);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &*self.0.state.lock() {
            State::Live(live) => live.body.is_end_stream(),
            State::Cut(..) => false,
            State::Done => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &*self.0.state.lock() {
            State::Live(live) => live.body.size_hint(),
            State::Cut(..) => SizeHint::default(),
            State::Done => SizeHint::with_exact(0),
        }
    }
}

impl<B: Send + 'static, E: Ending> Drop for Flow<B, E> {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut *self.0.state.lock(), State::Done);
        if let State::Live(live) = state {
            live.end(End::Abandoned, None);
        }
    }
}

impl<B, E: Ending> Live<B, E> {
    fn end(self, end: End<'_>, now: Option<Instant>) {
        drop(self.place);
        // The body first: its connection is free, or closed, before the next caller is let in.
        drop(self.body);
        self.ending.end(end, self.bytes, now);
    }

    /// Why this flow is to be cut now, if it is.
    fn overdue(&mut self, patience: &Patience, now: Instant) -> Option<End<'static>> {
        let waits = self.waker.is_some();
        if patience.revocable && self.ending.is_revoked(now) {
            return Some(End::Revoked);
        }
        let up = patience.idle.is_some() && self.ending.moved();
        let still_since = if std::mem::take(&mut self.moved) || up {
            self.still_since = None;
            None
        } else {
            Some(*self.still_since.get_or_insert(now))
        };
        if patience.deadline.is_some_and(|deadline| now >= deadline) {
            return Some(if waits && still_since.is_some() { End::Overdue } else { End::OutOfTime });
        }
        match (patience.idle, still_since) {
            (Some(idle), Some(since)) if now.since(since) >= idle => {
                Some(if waits { End::Silent } else { End::Stalled })
            }
            _ => None,
        }
    }
}

/// Something that a sweep looks at.
trait Swept: Send + Sync {
    fn sweep(&self, now: Instant);
}

impl<B: Send, E: Ending> Swept for Shared<B, E> {
    fn sweep(&self, now: Instant) {
        let mut state = self.state.lock();
        let State::Live(live) = &mut *state else { return };
        let Some(end) = live.overdue(&self.patience, now) else { return };
        let (last_words, grpc_status) = match end {
            End::Revoked => (self.patience.when_revoked, 14),
            End::Silent | End::Stalled => (self.patience.last_words, 14),
            End::Complete(_) | End::Broken | End::Overdue | End::OutOfTime | End::Abandoned => {
                (self.patience.last_words, 4)
            }
        };
        let cut = State::Cut(last_words, grpc_status);
        let State::Live(mut live) = std::mem::replace(&mut *state, cut) else { return };
        drop(state);
        let waker = live.waker.take();
        live.end(end, Some(now));
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

thread_local! {
    static LIVE: RefCell<Places> = const { RefCell::new(Places { flows: Vec::new(), free: Vec::new(), swept: false }) };
}

struct Places {
    flows: Vec<Option<Weak<dyn Swept>>>,
    free: Vec<usize>,
    /// Whether a sweep runs on this thread.
    swept: bool,
}

/// A place in its thread's list, given back by drop.
#[derive(Debug)]
struct Place {
    index: usize,
    home: std::thread::ThreadId,
}

impl Place {
    fn take<B: Send + 'static, E: Ending>(shared: &Arc<Shared<B, E>>) -> Option<Self> {
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body_util::BodyExt;
    use tokio::time::advance;

    use super::*;

    /// Frames, then whatever `then` says.
    struct Scripted {
        frames: VecDeque<Frame<Bytes>>,
        then: Then,
    }

    enum Then {
        End,
        Break,
        Hang,
    }

    impl Scripted {
        fn new(frames: &[&'static str], then: Then) -> Self {
            Self {
                frames: frames.iter().map(|data| Frame::data(Bytes::from_static(data.as_bytes()))).collect(),
                then,
            }
        }
    }

    impl Body for Scripted {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            match (self.frames.pop_front(), &self.then) {
                (Some(frame), _) => Poll::Ready(Some(Ok(frame))),
                (None, Then::End) => Poll::Ready(None),
                (None, Then::Break) => Poll::Ready(Some(Err("broken".into()))),
                (None, Then::Hang) => Poll::Pending,
            }
        }
    }

    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<String>>>);

    impl Ending for Told {
        fn end(self, end: End<'_>, bytes: u64, _: Option<Instant>) {
            let end = match end {
                End::Complete(trailers) => format!("complete, trailers: {}", trailers.is_some()),
                other => format!("{other:?}"),
            };
            self.0.lock().push(format!("{end}, {bytes} bytes"));
        }
    }

    fn patience(deadline: Option<u64>, idle: Option<u64>) -> Patience {
        Patience {
            deadline: deadline.map(|ms| tidegate::clock::now() + Duration::from_millis(ms)),
            idle: idle.map(Duration::from_millis),
            revocable: false,
            last_words: LastWords::Reset,
            when_revoked: LastWords::Reset,
        }
    }

    #[tokio::test]
    async fn the_end_is_told_once_at_the_end_of_the_body() {
        let told = Told::default();
        let flow = Flow::new(Scripted::new(&["ab", "c"], Then::End), told.clone(), Patience::default());
        assert_eq!(flow.collect().await.unwrap().to_bytes(), "abc");
        assert_eq!(*told.0.lock(), ["complete, trailers: false, 3 bytes"]);
    }

    #[tokio::test]
    async fn trailers_are_the_end_and_are_seen() {
        let told = Told::default();
        let mut body = Scripted::new(&["ab"], Then::End);
        body.frames.push_back(Frame::trailers(HeaderMap::new()));
        let mut flow = Flow::new(body, told.clone(), Patience::default());
        flow.frame().await.unwrap().unwrap();
        assert!(told.0.lock().is_empty());
        flow.frame().await.unwrap().unwrap();
        assert_eq!(*told.0.lock(), ["complete, trailers: true, 2 bytes"]);
    }

    #[tokio::test]
    async fn an_error_and_a_drop_are_told_as_what_they_are() {
        let told = Told::default();
        let flow = Flow::new(Scripted::new(&["ab"], Then::Break), told.clone(), Patience::default());
        assert!(flow.collect().await.is_err());
        drop(Flow::new(Scripted::new(&["ab"], Then::End), told.clone(), Patience::default()));
        assert_eq!(*told.0.lock(), ["Broken, 2 bytes", "Abandoned, 0 bytes"]);
    }

    #[tokio::test]
    async fn an_empty_body_ends_at_once() {
        let told = Told::default();
        let flow = Flow::new(http_body_util::Empty::<Bytes>::new(), told.clone(), Patience::default());
        assert!(flow.is_end_stream());
        assert_eq!(*told.0.lock(), ["complete, trailers: false, 0 bytes"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flow_that_nobody_polls_is_cut_all_the_same() {
        let sweeping = tokio::spawn(sweeper());
        tokio::task::yield_now().await;
        let told = Told::default();
        let flow = Flow::new(Scripted::new(&["ab"], Then::Hang), told.clone(), patience(None, Some(1000)));
        for _ in 0..13 {
            advance(SWEEP).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(*told.0.lock(), ["Stalled, 0 bytes"]);
        assert!(flow.collect().await.is_err());
        sweeping.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_upstream_and_an_overdue_one_are_told_apart_and_wake_the_reader() {
        let sweeping = tokio::spawn(sweeper());
        tokio::task::yield_now().await;
        for (deadline, idle, expected) in
            [(None, Some(500), "Silent, 2 bytes"), (Some(500), None, "Overdue, 2 bytes")]
        {
            let patience = patience(deadline, idle);
            let told = Told::default();
            let flow = Flow::new(Scripted::new(&["ab"], Then::Hang), told.clone(), patience);
            assert!(flow.collect().await.is_err());
            assert_eq!(*told.0.lock(), [expected]);
        }
        sweeping.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn grpc_is_told_in_trailers_why_it_was_cut() {
        let sweeping = tokio::spawn(sweeper());
        tokio::task::yield_now().await;
        let patience = Patience { last_words: LastWords::GrpcTrailers, ..patience(Some(500), None) };
        let flow = Flow::new(Scripted::new(&["ab"], Then::Hang), Told::default(), patience);
        let collected = flow.collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "4");
        sweeping.abort();
    }

    /// What the other direction does, and whether the lease is lost.
    struct Other(Told, Arc<Mutex<(bool, bool)>>);

    impl Ending for Other {
        fn end(self, end: End<'_>, bytes: u64, now: Option<Instant>) {
            self.0.end(end, bytes, now);
        }

        fn moved(&mut self) -> bool {
            self.1.lock().0
        }

        fn is_revoked(&mut self, _: Instant) -> bool {
            self.1.lock().1
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flow_is_not_silent_while_the_other_direction_moves() {
        let sweeping = tokio::spawn(sweeper());
        tokio::task::yield_now().await;
        let (told, other) = (Told::default(), Arc::new(Mutex::new((true, false))));
        let ending = Other(told.clone(), Arc::clone(&other));
        let flow = Flow::new(Scripted::new(&[], Then::Hang), ending, patience(None, Some(500)));
        for _ in 0..20 {
            advance(SWEEP).await;
            tokio::task::yield_now().await;
        }
        assert!(told.0.lock().is_empty(), "two seconds of silence one way");
        other.lock().0 = false;
        assert!(flow.collect().await.is_err());
        assert_eq!(*told.0.lock(), ["Silent, 0 bytes"]);
        sweeping.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_flow_whose_lease_is_lost_is_cut() {
        let sweeping = tokio::spawn(sweeper());
        tokio::task::yield_now().await;
        let (told, other) = (Told::default(), Arc::new(Mutex::new((false, true))));
        let ending = Other(told.clone(), other);
        let patience = Patience { revocable: true, ..patience(None, None) };
        let flow = Flow::new(Scripted::new(&["ab"], Then::Hang), ending, patience);
        assert!(flow.collect().await.is_err());
        assert_eq!(*told.0.lock(), ["Revoked, 2 bytes"]);
        sweeping.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_of_events_that_is_revoked_ends_and_is_not_broken() {
        let sweeping = tokio::spawn(sweeper());
        tokio::task::yield_now().await;
        let (told, other) = (Told::default(), Arc::new(Mutex::new((false, true))));
        let ending = Other(told.clone(), other);
        let patience = Patience { revocable: true, when_revoked: LastWords::End, ..patience(None, None) };
        let flow = Flow::new(Scripted::new(&["ab"], Then::Hang), ending, patience);
        assert_eq!(flow.collect().await.unwrap().to_bytes(), "ab");
        assert_eq!(*told.0.lock(), ["Revoked, 2 bytes"]);
        sweeping.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_given_back() {
        let sweeping = tokio::spawn(sweeper());
        tokio::task::yield_now().await;
        for _ in 0..100 {
            drop(Flow::new(Scripted::new(&["ab"], Then::End), Told::default(), patience(None, Some(500))));
        }
        LIVE.with_borrow(|places| assert_eq!((places.flows.len(), places.free.len()), (1, 1)));
        sweeping.abort();
    }
}
