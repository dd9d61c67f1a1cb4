//! How long a connection may wait for its client: one timer a connection, armed when it rests and left alone while it
//! works, so that a request costs no timer and at most one reading of the clock.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    limits::Limits,
    peer::{Activity, Input},
};

/// A client that has not closed its end by then never will.
const LINGER: Duration = Duration::from_secs(2);

/// What a connection waits for. A value that stays the same is one wait; any other begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// For something else than the client.
    Nothing,
    /// For a request, after so many.
    Request(u64),
    /// For the rest of a request head, after so many requests.
    Head(u64),
    /// For the rest of a request body, of the request with this number.
    Body(u64),
    /// For the client to read, after so many times it went on.
    Read(u64),
    /// For the client to close.
    Close,
}

/// Why a connection waited for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// There has been no request for a while: its buffers can go.
    Quiet,
    /// There has been no request for as long as it may be kept.
    Idle,
    /// A request head takes too long.
    Head,
    /// A request body comes too slowly.
    Body,
    /// The client has stopped reading.
    Read,
    /// The client does not close.
    Close,
}

pin_project! {
    /// The watch over one connection.
    pub(super) struct Watch {
        #[pin]
        sleep: Sleep,
        armed: Instant,
        // Whether the timer will wake us: it was asked since it was armed.
        asked: bool,
        wait: Wait,
        since: Instant,
        // Since when a request body is not the client's turn.
        paused: Option<Instant>,
        body_at: u64,
        quiet: bool,
        leaving: bool,
        limits: Arc<Limits>,
    }
}

impl Watch {
    /// A watch over a connection that waits for its first request. `quiet` says whether to tell of a quiet connection.
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        let since = Instant::now();
        let armed = since + limits.header_timeout;
        Self {
            sleep: sleep_until(armed),
            armed,
            asked: false,
            wait: Wait::Request(0),
            since,
            paused: None,
            body_at: 0,
            quiet: false,
            leaving: false,
            limits,
        }
    }

    /// Since when it waits for what it waits for now.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Whether the client was told that there will be no further request.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Asks to be told when the connection has been quiet for a while.
    pub(super) fn tell_of_quiet(self: Pin<&mut Self>, quiet: bool) {
        *self.project().quiet = quiet;
    }

    /// The client was told that there will be no further request: from now on it has little time to close.
    pub(super) fn say_goodbye(self: Pin<&mut Self>) {
        let this = self.project();
        *this.leaving = true;
        *this.since = Instant::now();
    }

    /// Ready when the connection has waited for too long; to be called whenever it rests.
    pub(super) fn poll_overdue(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        activity: &Activity,
    ) -> Poll<Overdue> {
        let wait = waits_for(activity);
        if wait != self.wait {
            let this = self.as_mut().project();
            if wait == Wait::Nothing {
                // A body goes on after its handler has taken what came; that time is not the client's.
                match this.wait {
                    Wait::Body(_) => *this.paused = this.paused.or_else(|| Some(Instant::now())),
                    _ => *this.wait = wait,
                }
                return Poll::Pending;
            }
            *this.wait = wait;
            *this.since = Instant::now();
            *this.paused = None;
            *this.body_at = activity.body_bytes.load(Relaxed);
            // Has the timer gone off meanwhile, its wake-up was spent on something else. If not, it will wake us.
            let deadline = self.limit().0;
            if self.armed <= self.since {
                self.as_mut().arm(deadline);
            } else if self.asked && self.armed <= deadline {
                return Poll::Pending;
            }
        } else if wait == Wait::Nothing {
            return Poll::Pending;
        } else if let Some(paused) = self.paused {
            let this = self.as_mut().project();
            let now = Instant::now();
            *this.since += now - paused;
            *this.paused = None;
            if self.armed <= now {
                let deadline = self.limit().0;
                self.as_mut().arm(deadline);
            }
        }
        loop {
            let (deadline, overdue) = self.limit();
            if deadline < self.armed {
                self.as_mut().arm(deadline);
            }
            let this = self.as_mut().project();
            if this.sleep.poll(cx).is_pending() {
                *this.asked = true;
                return Poll::Pending;
            }
            let now = Instant::now();
            if now < deadline {
                self.as_mut().arm(deadline);
                continue;
            }
            if overdue == Overdue::Body && self.as_mut().made_progress(now, activity) {
                continue;
            }
            return Poll::Ready(overdue);
        }
    }

    /// Ready at `deadline`, for a wait that is not about HTTP.
    pub(super) fn poll_until(mut self: Pin<&mut Self>, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if self.armed != deadline {
            self.as_mut().arm(deadline);
        }
        self.project().sleep.poll(cx)
    }

    fn arm(self: Pin<&mut Self>, at: Instant) {
        let this = self.project();
        *this.armed = at;
        *this.asked = false;
        this.sleep.reset(at);
    }

    fn limit(&self) -> (Instant, Overdue) {
        let (limit, overdue) = match self.wait {
            Wait::Request(_) if self.leaving => (LINGER, Overdue::Close),
            Wait::Request(1..) if self.quiet && self.limits.quiet < self.limits.keep_alive => {
                (self.limits.quiet, Overdue::Quiet)
            }
            Wait::Request(_) | Wait::Nothing => (self.limits.keep_alive, Overdue::Idle),
            Wait::Head(_) => (self.limits.header_timeout, Overdue::Head),
            Wait::Body(_) => (self.limits.idle, Overdue::Body),
            Wait::Read(_) => (self.limits.idle, Overdue::Read),
            Wait::Close => (LINGER, Overdue::Close),
        };
        (self.since + limit, overdue)
    }

    /// Whether the body came fast enough over the window that ends now; then the next window begins.
    fn made_progress(self: Pin<&mut Self>, now: Instant, activity: &Activity) -> bool {
        let this = self.project();
        let bytes = activity.body_bytes.load(Relaxed);
        let due = this.limits.min_body_rate.saturating_mul(this.limits.idle.as_millis() as u64) / 1000;
        let came = bytes - *this.body_at;
        if came < due.max(1) {
            return false;
        }
        *this.since = now;
        *this.body_at = bytes;
        true
    }
}

fn waits_for(activity: &Activity) -> Wait {
    if activity.lingers.load(Relaxed) {
        return Wait::Close;
    }
    if activity.awaits_write.load(Relaxed) {
        return Wait::Read(activity.writes_resumed.load(Relaxed));
    }
    let begun = activity.begun.load(Relaxed);
    let busy = activity.in_flight.load(Relaxed) > 0;
    match activity.input() {
        Input::Body if activity.awaits_read.load(Relaxed) => Wait::Body(begun),
        Input::Body | Input::Head | Input::Between if busy => Wait::Nothing,
        Input::Head => Wait::Head(begun),
        Input::Body | Input::Between => Wait::Request(begun),
    }
}
