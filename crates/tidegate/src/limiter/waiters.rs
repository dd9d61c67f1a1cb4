//! The list of waiters behind the short lock: places in order, each freed in constant time, none allocated anew
//! once the list has grown.

use std::task::Waker;

use tidegate_core::{
    Instant,
    gate::{End, Order, Pace},
};

/// What became of a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A permit is its own.
    Granted,
    /// Its time was over when its turn came.
    Expired,
    /// The limiter was closed.
    Closed,
}

enum Place {
    /// Next free place.
    Free(Option<usize>),
    /// Goes to `Decided` when its turn comes or the limiter closes; to `Free` when the waiter leaves.
    Waiting { waker: Waker, until: Instant, older: Option<usize>, newer: Option<usize> },
    /// Goes to `Free` when the waiter has read it, or leaves.
    Decided(Fate),
}

/// What a waiter that leaves its place had.
pub(crate) enum Left {
    Waiting,
    Decided(Fate),
}

#[derive(Default)]
pub(crate) struct Waiters {
    places: Vec<Place>,
    free: Option<usize>,
    oldest: Option<usize>,
    newest: Option<usize>,
    pub(crate) order: Order,
    pub(crate) pace: Pace,
    /// Those who wait for the last call to leave.
    pub(crate) drains: Vec<Waker>,
}

impl Waiters {
    pub(crate) fn new(order: Order) -> Self {
        Self { order, ..Self::default() }
    }

    pub(crate) fn push(&mut self, waker: Waker, until: Instant) -> usize {
        let place = Place::Waiting { waker, until, older: self.newest, newer: None };
        let at = match self.free {
            Some(at) => {
                let Place::Free(next) = std::mem::replace(&mut self.places[at], place) else {
                    unreachable!("the list of free places holds free places")
                };
                self.free = next;
                at
            }
            None => {
                self.places.push(place);
                self.places.len() - 1
            }
        };
        match self.newest.replace(at) {
            Some(before) => self.link(before).1.replace(at),
            None => self.oldest.replace(at),
        };
        at
    }

    /// The waiter whose turn it is, and until when it waits.
    pub(crate) fn next(&self, end: End) -> Option<(usize, Instant)> {
        let at = match end {
            End::Oldest => self.oldest,
            End::Newest => self.newest,
        }?;
        match &self.places[at] {
            Place::Waiting { until, .. } => Some((at, *until)),
            Place::Free(_) | Place::Decided(_) => unreachable!("only those who wait are in line"),
        }
    }

    /// Takes the waiter at `at` out of the line and tells it its fate.
    pub(crate) fn decide(&mut self, at: usize, fate: Fate) -> Waker {
        match self.take(at, Place::Decided(fate)) {
            Place::Waiting { waker, .. } => waker,
            Place::Free(_) | Place::Decided(_) => unreachable!("a fate is decided once"),
        }
    }

    /// The fate of the waiter at `at`, which leaves its place with it; else its waker is renewed.
    pub(crate) fn poll(&mut self, at: usize, current: &Waker) -> Option<Fate> {
        match &mut self.places[at] {
            Place::Waiting { waker, .. } => {
                waker.clone_from(current);
                None
            }
            Place::Decided(fate) => {
                let fate = *fate;
                self.release(at);
                Some(fate)
            }
            Place::Free(_) => unreachable!("a waiter owns its place until it leaves it"),
        }
    }

    /// Frees the place of a waiter that goes away.
    pub(crate) fn leave(&mut self, at: usize) -> Left {
        let left = match &self.places[at] {
            Place::Decided(fate) => Left::Decided(*fate),
            Place::Waiting { .. } | Place::Free(_) => Left::Waiting,
        };
        self.release(at);
        left
    }

    fn release(&mut self, at: usize) {
        let free = Place::Free(self.free);
        drop(self.take(at, free));
        self.free = Some(at);
    }

    /// Replaces a place and closes the line behind it.
    fn take(&mut self, at: usize, with: Place) -> Place {
        let taken = std::mem::replace(&mut self.places[at], with);
        if let Place::Waiting { older, newer, .. } = taken {
            match older {
                Some(older) => *self.link(older).1 = newer,
                None => self.oldest = newer,
            }
            match newer {
                Some(newer) => *self.link(newer).0 = older,
                None => self.newest = older,
            }
        }
        taken
    }

    fn link(&mut self, at: usize) -> (&mut Option<usize>, &mut Option<usize>) {
        match &mut self.places[at] {
            Place::Waiting { older, newer, .. } => (older, newer),
            Place::Free(_) | Place::Decided(_) => unreachable!("neighbours in line wait"),
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_line_keeps_its_order_whoever_leaves(
            steps in prop::collection::vec((0u8..4, 0usize..16), 1..200)
        ) {
            let (mut waiters, mut line, mut grown) = (Waiters::default(), VecDeque::new(), 0);
            for (step, pick) in steps {
                match step {
                    0 | 1 => {
                        line.push_back(waiters.push(Waker::noop().clone(), Instant::NEVER));
                        grown = grown.max(line.len());
                    }
                    2 if !line.is_empty() => {
                        let at = line.remove(pick % line.len()).unwrap();
                        prop_assert!(matches!(waiters.leave(at), Left::Waiting));
                    }
                    _ => {
                        let end = if pick % 2 == 0 { End::Oldest } else { End::Newest };
                        let next = if pick % 2 == 0 { line.pop_front() } else { line.pop_back() };
                        prop_assert_eq!(waiters.next(end).map(|(at, _)| at), next);
                        if let Some(at) = next {
                            waiters.decide(at, Fate::Granted);
                            prop_assert_eq!(waiters.poll(at, Waker::noop()), Some(Fate::Granted));
                        }
                    }
                }
            }
            prop_assert_eq!(waiters.places.len(), grown, "freed places are used again");
        }
    }
}
