//! What is true of one service, as far as can be known: the source's last word, and the endpoints that vanished in a way
//! that looks like the source's own trouble. Decisions only.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Change, Endpoint, Instance, Listing, Revision, ServiceName, Snapshot, Update};
use crate::Instant;

/// How a service is preserved from its registry's trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preservation {
    /// How long an endpoint that vanished is kept as a suspect, and a source that went back in time is doubted.
    /// Default: 30 s.
    pub grace: Duration,
    /// The share of a service's endpoints that may vanish within `window`, in percent; when more do, all that vanish are
    /// suspects. One endpoint alone may vanish, unless it is the last. 100: only the last are preserved. Default: 15.
    pub share: u32,
    /// The window, which is remembered for up to twice as long. Default: 60 s.
    pub window: Duration,
}

impl Default for Preservation {
    fn default() -> Self {
        Self { grace: Duration::from_secs(30), share: 15, window: Duration::from_secs(60) }
    }
}

/// The most instances at once, over the last one to two windows.
#[derive(Clone, Copy, Debug)]
struct Peak {
    began: Instant,
    this: usize,
    before: usize,
}

impl Peak {
    fn see(&mut self, size: usize, window: Duration, now: Instant) -> usize {
        let passed = now.since(self.began);
        if passed >= window {
            self.before = if passed < window * 2 { self.this } else { 0 };
            (self.began, self.this) = (now, 0);
        }
        self.this = self.this.max(size);
        self.this.max(self.before)
    }
}

/// One service.
#[derive(Debug)]
pub(super) struct Service {
    name: ServiceName,
    rule: Preservation,
    revision: Revision,
    /// The source's last word.
    truth: BTreeMap<String, Arc<Instance>>,
    /// What vanished, and since when.
    suspects: BTreeMap<String, (Arc<Instance>, Instant)>,
    /// When the source was last known to say so.
    as_of: Option<Instant>,
    /// Since when the source tells of revisions that have passed.
    backwards_since: Option<Instant>,
    peak: Peak,
    /// Entries that were no instances.
    pub(super) malformed: u64,
}

/// What a word of the source came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Endpoints came, went, changed or fell under suspicion.
    Changed,
    /// All is as it was; the source still says so.
    Same,
    /// An older word than the one that is known: it changes nothing and confirms nothing.
    Late,
}

impl Service {
    pub(super) fn new(name: ServiceName, rule: Preservation, now: Instant) -> Self {
        Self {
            name,
            rule,
            revision: Revision::default(),
            truth: BTreeMap::new(),
            suspects: BTreeMap::new(),
            as_of: None,
            backwards_since: None,
            peak: Peak { began: now, this: 0, before: 0 },
            malformed: 0,
        }
    }

    /// Takes what a process before this one knew: good until the source says something else.
    pub(super) fn restore(&mut self, instances: Vec<Arc<Instance>>, as_of: Instant, now: Instant) {
        self.truth = by_id(instances);
        self.as_of = Some(as_of);
        self.peak.see(self.truth.len(), self.rule.window, now);
    }

    /// Hears the answer to a question that was asked at `asked`.
    pub(super) fn read(&mut self, listing: Listing, asked: Instant, now: Instant) -> Heard {
        if self.is_late(listing.revision, now) {
            return Heard::Late;
        }
        self.malformed += u64::from(listing.malformed);
        let changed = self.replace(listing.revision, by_id(listing.instances), now);
        self.confirm(asked);
        let dropped = self.drop_suspects(asked);
        if changed || dropped { Heard::Changed } else { Heard::Same }
    }

    /// Hears an update of a watch.
    pub(super) fn update(&mut self, update: Update, now: Instant) -> Heard {
        match update {
            Update::All(listing) => self.read(listing, now, now),
            Update::Caught(_) => {
                self.confirm(now);
                Heard::Same
            }
            Update::Changes { revision, changes } => {
                if self.is_late(revision, now) {
                    return Heard::Late;
                }
                let mut truth = self.truth.clone();
                for change in changes {
                    match change {
                        Change::Put(instance) => drop(truth.insert(instance.id.clone(), instance)),
                        Change::Removed(id) => drop(truth.remove(&id)),
                        Change::Malformed(_) => self.malformed += 1,
                    }
                }
                let changed = self.replace(revision, truth, now);
                self.confirm(now);
                if changed { Heard::Changed } else { Heard::Same }
            }
        }
    }

    /// Whether a word of `revision` is older than what is known. A source that tells nothing newer for the whole grace
    /// has lost its history (restored from a backup), and is believed.
    fn is_late(&mut self, revision: Revision, now: Instant) -> bool {
        if revision >= self.revision {
            self.backwards_since = None;
            return false;
        }
        let since = *self.backwards_since.get_or_insert(now);
        now.since(since) < self.rule.grace
    }

