//! A response on its way down. It carries what the call holds to the end of its body, and it is cut when it outlives
//! its time or falls silent, whether or not anybody polls it.
//!
//! A client that opens a stream and grants it no window leaves the body unpolled, so a timer inside the body would
//! never fire and the permit would be held for ever. Each worker therefore keeps a list of its live flows and looks
//! through it ten times a second: one timer a worker instead of one a call.

mod sweep;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tidegate_core::Instant;

use self::sweep::{Place, Swept};
pub use self::sweep::{SWEEP, sweeper};
use crate::body::BodyError;

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
    /// Something that it went with was taken from it.
    Revoked(Taken),
}

/// What was taken from a call that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Its permit of a limit that gateways share: it belongs to another call by now.
    Permit,
    /// Its session is over.
    Session,
}

impl End<'_> {
    /// What is said of a response that the gateway cut: as a status of gRPC, and in words.
    pub const fn cut(&self) -> Option<(u16, &'static str)> {
        Some(match self {
            Self::Complete(_) | Self::Broken | Self::Abandoned => return None,
            Self::Overdue | Self::OutOfTime => (4, "the gateway cut this response: its time was up"),
            Self::Silent => (14, "the gateway cut this response: its upstream was silent for too long"),
            Self::Stalled => (14, "the gateway cut this response: its client took nothing for too long"),
            Self::Revoked(Taken::Permit) => (
                14,
                "the gateway cut this response: its permit ran out, as the store could not be asked in time",
            ),
            Self::Revoked(Taken::Session) => {
                (16, "the gateway cut this response: its session is over; log in again")
            }
        })
    }
}

/// Who is told, once, how a flow ended. What the call holds is given back there.
pub trait Ending: Send + 'static {
    /// Takes the end, and how many bytes went by. `now` is known when a sweep made the end.
    fn end(self, end: End<'_>, bytes: u64, now: Option<Instant>);

    /// Whether the other direction moved since this was last asked: then the flow is not silent. Default: no.
    fn moved(&mut self) -> bool {
        false
    }

    /// What was taken from the call; asked of revocable flows only. Default: nothing.
    fn taken(&mut self, _now: Instant) -> Option<Taken> {
        None
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
    fn frame(self, (grpc_status, why): (u16, &'static str)) -> Option<Result<Frame<Bytes>, BodyError>> {
        Some(match self {
            Self::End => return None,
            Self::Reset => Err(why.into()),
            Self::GrpcTrailers => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", grpc_status.into());
                trailers.insert("grpc-message", HeaderValue::from_static(why));
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
    /// It was cut; the next poll says so with these words, for which gRPC has this status and message. Exits: `Done`.
    Cut(LastWords, (u16, &'static str)),
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
                State::Cut(last_words, why) => last_words.frame(why),
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
        if patience.revocable
            && let Some(taken) = self.ending.taken(now)
        {
            return Some(End::Revoked(taken));
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

impl<B: Send, E: Ending> Swept for Shared<B, E> {
    fn sweep(&self, now: Instant) {
        let mut state = self.state.lock();
        let State::Live(live) = &mut *state else { return };
        let Some(end) = live.overdue(&self.patience, now) else { return };
        let Some(why) = end.cut() else { return };
        let last_words = match end {
            End::Revoked(_) => self.patience.when_revoked,
            _ => self.patience.last_words,
        };
        let cut = State::Cut(last_words, why);
        let State::Live(mut live) = std::mem::replace(&mut *state, cut) else { return };
        drop(state);
        let waker = live.waker.take();
        live.end(end, Some(now));
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests;
