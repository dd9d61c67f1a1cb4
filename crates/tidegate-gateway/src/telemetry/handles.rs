//! Counters by a pair of names: the same handle for the same names, and a bound on how many there are.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

/// Most pairs that are counted apart. Further ones share a pair of the name `(other)`.
pub(super) const MOST_PAIRS: usize = 4096;
/// Both names of what is not counted apart.
pub(super) const OTHER: &str = "(other)";

/// Handles by a pair of names.
#[derive(Debug)]
pub(super) struct Handles<T>(Mutex<HashMap<(String, String), Arc<T>>>);

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Handles<T> {
    /// The handle of a pair, made the first time.
    pub(super) fn of(&self, first: &str, second: &str, make: impl FnOnce(&str, &str) -> T) -> Arc<T> {
        let mut handles = self.0.lock();
        let mut pair = (first.to_owned(), second.to_owned());
        if !handles.contains_key(&pair) && handles.len() >= MOST_PAIRS {
            // What no configuration uses any more goes first; its counters end here.
            handles.retain(|_, handle| Arc::strong_count(handle) > 1);
            if handles.len() >= MOST_PAIRS {
                pair = (OTHER.to_owned(), OTHER.to_owned());
            }
        }
        Arc::clone(handles.entry(pair).or_insert_with_key(|(first, second)| Arc::new(make(first, second))))
    }

    /// Every handle, in the order of the names.
    pub(super) fn sorted(&self) -> Vec<Arc<T>> {
        let mut all: Vec<_> =
            self.0.lock().iter().map(|(pair, handle)| (pair.clone(), Arc::clone(handle))).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all.into_iter().map(|(_, handle)| handle).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_beyond_the_bound_share_one_and_abandoned_ones_make_room() {
        let handles = Handles::default();
        let make = |first: &str, _: &str| first.to_owned();
        let held: Vec<_> = (0..MOST_PAIRS).map(|n| handles.of(&n.to_string(), "u", make)).collect();
        assert_eq!(*handles.of("one too many", "u", make), OTHER);
        drop(held);
        assert_eq!(*handles.of("now there is room", "u", make), "now there is room");
        assert_eq!(handles.sorted().len(), 1);
    }
}
