//! Waiting for a partition's permit: a place in its line, one timer, two polls.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Poll, Waker},
};

use tidegate_core::gate::End;

use super::{Line, Partition, PartitionPermit};
use crate::{By, Call, Instant, Outcome, Refused, clock, limiter::waiters::Fate};

impl Partition {
    /// Takes a permit, waiting in its partition's line for at most `max_wait` and to the call's deadline.
    ///
    /// # Errors
    /// [`Refused`] by `queue-full`, `wait-too-long` (at once when the expected wait is longer than the call can wait) or
    /// `deadline`; by `in-flight` where no queue is wished for, by `nested` when a call inside this limit would have to wait
    /// for itself.
    ///
    /// # Cancel safety
    /// Dropping the future frees its place; a permit that was on its way goes to the next.
    pub async fn acquire(&self, call: &Call) -> Result<PartitionPermit, Refused> {
        if let Some(permit) = self.enter_now(call)? {
            return Ok(permit);
        }
        if self.is_inside() {
            // The permit it waits for may be its own caller's.
            return Err(self.refuse(By::Nested, None));
        }
        let since = clock::now();
        let patience = since + self.shared.watch.max_wait();
        let (until, by) = match call.deadline {
            Some(deadline) if deadline <= since => return Err(self.refuse(By::Deadline, None)),
            Some(deadline) if deadline < patience => (deadline, By::Deadline),
            _ => (patience, By::WaitTooLong),
        };
        let mut timer = pin!(tokio::time::sleep_until(clock::timer_at(until)));
        let mut waiting = Waiting { partition: self, place: None };
        let mut waited = false;
        let fate = poll_fn(|cx| {
            if waiting.place.is_none() {
                match waiting.join(until, since, cx.waker()) {
                    Ok(true) => return Poll::Ready(Ok(Some(Fate::Granted))),
                    Ok(false) => waited = true,
                    Err(refused) => return Poll::Ready(Err(refused)),
                }
            } else if let Some(fate) = waiting.poll(cx.waker()) {
                return Poll::Ready(Ok(Some(fate)));
            }
            timer.as_mut().poll(cx).map(|()| Ok(None))
        })
        .await?;
        match fate {
            Some(Fate::Granted) => {
                let now = clock::now();
                let permit = PartitionPermit::new(&self.shared, self.at, now);
                if call.deadline.is_some_and(|deadline| deadline <= now) {
                    // The grant came in time, the caller was polled too late: the permit goes on, unsent.
                    crate::Permit::settle(permit, Outcome::Unsent, now);
                    return Err(self.refuse(By::Deadline, None));
                }
                if waited {
                    self.stats().waited(now.since(since));
                }
                Ok(permit)
            }
            Some(Fate::Expired | Fate::Closed) | None => {
                waiting.give_up();
                Err(self.refuse(by, self.expected_wait(clock::now())))
            }
        }
    }
}

/// A place in a partition's line, given up when dropped.
pub(super) struct Waiting<'a> {
    pub(super) partition: &'a Partition,
    pub(super) place: Option<usize>,
}

impl Waiting<'_> {
    /// Whether it was let in at once.
    pub(super) fn join(&mut self, until: Instant, now: Instant, waker: &Waker) -> Result<bool, Refused> {
        let Partition { shared, at } = self.partition;
        let mut state = shared.state.lock();
        if state.enter(*at) {
            return Ok(true);
        }
        let (queue, share) = (state.queue, state.share(*at));
        let Line { part, waiters, .. } = &mut state.lines[*at];
        if part.queued >= queue {
            let expected = waiters.pace.expected_wait(part.queued, now);
            drop(state);
            // Where no queue was wished for there is none to be full.
            let (by, after) = if queue == 0 { (By::InFlight, None) } else { (By::QueueFull, expected) };
            return Err(self.partition.refuse(by, after));
        }
        let ahead = match waiters.order.next(part.queued + 1, share) {
            End::Oldest => part.queued,
            End::Newest => 0,
        };
        if let Some(expected) = waiters.pace.expected_wait(ahead, now).filter(|wait| now + *wait >= until) {
            drop(state);
            return Err(self.partition.refuse(By::WaitTooLong, Some(expected)));
        }
        part.queued += 1;
        waiters.pace.queued(now);
        self.place = Some(waiters.push(waker.clone(), until));
        Ok(false)
    }

    pub(super) fn poll(&mut self, waker: &Waker) -> Option<Fate> {
        let Partition { shared, at } = self.partition;
        let fate = shared.state.lock().lines[*at].waiters.poll(self.place?, waker)?;
        self.place = None;
        Some(fate)
    }

    /// Leaves the line because its time is over; what was granted meanwhile goes on to the next.
    fn give_up(mut self) {
        if let Some(place) = self.place.take() {
            self.partition.shared.depart(self.partition.at, place);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.partition.stats().cancelled();
            self.partition.shared.depart(self.partition.at, place);
        }
    }
}