    /// The source stands by its last word at `at`.
    pub(super) fn vouch(&mut self, at: Instant) {
        self.confirm(at);
    }

    fn confirm(&mut self, at: Instant) {
        self.as_of = Some(self.as_of.map_or(at, |known| known.max(at)));
    }

    fn replace(&mut self, revision: Revision, new: BTreeMap<String, Arc<Instance>>, now: Instant) -> bool {
        let before = self.peak.see(self.truth.len(), self.rule.window, now);
        let left = new.len();
        let lost = before.saturating_sub(left);
        let suspicious =
            lost > 0 && (left == 0 || lost > 1 && lost * 100 > before * self.rule.share as usize);
        let mut changed = new != self.truth;
        let old = std::mem::replace(&mut self.truth, new);
        self.revision = revision;
        self.backwards_since = None;
        if suspicious {
            let gone = old.into_iter().filter(|(id, _)| !self.truth.contains_key(id));
            self.suspects.extend(gone.map(|(id, instance)| (id, (instance, now))));
        }
        let truth = &self.truth;
        let suspects = self.suspects.len();
        self.suspects.retain(|id, _| !truth.contains_key(id));
        changed |= self.suspects.len() != suspects;
        self.peak.see(left, self.rule.window, now);
        changed
    }

    /// Drops the suspects whose grace was over when the source was asked: it has confirmed that they are gone.
    fn drop_suspects(&mut self, asked: Instant) -> bool {
        let before = self.suspects.len();
        let grace = self.rule.grace;
        self.suspects.retain(|_, (_, since)| asked < *since + grace);
        self.suspects.len() != before
    }

    /// Somebody called a suspect in vain: it goes, unless nothing else is left.
    pub(super) fn refute(&mut self, id: &str) -> Heard {
        let last = self.truth.is_empty() && self.suspects.len() == 1;
        if !last && self.suspects.remove(id).is_some() { Heard::Changed } else { Heard::Same }
    }

    /// When the source is to be asked whether the suspects are gone.
    pub(super) fn confirm_at(&self) -> Option<Instant> {
        self.suspects.values().map(|(_, since)| *since + self.rule.grace).min()
    }

    /// Whether it has an endpoint, sure or suspect.
    pub(super) fn is_empty(&self) -> bool {
        self.truth.is_empty() && self.suspects.is_empty()
    }

    pub(super) fn as_of(&self) -> Option<Instant> {
        self.as_of
    }

    pub(super) fn suspects(&self) -> usize {
        self.suspects.len()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let sure = self
            .truth
            .values()
            .map(|instance| Endpoint { instance: Arc::clone(instance), suspect_since: None });
        let suspects = self.suspects.values().map(|(instance, since)| Endpoint {
            instance: Arc::clone(instance),
            suspect_since: Some(*since),
        });
        Snapshot {
            service: self.name.clone(),
            revision: self.revision,
            as_of: self.as_of.unwrap_or_default(),
            endpoints: sure.chain(suspects).collect(),
        }
    }
}

