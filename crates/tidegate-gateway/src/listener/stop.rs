//! The end of a listener as its connections see it: serving, perhaps handed over, then draining, then aborting. A
//! connection that works pays one load for it, not a lock.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::atomic::{AtomicU8, Ordering},
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::sync::{Notify, futures::Notified};

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Serving.
    Serving = 0,
    /// Another process takes new connections. Those that are here may make one more call, so that none is closed while
    /// its client sends one.
    HandedOver = 1,
    /// Finishing what is in flight.
    Draining = 2,
    /// Dropping what is left.
    Aborting = 3,
}

/// The stage that all connections of a listener share.
#[derive(Debug, Default)]
pub(super) struct Stop {
    stage: AtomicU8,
    changed: Notify,
}

impl Stop {
    pub(super) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Serving,
            1 => Stage::HandedOver,
            2 => Stage::Draining,
            _ => Stage::Aborting,
        }
    }

    /// Goes on to a stage and wakes every connection.
    pub(super) fn raise(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    /// Waits until a stage has begun.
    pub(super) async fn reached(&self, stage: Stage) {
        let mut stages = pin!(self.follow());
        while poll_fn(|cx| stages.as_mut().poll_next(cx)).await < stage {}
    }

    /// Follows the stages from serving on.
    pub(super) fn follow(&self) -> Follow<'_> {
        Follow { stop: self, seen: Stage::Serving, registered: false, changed: self.changed.notified() }
    }
}

pin_project! {
    /// One connection's view of the stages.
    pub(super) struct Follow<'a> {
        stop: &'a Stop,
        seen: Stage,
        registered: bool,
        #[pin]
        changed: Notified<'a>,
    }
}

impl Follow<'_> {
    /// Whether the last stage that was seen is [`Stage::HandedOver`].
    pub(super) fn is_handed_over(&self) -> bool {
        self.seen == Stage::HandedOver
    }

    /// Ready with each stage once; the task is woken when the next begins.
    pub(super) fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Stage> {
        let mut this = self.project();
        let stage = this.stop.stage();
        if stage > *this.seen {
            *this.seen = stage;
            this.changed.set(this.stop.changed.notified());
            *this.registered = false;
            return Poll::Ready(stage);
        }
        if !*this.registered {
            // A change after `notified()` was called makes it ready here, so none is missed.
            *this.registered = true;
            if this.changed.as_mut().poll(cx).is_ready() {
                this.changed.set(this.stop.changed.notified());
                *this.registered = false;
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_stage_is_seen_once_by_those_who_wait_and_those_who_come_late() {
        let stop = Stop::default();
        let mut early = pin!(stop.follow());
        let mut task = tokio_test::task::spawn(());
        assert!(task.enter(|cx, _| early.as_mut().poll_next(cx)).is_pending());
        stop.raise(Stage::Draining);
        assert!(task.is_woken());
        assert_eq!(poll_fn(|cx| early.as_mut().poll_next(cx)).await, Stage::Draining);
        assert!(task.enter(|cx, _| early.as_mut().poll_next(cx)).is_pending());
        stop.raise(Stage::Aborting);
        assert!(task.is_woken());
        assert_eq!(poll_fn(|cx| early.as_mut().poll_next(cx)).await, Stage::Aborting);

        let mut late = pin!(stop.follow());
        assert_eq!(poll_fn(|cx| late.as_mut().poll_next(cx)).await, Stage::Aborting);
    }
}
