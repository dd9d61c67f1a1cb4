//! The order of what etcd tells, even when etcd is set back to an older state.

use parking_lot::Mutex;

/// etcd's revisions, made to never go back: a cluster that was restored from a backup, or replaced by another, begins
/// a new era, and everything of it counts as later than all before.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: Known,
    cluster: u64,
    /// What is added to the revisions of this era.
    base: u64,
}

/// How far the history was known at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) era: u64,
    /// The highest revision seen of the era.
    pub(crate) highest: i64,
}

/// Who told a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Teller {
    /// The cluster, by a quorum, when so much was known before it was asked.
    Cluster(Known),
    /// One member, which may be behind.
    Member,
}

impl History {
    pub(crate) fn known(&self) -> Known {
        self.0.lock().known
    }

    /// Takes note of a revision. A lower one than was known before the cluster was asked means that etcd went back;
    /// from one member, that this member is behind.
    pub(crate) fn told(&self, cluster: u64, revision: i64, teller: Teller) {
        let mut state = self.0.lock();
        let another = state.cluster != 0 && cluster != state.cluster;
        let back = match teller {
            Teller::Cluster(before) => before.era == state.known.era && revision < before.highest,
            Teller::Member => false,
        };
        if another || back {
            tracing::warn!(
                revision,
                known = state.known.highest,
                "etcd was set back or replaced; reading everything again"
            );
            state.base = state.at(state.known.highest);
            state.known = Known { era: state.known.era + 1, highest: 0 };
        }
        state.cluster = cluster;
        state.known.highest = state.known.highest.max(revision);
    }

    /// The place of a revision of an era in the order. What is left of a former era comes before all of this one.
    pub(crate) fn place(&self, era: u64, revision: i64) -> u64 {
        let mut state = self.0.lock();
        if era != state.known.era {
            return state.base;
        }
        state.known.highest = state.known.highest.max(revision);
        state.at(revision)
    }
}

impl State {
    fn at(&self, revision: i64) -> u64 {
        self.base + u64::try_from(revision).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(history: &History, cluster: u64, revision: i64, teller: Teller) -> u64 {
        history.told(cluster, revision, teller);
        history.place(history.known().era, revision)
    }

    #[test]
    fn an_etcd_that_goes_back_in_time_is_later_all_the_same() {
        let history = History::default();
        assert_eq!(place(&history, 1, 100, Teller::Member), 100);
        assert_eq!(place(&history, 1, 90, Teller::Member), 90, "a member that is behind tells old news");
        let before = history.known();
        assert_eq!(
            place(&history, 1, 50, Teller::Cluster(before)),
            150,
            "a cluster that is behind was set back"
        );
        assert_eq!(place(&history, 1, 51, Teller::Cluster(before)), 151, "and only once");
        assert_eq!(history.place(before.era, 101), 100, "what is left of the former era is older");
        assert_eq!(place(&history, 2, 3, Teller::Member), 154, "and so was one that is another");
        assert_eq!(history.known(), Known { era: 2, highest: 3 });
    }

    #[test]
    fn an_answer_that_was_overtaken_by_a_watch_is_no_step_back() {
        let history = History::default();
        history.told(1, 100, Teller::Member);
        let before = history.known();
        history.told(1, 105, Teller::Member);
        assert_eq!(place(&history, 1, 102, Teller::Cluster(before)), 102);
        assert_eq!(history.known(), Known { era: 0, highest: 105 });
    }
}
