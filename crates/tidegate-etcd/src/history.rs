//! The order of what etcd tells, even when etcd is set back to an older state.

use parking_lot::Mutex;

/// etcd's revisions, made to never go back: a cluster that was restored from a backup, or replaced by another, begins
/// a new era, and everything of it counts as later than all before.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Era>);

#[derive(Debug, Default)]
struct Era {
    cluster: u64,
    highest: u64,
    /// What is added to the revisions of this era.
    base: u64,
}

impl History {
    /// The highest revision seen of this era.
    pub(crate) fn highest(&self) -> i64 {
        i64::try_from(self.0.lock().highest).unwrap_or(i64::MAX)
    }

    /// The place of a revision in the order. `sure` when the cluster itself was asked, and not only one member, which
    /// may be behind: then a lower revision than seen before means that etcd went back.
    pub(crate) fn place(&self, cluster: u64, revision: i64, sure: Sure) -> u64 {
        let revision = u64::try_from(revision).unwrap_or_default();
        let mut era = self.0.lock();
        let another = era.cluster != 0 && cluster != 0 && cluster != era.cluster;
        if another || (sure == Sure::Cluster && revision < era.highest) {
            era.base += era.highest;
            era.highest = 0;
        }
        if cluster != 0 {
            era.cluster = cluster;
        }
        era.highest = era.highest.max(revision);
        era.base + revision
    }
}

/// Who told a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sure {
    /// The cluster, by a quorum.
    Cluster,
    /// One member, which may be behind.
    Member,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etcd_that_goes_back_in_time_is_later_all_the_same() {
        let history = History::default();
        assert_eq!(history.place(1, 100, Sure::Member), 100);
        assert_eq!(history.place(1, 90, Sure::Member), 90, "a member that is behind tells old news");
        assert_eq!(history.place(1, 50, Sure::Cluster), 150, "a cluster that is behind was set back");
        assert_eq!(history.place(1, 51, Sure::Member), 151);
        assert_eq!(history.place(2, 3, Sure::Member), 154, "and so was one that is another");
        assert_eq!(history.highest(), 3);
    }
}
