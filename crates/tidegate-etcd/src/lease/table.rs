//! What is to stand in etcd with the lease, what stands there, and so what is to be done.

#[cfg(test)]
mod histories;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::{Error, pace::Backoff};

/// How a key stands, as its owner is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Not there yet, and why not.
    Pending(Option<Error>),
    /// There, with this value.
    Held(Arc<[u8]>),
    /// It was there, and is not or may not be.
    Lost(Error),
    /// Taken back, as its owner wished, or taken over by another owner.
    Gone,
}

/// Something to do in etcd for one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) key: Vec<u8>,
    /// The value to write; `None` to delete.
    pub(crate) put: Option<Arc<[u8]>>,
}

/// The keys of one lease. Whatever differs between what is wanted and what stands in etcd is due.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: BTreeMap<Vec<u8>, Entry>,
    due: BTreeSet<Vec<u8>>,
    owners: u64,
}

#[derive(Debug)]
struct Entry {
    owner: u64,
    want: Option<Arc<[u8]>>,
    held: Held,
    backoff: Backoff,
    not_before: Option<Instant>,
    tell: watch::Sender<Told>,
}

/// What stands in etcd with the present lease.
#[derive(Debug, PartialEq, Eq)]
enum Held {
    /// Nothing.
    No,
    /// It was written, or not: the answer was lost.
    Maybe,
    Value(Arc<[u8]>),
}

/// Who published a key.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) id: u64,
    pub(crate) told: watch::Receiver<Told>,
}

impl Table {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether nobody wants anything any more.
    pub(crate) fn is_leaving(&self) -> bool {
        self.entries.values().all(|entry| entry.want.is_none())
    }

    /// Wants a key to have a value. `None` when somebody in this process wants it already.
    pub(crate) fn publish(&mut self, key: &[u8], value: Arc<[u8]>) -> Option<Owner> {
        self.owners += 1;
        let (tell, told) = watch::channel(Told::Pending(None));
        let held = match self.entries.get(key) {
            Some(entry) if entry.want.is_some() => return None,
            // It is just being taken back. What stands there is overwritten, not deleted.
            Some(entry) => {
                entry.tell.send_replace(Told::Gone);
                Held::Maybe
            }
            None => Held::No,
        };
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let entry = Entry { owner: self.owners, want: Some(value), held, backoff, not_before: None, tell };
        self.entries.insert(key.to_vec(), entry);
        self.due.insert(key.to_vec());
        Some(Owner { id: self.owners, told })
    }