fn by_id(instances: Vec<Arc<Instance>>) -> BTreeMap<String, Arc<Instance>> {
    instances.into_iter().map(|instance| (instance.id.clone(), instance)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1_700_000_000_000_000_000);

    fn at(seconds: u64) -> Instant {
        START + Duration::from_secs(seconds)
    }

    fn instance(id: u64) -> Arc<Instance> {
        let address = format!("10.0.0.1:{}", 9000 + id).parse().expect("an address");
        Arc::new(Instance::new("orders".parse().expect("a name"), format!("{id:03}"), address))
    }

    fn listing(revision: u64, ids: impl IntoIterator<Item = u64>) -> Listing {
        let instances = ids.into_iter().map(instance).collect();
        Listing { revision: Revision(revision), instances, malformed: 0 }
    }

    fn removed(revision: u64, ids: impl IntoIterator<Item = u64>) -> Update {
        let changes = ids.into_iter().map(|id| Change::Removed(format!("{id:03}"))).collect();
        Update::Changes { revision: Revision(revision), changes }
    }

    fn service(count: u64) -> Service {
        let mut service = Service::new("orders".parse().unwrap(), Preservation::default(), START);
        assert_eq!(service.read(listing(1, 0..count), START, START), Heard::Changed);
        service
    }

    fn counts(service: &Service) -> (usize, usize) {
        let snapshot = service.snapshot();
        (snapshot.endpoints.len(), snapshot.suspects().count())
    }

    #[test]
    fn a_mass_expiry_leaves_every_endpoint_as_a_suspect_until_the_source_confirms_it_after_the_grace() {
        let mut service = service(100);
        assert_eq!(service.update(removed(2, 0..100), at(1)), Heard::Changed);
        assert_eq!(counts(&service), (100, 100));
        assert_eq!(service.confirm_at(), Some(at(31)));
        assert_eq!(service.read(listing(2, []), at(30), at(30)), Heard::Same, "asked inside the grace");
        assert_eq!(counts(&service), (100, 100));
        assert_eq!(service.read(listing(2, []), at(31), at(32)), Heard::Changed);
        assert!(service.is_empty());
    }

    #[test]
    fn suspects_that_register_again_are_cleared() {
        let mut service = service(10);
        service.update(removed(2, 0..10), at(1));
        let back = (0..4).map(|id| Change::Put(instance(id))).collect();
        service.update(Update::Changes { revision: Revision(3), changes: back }, at(5));
        assert_eq!(counts(&service), (10, 6));
        service.read(listing(4, 0..10), at(6), at(6));
        assert_eq!((counts(&service), service.confirm_at()), ((10, 0), None));
    }

    #[test]
    fn the_last_endpoint_is_never_lost_to_one_deletion() {
        let mut service = service(1);
        service.update(removed(2, [0]), at(1));
        assert_eq!(counts(&service), (1, 1));
    }

    #[test]
    fn one_endpoint_of_several_goes_at_once_and_so_does_less_than_the_share() {
        let mut few = service(3);
        few.update(removed(2, [0]), at(1));
        assert_eq!(counts(&few), (2, 0));
        let mut many = service(100);
        many.update(removed(2, 0..15), at(1));
        assert_eq!(counts(&many), (85, 0));
        many.update(removed(3, 15..17), at(2));
        assert_eq!(counts(&many), (85, 2), "by and by, within the window, counts as well");
        assert_eq!(many.update(removed(4, [80]), at(200)), Heard::Changed);
        assert_eq!(counts(&many), (84, 2), "another window");
    }

    #[test]
    fn a_rolling_deployment_is_no_mass_expiry() {
        let mut service = service(10);
        for round in 0..10 {
            let changes = vec![Change::Put(instance(100 + round)), Change::Removed(format!("{round:03}"))];
            service.update(Update::Changes { revision: Revision(2 + round), changes }, at(round));
        }
        assert_eq!(counts(&service), (10, 0));
    }

    #[test]
    fn a_whole_batch_is_heard_in_order() {
        let mut service = service(2);
        let changes = vec![
            Change::Put(instance(7)),
            Change::Removed("000".into()),
            Change::Malformed("001".into()),
            Change::Put(instance(8)),
            Change::Removed("008".into()),
        ];
        service.update(Update::Changes { revision: Revision(2), changes }, at(1));
        let ids: Vec<_> = service.snapshot().endpoints.iter().map(|end| end.instance.id.clone()).collect();
        assert_eq!((ids, service.malformed), (vec!["001".to_owned(), "007".to_owned()], 1));
    }

    #[test]
    fn an_older_word_changes_nothing_until_the_source_has_said_nothing_newer_for_the_grace() {
        let mut service = service(2);
        service.read(listing(50, 0..3), at(1), at(1));
        assert_eq!(service.read(listing(49, 0..2), at(2), at(2)), Heard::Late);
        assert_eq!(
            (counts(&service), service.as_of()),
            ((3, 0), Some(at(1))),
            "nor does it confirm anything"
        );
        assert_eq!(service.read(listing(50, 0..3), at(3), at(3)), Heard::Same);
        assert_eq!(service.read(listing(4, 0..3), at(10), at(10)), Heard::Late);
        assert_eq!(service.read(listing(5, 1..4), at(39), at(39)), Heard::Late);
        assert_eq!(service.read(listing(6, 1..4), at(40), at(40)), Heard::Changed, "restored from a backup");
        assert_eq!(service.snapshot().revision, Revision(6));
    }

    #[test]
    fn what_a_process_before_knew_is_preserved_from_a_source_that_came_up_empty() {
        let mut service = Service::new("orders".parse().unwrap(), Preservation::default(), START);
        service.restore((0..5).map(instance).collect(), START - Duration::from_secs(60), START);
        service.read(listing(1, []), at(1), at(1));
        assert_eq!(counts(&service), (5, 5));
    }

    #[test]
    fn a_suspect_that_was_called_in_vain_goes_unless_it_is_the_last() {
        let mut service = service(2);
        service.update(removed(2, 0..2), at(1));
        assert_eq!(service.refute("000"), Heard::Changed);
        assert_eq!(service.refute("001"), Heard::Same);
        assert_eq!(counts(&service), (1, 1));
    }

    #[test]
    fn a_listing_with_one_id_twice_has_one_endpoint() {
        let mut service = service(1);
        service.read(listing(2, [0, 5, 5]), at(1), at(1));
        assert_eq!(counts(&service), (2, 0));
    }
}
