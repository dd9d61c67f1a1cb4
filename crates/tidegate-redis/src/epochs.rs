//! Which ledger this node knows: one number for all of it, though each bucket of a cluster has an epoch of its own.
//!
//! Those who hold credit have one question: is this still the ledger that I told all I saw? So the epochs of buckets
//! are translated into one that grows whenever any of them changes, and back where a bucket is asked.

use parking_lot::Mutex;

/// Epochs of one bucket that are remembered; those who saw an older one are told to tell all, as they should.
const REMEMBERED: usize = 8;
/// An epoch that no bucket has, and that somebody saw.
const LONG_GONE: u64 = 1;

/// What this node knows of the ledger's epochs.
pub(crate) struct Epochs(Mutex<Known>);

struct Known {
    /// What those who hold credit are told.
    shown: u64,
    /// Of each bucket: from which shown epoch on it has which of its own, oldest first.
    buckets: Box<[Vec<(u64, u64)>]>,
}

/// What a bucket's epoch is, beside the one that was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noticed {
    /// The same, or the first.
    Nothing,
    /// Another: what was granted may be forgotten.
    Change,
}

impl Epochs {
    pub(crate) fn new(buckets: usize) -> Self {
        Self(Mutex::new(Known { shown: 0, buckets: vec![Vec::new(); buckets].into() }))
    }

    /// The bucket's own epoch of the one that was shown.
    pub(crate) fn own(&self, bucket: usize, shown: u64) -> u64 {
        if shown == 0 {
            return 0;
        }
        let known = self.0.lock();
        known.buckets[bucket].iter().rev().find(|(from, _)| *from <= shown).map_or(LONG_GONE, |(_, own)| *own)
    }

    /// Takes note of a bucket's epoch, and says what to show for it.
    pub(crate) fn note(&self, bucket: usize, own: u64) -> (u64, Noticed) {
        let mut known = self.0.lock();
        let Known { shown, buckets } = &mut *known;
        let bucket = &mut buckets[bucket];
        match bucket.iter().position(|(_, known)| *known == own) {
            // The answer of a moment ago, when it was still another one, is shown as of then.
            Some(at) if at + 1 < bucket.len() => (bucket[at + 1].0 - 1, Noticed::Nothing),
            Some(_) => (*shown, Noticed::Nothing),
            None if bucket.is_empty() => {
                *shown = (*shown).max(own);
                bucket.push((0, own));
                (*shown, Noticed::Nothing)
            }
            None => {
                *shown = (*shown + 1).max(own);
                if bucket.len() == REMEMBERED {
                    bucket.remove(0);
                }
                bucket.push((*shown, own));
                (*shown, Noticed::Change)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_any_bucket_is_a_change_of_the_whole() {
        let epochs = Epochs::new(2);
        assert_eq!(epochs.note(0, 100), (100, Noticed::Nothing));
        assert_eq!(epochs.note(1, 90), (100, Noticed::Nothing));
        assert_eq!((epochs.own(0, 100), epochs.own(1, 100)), (100, 90));
        // The other bucket's server has a slower clock: its new epoch is still later than what was shown.
        assert_eq!(epochs.note(1, 95), (101, Noticed::Change));
        assert_eq!((epochs.own(0, 101), epochs.own(1, 101)), (100, 95));
        assert_eq!(
            (epochs.own(0, 100), epochs.own(1, 100)),
            (100, 90),
            "what was seen then was of the old one"
        );
    }

    #[test]
    fn a_late_answer_of_an_old_epoch_is_shown_as_old() {
        let epochs = Epochs::new(1);
        epochs.note(0, 100);
        assert_eq!(epochs.note(0, 200), (200, Noticed::Change));
        let (shown, noticed) = epochs.note(0, 100);
        assert_eq!((shown, noticed), (199, Noticed::Nothing));
        assert_eq!(epochs.own(0, shown), 100);
        assert_eq!(epochs.note(0, 200), (200, Noticed::Nothing));
    }

    #[test]
    fn nothing_seen_stays_nothing_and_what_is_forgotten_is_not_the_epoch_now() {
        let epochs = Epochs::new(1);
        assert_eq!(epochs.own(0, 0), 0);
        assert_eq!(epochs.own(0, 7), LONG_GONE);
        for own in 0..20 {
            epochs.note(0, 1000 + own);
        }
        assert_eq!(epochs.own(0, 1000), LONG_GONE);
        assert_eq!(epochs.own(0, 1019), 1019);
    }
}