    /// Wants another value, or nothing. Whoever does not own the key any more changes nothing.
    pub(crate) fn want(&mut self, key: &[u8], owner: u64, value: Option<Arc<[u8]>>) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.owner == owner) else { return };
        (entry.want, entry.not_before) = (value, None);
        if entry.want.is_none() && entry.held == Held::No {
            entry.tell.send_replace(Told::Gone);
            self.entries.remove(key);
            self.due.remove(key);
        } else {
            self.due.insert(key.to_vec());
        }
    }

    pub(crate) fn want_nothing(&mut self) {
        let all: Vec<_> = self.entries.iter().map(|(key, entry)| (key.clone(), entry.owner)).collect();
        for (key, owner) in all {
            self.want(&key, owner, None);
        }
    }

    /// What is due now, of at most `most` keys and about `bytes` bytes.
    pub(crate) fn batch(&mut self, now: Instant, most: usize, bytes: usize) -> Vec<Operation> {
        let (mut batch, mut size) = (Vec::new(), 0);
        for key in &self.due {
            let Some(entry) = self.entries.get_mut(key) else { continue };
            if entry.not_before.is_some_and(|at| at > now) {
                continue;
            }
            size += key.len() + entry.want.as_ref().map_or(0, |value| value.len());
            if !batch.is_empty() && (batch.len() >= most || size > bytes) {
                break;
            }
            // The answer may be lost: from here on it may stand there.
            if entry.want.is_some() && entry.held == Held::No {
                entry.held = Held::Maybe;
            }
            batch.push(Operation { key: key.clone(), put: entry.want.clone() });
        }
        batch
    }

    /// When something is due that is put off.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let entries = self.due.iter().filter_map(|key| self.entries.get(key));
        entries.filter_map(|entry| entry.not_before).min()
    }

    /// All of a batch stands in etcd.
    pub(crate) fn done(&mut self, batch: &[Operation]) {
        for Operation { key, put } in batch {
            let Some(entry) = self.entries.get_mut(key) else { continue };
            entry.held = put.clone().map_or(Held::No, Held::Value);
            entry.backoff.succeeded();
            entry.not_before = None;
            match (put, &entry.want) {
                (Some(put), Some(want)) if put == want => {
                    entry.tell.send_replace(Told::Held(put.clone()));
                    self.due.remove(key);
                }
                (None, None) => {
                    entry.tell.send_replace(Told::Gone);
                    self.entries.remove(key);
                    self.due.remove(key);
                }
                // Something else is wanted by now, and due.
                _ => {}
            }
        }
    }

    /// One operation cannot be done: it alone is put off.
    pub(crate) fn failed(&mut self, operation: &Operation, error: &Error, now: Instant) {
        let Some(entry) = self.entries.get_mut(&operation.key) else { return };
        entry.not_before = Some(now + entry.backoff.failed());
        entry.failed(error);
    }

    /// A batch was not done, for a reason that has nothing to do with its keys.
    pub(crate) fn postponed(&mut self, batch: &[Operation], error: &Error) {
        for operation in batch {
            if let Some(entry) = self.entries.get_mut(&operation.key) {
                entry.failed(error);
            }
        }
    }

    /// The lease may have ended: nobody knows.
    pub(crate) fn doubt(&mut self, error: &Error) {
        for entry in self.entries.values_mut() {
            entry.failed(error);
        }
    }

    /// The lease has not ended after all, and so all that was held is.
    pub(crate) fn confirm(&mut self) {
        for entry in self.entries.values() {
            if let Held::Value(value) = &entry.held
                && entry.want.as_ref() == Some(value)
            {
                let held = Told::Held(value.clone());
                entry.tell.send_if_modified(|told| {
                    *told != held && {
                        *told = held;
                        true
                    }
                });
            }
        }
    }

    /// The lease has ended, and all its keys with it: because of an error, or given back.
    pub(crate) fn ended(&mut self, error: Option<&Error>) {
        let keys: Vec<_> = self.entries.keys().cloned().collect();
        for key in keys {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.held = Held::No;
            if entry.want.is_some() {
                if let Some(error) = error {
                    entry.failed(error);
                }
                self.due.insert(key);
            } else {
                entry.tell.send_replace(Told::Gone);
                self.entries.remove(&key);
                self.due.remove(&key);
            }
        }
    }

    /// These keys stand in etcd with the lease, and no others. Returns how many were missing and are due again.
    pub(crate) fn verify(&mut self, there: &BTreeSet<Vec<u8>>, error: &Error) -> u64 {
        let mut missing = 0;
        for (key, entry) in &mut self.entries {
            if matches!(entry.held, Held::Value(_)) && !there.contains(key) && !self.due.contains(key) {
                entry.held = Held::Maybe;
                entry.failed(error);
                self.due.insert(key.clone());
                missing += 1;
            }
        }
        missing
    }
}

