//! What is true of one service, as far as can be known: the source's last word, and the endpoints that vanished in a way
//! that looks like the source's own trouble. Decisions only.

mod losses;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use self::losses::Losses;
use super::{Change, Doubt, Endpoint, Instance, Listing, Revision, ServiceName, Snapshot, Update};
use crate::Instant;

/// How a service is preserved from its registry's trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preservation {
    /// How long an endpoint that vanished is kept as a suspect, and a source that went back in time is doubted.
    /// Default: 30 s.
    pub grace: Duration,
    /// The share of a service's endpoints that may vanish within `window` and not be replaced, in percent; when more do,
    /// all of them are suspects. One endpoint alone may vanish, unless it is the last. 100: only the last are preserved. Default: 15.
    pub share: u32,
    /// The window, which is remembered for up to twice as long. Default: 60 s.
    pub window: Duration,
}

impl Default for Preservation {
    fn default() -> Self {
        Self { grace: Duration::from_secs(30), share: 15, window: Duration::from_secs(60) }
    }
}

/// An endpoint that the source no longer lists, in a way that looks like the source's own trouble.
#[derive(Debug)]
struct Doubted {
    instance: Arc<Instance>,
    /// When the doubt began.
    since: Instant,
    evidence: Evidence,
}

/// What calls tell of it. It is listed again, or a reading that was begun after the grace takes it away, from either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    /// Nothing: it is a suspect. Left by a call that succeeds, to `Proven`; by one in vain it goes, unless it is the last.
    None,
    /// A call succeeded: it serves, whatever the source says. Left by a call in vain, to `None`.
    Proven(Instant),
}

/// One service.
#[derive(Debug)]
pub(super) struct Service {
    name: ServiceName,
    rule: Preservation,
    revision: Revision,
    /// The source's last word.
    truth: BTreeMap<String, Arc<Instance>>,
    /// What vanished, and is doubted to be gone.
    doubted: BTreeMap<String, Doubted>,
    /// When the source was last known to say so.
    as_of: Option<Instant>,
    /// Since when the source tells of revisions that have passed.
    backwards_since: Option<Instant>,
    losses: Losses,
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
            doubted: BTreeMap::new(),
            as_of: None,
            backwards_since: None,
            losses: Losses::new(now),
            malformed: 0,
        }
    }

    /// Takes what a process before this one knew: good until the source says something else.
    pub(super) fn restore(&mut self, instances: Vec<Arc<Instance>>, as_of: Instant, now: Instant) {
        self.truth = by_id(instances);
        self.as_of = Some(as_of);
        self.losses.has(self.truth.len(), self.rule, now);
    }

    /// Hears the answer to a question that was asked at `asked`.
    pub(super) fn read(&mut self, listing: Listing, asked: Instant, now: Instant) -> Heard {
        if self.is_late(listing.revision, now) {
            return Heard::Late;
        }
        self.malformed += u64::from(listing.malformed);
        let changed = self.replace(listing.revision, by_id(listing.instances), now);
        self.confirm(asked);
        let dropped = self.drop_doubted(asked);
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
        let mut changed = new != self.truth;
        let old = std::mem::replace(&mut self.truth, new);
        self.losses.has(old.len(), self.rule, now);
        self.revision = revision;
        self.backwards_since = None;
        let truth = &self.truth;
        truth.keys().for_each(|id| self.losses.is_listed(id));
        let vanished = old.into_iter().filter(|(id, _)| !truth.contains_key(id)).collect();
        for (id, instance) in self.losses.lose(vanished, truth.len(), self.rule, now) {
            self.doubted.insert(id, Doubted { instance, since: now, evidence: Evidence::None });
        }
        let before = self.doubted.len();
        self.doubted.retain(|id, _| !truth.contains_key(id));
        changed |= self.doubted.len() != before;
        changed
    }

    /// Drops those whose grace was over when the source was asked: it has confirmed that they are gone.
    fn drop_doubted(&mut self, asked: Instant) -> bool {
        let before = self.doubted.len();
        let grace = self.rule.grace;
        self.doubted.retain(|_, doubted| asked < doubted.since + grace);
        self.doubted.len() != before
    }

    /// A call to an endpoint that is not listed succeeded: it is no suspect until the source says again that it is gone.
    pub(super) fn prove(&mut self, id: &str, now: Instant) -> Heard {
        let Some(doubted) = self.doubted.get_mut(id) else { return Heard::Same };
        match doubted.evidence {
            Evidence::None => {
                doubted.evidence = Evidence::Proven(now);
                Heard::Changed
            }
            Evidence::Proven(_) => Heard::Same,
        }
    }

    /// Somebody called an endpoint in vain that is not listed. One that calls had proved is a suspect again; a suspect
    /// goes, unless nothing else is left.
    pub(super) fn refute(&mut self, id: &str) -> Heard {
        let last = self.truth.is_empty() && self.doubted.len() == 1;
        let Some(doubted) = self.doubted.get_mut(id) else { return Heard::Same };
        match doubted.evidence {
            Evidence::Proven(_) => doubted.evidence = Evidence::None,
            Evidence::None if last => return Heard::Same,
            Evidence::None => drop(self.doubted.remove(id)),
        }
        Heard::Changed
    }

    /// When the source is to be asked whether those that vanished are gone.
    pub(super) fn confirm_at(&self) -> Option<Instant> {
        self.doubted.values().map(|doubted| doubted.since + self.rule.grace).min()
    }

    /// Whether it has an endpoint, sure or not.
    pub(super) fn is_empty(&self) -> bool {
        self.truth.is_empty() && self.doubted.is_empty()
    }

    pub(super) fn as_of(&self) -> Option<Instant> {
        self.as_of
    }

    pub(super) fn suspects(&self) -> usize {
        self.doubted.values().filter(|doubted| doubted.evidence == Evidence::None).count()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let sure = self
            .truth
            .values()
            .map(|instance| Endpoint { instance: Arc::clone(instance), doubt: Doubt::None });
        let doubted = |wanted: fn(Evidence) -> bool| {
            self.doubted.values().filter(move |one| wanted(one.evidence)).map(|one| Endpoint {
                instance: Arc::clone(&one.instance),
                doubt: match one.evidence {
                    Evidence::None => Doubt::Suspect { since: one.since },
                    Evidence::Proven(at) => Doubt::Proven { since: one.since, at },
                },
            })
        };
        let proven = doubted(|evidence| evidence != Evidence::None);
        let suspects = doubted(|evidence| evidence == Evidence::None);
        Snapshot {
            service: self.name.clone(),
            revision: self.revision,
            as_of: self.as_of.unwrap_or_default(),
            endpoints: sure.chain(proven).chain(suspects).collect(),
        }
    }
}

fn by_id(instances: Vec<Arc<Instance>>) -> BTreeMap<String, Arc<Instance>> {
    instances.into_iter().map(|instance| (instance.id.clone(), instance)).collect()
}

#[cfg(test)]
mod tests;
