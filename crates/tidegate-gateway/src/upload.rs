//! A request body on its way up: bounded in size and in patience, and it says why it ended early.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tidegate::clock;
use tidegate_core::Instant;
use tokio::time::Sleep;

use crate::{
    body::BodyError,
    proxy::hop,
    upstream::{Replay, Taken},
};

/// What a client may take its time for.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Most bytes; none for any number.
    pub bytes: Option<u64>,
    /// Longest silence of the client.
    pub idle: Option<Duration>,
    /// Least bytes a second, averaged over the time spent waiting for the client once that exceeds `idle`.
    pub min_rate: u64,
}

/// Why an upload ended early, by the client's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// More bytes than allowed.
    TooLarge,
    /// Silence, or too little progress.
    TooSlow,
    /// The client broke off.
    Gone,
}

/// What the request path keeps of an upload whose body has gone to the upstream.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    fault: AtomicU8,
    waits: AtomicBool,
    /// What there is to send it again, where somebody might.
    kept: OnceLock<Mutex<(Replay, Taken)>>,
}

impl Progress {
    /// Bytes that went up.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Whether the rest of the body is waited for, and the client owes it.
    pub fn waits(&self) -> bool {
        self.waits.load(Relaxed)
    }

    /// What the client did wrong, if it did.
    pub fn fault(&self) -> Option<Fault> {
        match self.fault.load(Relaxed) {
            0 => None,
            1 => Some(Fault::TooLarge),
            2 => Some(Fault::TooSlow),
            _ => Some(Fault::Gone),
        }
    }

    /// The whole body, if it is all up and was one piece, and [`Upload::keep`] was called.
    pub fn again(&self) -> Option<Bytes> {
        let (replay, taken) = std::mem::take(&mut *self.kept.get()?.lock());
        replay.piece(taken)
    }

    /// Takes note of a frame, or of the end.
    fn keep(&self, frame: Option<&Frame<Bytes>>, taken: Taken) {
        let Some(kept) = self.kept.get() else { return };
        let (replay, known) = &mut *kept.lock();
        match frame.map(Frame::data_ref) {
            Some(Some(piece)) => replay.take(piece),
            Some(None) => replay.lose(),
            None => replay.end(),
        }
        *known = taken;
    }

    fn blame(&self, fault: Fault) {
        let code = match fault {
            Fault::TooLarge => 1,
            Fault::TooSlow => 2,
            Fault::Gone => 3,
        };
        self.fault.store(code, Relaxed);
    }
}

/// A request body that is passed on as it comes.
#[derive(Debug)]
pub struct Upload {
    body: Incoming,
    allowance: Allowance,
    progress: Arc<Progress>,
    /// Made when the client first lets us wait; most bodies are there at once.
    silence: Option<Pin<Box<Sleep>>>,
    waiting_since: Option<Instant>,
    waited: Duration,
}

impl Upload {
    /// Passes `body` on within `allowance`.
    pub fn new(body: Incoming, allowance: Allowance) -> (Self, Arc<Progress>) {
        let progress = Arc::<Progress>::default();
        let upload = Self {
            body,
            allowance,
            progress: Arc::clone(&progress),
            silence: None,
            waiting_since: None,
            waited: Duration::ZERO,
        };
        (upload, progress)
    }

    /// Keeps the body in case it has to be sent again, if it is one piece.
    pub fn keep(&self) {
        let _kept_already = self.progress.kept.set(Mutex::default());
    }

    fn fail(&self, fault: Fault, text: &'static str) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.progress.blame(fault);
        Poll::Ready(Some(Err(text.into())))
    }

    /// Arms the timer when a wait begins, and says whether the client has been silent for too long.
    fn silent_too_long(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(idle) = self.allowance.idle else { return false };
        if self.waiting_since.is_none() {
            let now = clock::now();
            self.waiting_since = Some(now);
            let at = clock::timer_at(now + idle);
            match &mut self.silence {
                Some(silence) => silence.as_mut().reset(at),
                None => self.silence = Some(Box::pin(tokio::time::sleep_until(at))),
            }
        }
        self.silence.as_mut().is_some_and(|silence| silence.as_mut().poll(cx).is_ready())
    }

    /// Ends a wait, and says whether the client has sent too little for the time it was waited for.
    fn too_slow(&mut self) -> bool {
        let Some(since) = self.waiting_since.take() else { return false };
        self.waited += clock::now().since(since);
        let grace = self.allowance.idle.unwrap_or(Duration::MAX);
        let least = u128::from(self.allowance.min_rate) * self.waited.as_millis() / 1000;
        self.waited >= grace && u128::from(self.progress.bytes()) < least
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        this.progress.waits.store(polled.is_pending(), Relaxed);
        let Poll::Ready(frame) = polled else {
            if this.silent_too_long(cx) {
                return this.fail(Fault::TooSlow, "the client sent nothing of the request body for too long");
            }
            return Poll::Pending;
        };
        let too_slow = this.too_slow();
        match frame {
            Some(Ok(mut frame)) => {
                frame.trailers_mut().map(hop::strip_trailers);
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                let taken = if this.body.is_end_stream() { Taken::All } else { Taken::Part };
                this.progress.keep(Some(&frame), taken);
                let bytes = this.progress.bytes() + length;
                this.progress.bytes.store(bytes, Relaxed);
                if this.allowance.bytes.is_some_and(|most| bytes > most) {
                    return this.fail(Fault::TooLarge, "the request body is larger than is passed on");
                }
                if too_slow {
                    return this.fail(Fault::TooSlow, "the request body came too slowly");
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.progress.blame(Fault::Gone);
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                this.progress.keep(None, Taken::All);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
