//! Waiting for a permit: a place in line, one timer, two polls.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll},
};

use tidegate_core::Instant;

use super::{
    Limiter, Permit,
    permits::{Departed, Joined, Permits},
    stats::Stats,
    waiters::Fate,
};
use crate::{By, Call, Refused, clock};

/// A place in line, given up when dropped.
struct Waiting<'a> {
    permits: &'a Permits,
    stats: &'a Stats,
    place: Option<usize>,
}

impl Waiting<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Fate> {
        let place = self.place.expect("a place is polled until its fate is known");
        let fate = std::task::ready!(self.permits.poll(place, cx.waker()));
        self.place = None;
        Poll::Ready(fate)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.permits.depart(place);
            self.stats.cancelled();
        }
    }
}

impl Limiter {
    /// Waits in line, at most for `max_wait` and at most to the call's deadline.
    pub(crate) async fn wait(&self, call: &Call) -> Result<Permit, Refused> {
        if self.is_inside() {
            // The permit it waits for may be its own caller's.
            return Err(self.refuse(By::Nested, None));
        }
        self.shared.wants_more();
        let since = clock::now();
        let patience = since + self.shared.watch.max_wait();
        let (until, by) = match call.deadline {
            Some(deadline) if deadline <= since => return Err(self.refuse(By::Deadline, None)),
            Some(deadline) if deadline < patience => (deadline, By::Deadline),
            _ => (patience, By::WaitTooLong),
        };
        let permits = &self.shared.permits;
        let joined = poll_fn(|cx| Poll::Ready(permits.join(until, since, cx.waker()))).await;
        let place = match joined {
            Joined::Admitted => return Ok(Permit::new(&self.shared, Some(since))),
            Joined::Waiting(place) => place,
            Joined::TooLong => return Err(self.refuse(By::WaitTooLong, permits.expected_wait(since))),
            // Where no queue was wished for there is none to be full.
            Joined::Full if permits.queue() == 0 => return Err(self.refuse(By::InFlight, None)),
            Joined::Full => return Err(self.refuse(By::QueueFull, permits.expected_wait(since))),
            Joined::Closed => return Err(self.refuse(By::Closed, None)),
        };
        let mut waiting = Waiting { permits, stats: &self.shared.stats, place: Some(place) };
        let fate = waiting.fate(until).await;
        let now = clock::now();
        match fate {
            Some(Fate::Granted) => {
                let permit = Permit::new(&self.shared, Some(now));
                if call.deadline.is_some_and(|deadline| deadline <= now) {
                    // The grant came in time, the caller was polled too late: the permit goes on, unsent.
                    permit.finish(crate::Outcome::Unsent);
                    return Err(self.refuse(By::Deadline, None));
                }
                self.shared.stats.waited(now.since(since));
                Ok(permit)
            }
            Some(Fate::Closed) => Err(self.refuse(By::Closed, None)),
            Some(Fate::Expired) | None => Err(self.refuse(by, permits.expected_wait(now))),
        }
    }
}

impl Waiting<'_> {
    /// Waits for a decision, or `None` when the time was over first.
    async fn fate(&mut self, until: Instant) -> Option<Fate> {
        let mut timer = pin!(tokio::time::sleep_until(clock::timer_at(until)));
        let mut joined_just_now = true;
        let fate = poll_fn(|cx| {
            // The first poll only starts the timer: the place has this waker already.
            if !std::mem::take(&mut joined_just_now)
                && let Poll::Ready(fate) = self.poll(cx)
            {
                return Poll::Ready(Some(fate));
            }
            timer.as_mut().poll(cx).map(|()| None)
        })
        .await;
        if let (None, Some(place)) = (fate, self.place.take())
            && self.permits.depart(place) == Departed::Decided
        {
            // A grant raced with the timer and lost: it went on to the next in line.
            return None;
        }
        fate
    }
}