impl Entry {
    fn failed(&self, error: &Error) {
        if self.want.is_none() {
            return;
        }
        self.tell.send_modify(|told| {
            *told = match told {
                Told::Pending(_) => Told::Pending(Some(error.clone())),
                Told::Held(_) | Told::Lost(_) => Told::Lost(error.clone()),
                Told::Gone => Told::Gone,
            };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Arc<[u8]> {
        text.as_bytes().into()
    }

    fn put(key: &str, text: &str) -> Operation {
        Operation { key: key.into(), put: Some(value(text)) }
    }

    fn all(table: &mut Table) -> Vec<Operation> {
        table.batch(Instant::now(), 64, 1 << 20)
    }

    #[test]
    fn a_changed_value_is_written_again_and_a_deregistered_key_deleted() {
        let mut table = Table::default();
        let owner = table.publish(b"k", value("1")).unwrap();
        assert_eq!(all(&mut table), [put("k", "1")]);
        table.want(b"k", owner.id, Some(value("2")));
        table.done(&[put("k", "1")]);
        assert_eq!(*owner.told.borrow(), Told::Pending(None), "another value is wanted by now");
        assert_eq!(all(&mut table), [put("k", "2")]);
        table.done(&[put("k", "2")]);
        assert_eq!((all(&mut table), owner.told.borrow().clone()), (vec![], Told::Held(value("2"))));
        table.want(b"k", owner.id, None);
        let delete = Operation { key: b"k".into(), put: None };
        assert_eq!(all(&mut table), std::slice::from_ref(&delete));
        table.done(&[delete]);
        assert_eq!((table.is_empty(), owner.told.borrow().clone()), (true, Told::Gone));
    }

    /// A late end of a former registration must not touch its successor (defect E5).
    #[test]
    fn a_former_owner_changes_nothing_of_its_successor() {
        let mut table = Table::default();
        let former = table.publish(b"k", value("1")).unwrap();
        let batch = all(&mut table);
        table.done(&batch);
        table.want(b"k", former.id, None);
        let successor = table.publish(b"k", value("2")).unwrap();
        assert_eq!(*former.told.borrow(), Told::Gone);
        table.want(b"k", former.id, None);
        let late = Operation { key: b"k".into(), put: None };
        table.done(&[late]);
        assert_eq!(all(&mut table), [put("k", "2")]);
        table.done(&[put("k", "2")]);
        assert_eq!(*successor.told.borrow(), Told::Held(value("2")));
    }

    #[test]
    fn two_owners_of_one_key_are_one_too_many() {
        let mut table = Table::default();
        let _owner = table.publish(b"k", value("1")).unwrap();
        assert!(table.publish(b"k", value("1")).is_none());
    }

    #[test]
    fn a_lost_lease_makes_all_due_again_and_a_doubtful_one_nothing() {
        let mut table = Table::default();
        let owner = table.publish(b"k", value("1")).unwrap();
        let batch = all(&mut table);
        table.done(&batch);
        let error = Error::unavailable("down");
        table.doubt(&error);
        assert_eq!((all(&mut table), owner.told.borrow().clone()), (vec![], Told::Lost(error.clone())));
        table.confirm();
        assert_eq!(*owner.told.borrow(), Told::Held(value("1")));
        table.ended(Some(&error));
        assert_eq!((all(&mut table), owner.told.borrow().clone()), (vec![put("k", "1")], Told::Lost(error)));
    }

    #[test]
    fn a_write_whose_answer_was_lost_is_deleted_and_one_that_never_began_is_not() {
        let mut table = Table::default();
        let never = table.publish(b"a", value("1")).unwrap();
        table.want(b"a", never.id, None);
        assert!(table.is_empty());
        let lost = table.publish(b"b", value("1")).unwrap();
        let _sent = all(&mut table);
        table.want(b"b", lost.id, None);
        assert_eq!(all(&mut table), [Operation { key: b"b".into(), put: None }]);
    }

    #[test]
    fn one_key_that_cannot_be_written_does_not_hold_up_the_others() {
        let mut table = Table::default();
        let (now, error) = (Instant::now(), Error::invalid("too large"));
        let bad = table.publish(b"a", value("1")).unwrap();
        let _good = table.publish(b"b", value("2")).unwrap();
        table.failed(&put("a", "1"), &error, now);
        assert_eq!(table.batch(now, 64, 1 << 20), [put("b", "2")]);
        assert_eq!(*bad.told.borrow(), Told::Pending(Some(error)));
        let due = table.next_due().unwrap();
        assert_eq!(table.batch(due, 1, 1 << 20), [put("a", "1")], "and no batch is larger than asked for");
    }
}
