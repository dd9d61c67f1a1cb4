//! Who waits for a flight: the first one without an allocation.

use std::task::Waker;

/// Wakers at their places; a place that was left is used again.
#[derive(Default)]
pub(super) struct Waiters {
    first: Option<Waker>,
    others: Vec<Option<Waker>>,
    /// Places among the others that were left.
    free: Vec<usize>,
}

/// Where a waiter's waker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    First,
    Other(usize),
}

impl Waiters {
    /// Keeps the waker of one who waits, at the place it has or at a new one.
    pub(super) fn wait(&mut self, place: Option<Place>, waker: &Waker) -> Place {
        let place = place.unwrap_or_else(|| self.place());
        match self.at(place) {
            Some(Some(old)) => old.clone_from(waker),
            Some(vacant) => *vacant = Some(waker.clone()),
            None => {}
        }
        place
    }

    fn place(&mut self) -> Place {
        if self.first.is_none() {
            return Place::First;
        }
        Place::Other(self.free.pop().unwrap_or_else(|| {
            self.others.push(None);
            self.others.len() - 1
        }))
    }

    fn at(&mut self, place: Place) -> Option<&mut Option<Waker>> {
        match place {
            Place::First => Some(&mut self.first),
            Place::Other(at) => self.others.get_mut(at),
        }
    }

    /// Gives up a place, and the waker that was there: none after the wakers were taken to be woken.
    pub(super) fn leave(&mut self, place: Place) -> Option<Waker> {
        let left = self.at(place)?.take();
        if let (Place::Other(at), Some(_)) = (place, &left) {
            self.free.push(at);
        }
        left
    }

    /// Wakes all, in the order in which they came.
    pub(super) fn wake(self) {
        self.first.into_iter().chain(self.others.into_iter().flatten()).for_each(Waker::wake);
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }
}
