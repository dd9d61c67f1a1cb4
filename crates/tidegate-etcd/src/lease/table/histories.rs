//! The table against a simulated etcd, over random histories.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Publish(u8, u8),
    Update(u8, u8),
    Withdraw(u8),
    /// A batch is sent. What comes to pass meanwhile comes before its answer.
    Send(usize),
    Answer(Answer),
    LeaseLost,
    /// Somebody deletes a key, and all keys are verified.
    Meddle(u8),
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Done,
    /// It was done, and the answer was lost.
    Lost,
    Failed,
}

fn step() -> impl Strategy<Value = Step> {
    let answer = prop_oneof![Just(Answer::Done), Just(Answer::Lost), Just(Answer::Failed)];
    prop_oneof![
        (0..4_u8, any::<u8>()).prop_map(|(key, value)| Step::Publish(key, value)),
        (0..4_u8, any::<u8>()).prop_map(|(key, value)| Step::Update(key, value)),
        (0..4_u8).prop_map(Step::Withdraw),
        (1..4_usize).prop_map(Step::Send),
        answer.prop_map(Step::Answer),
        Just(Step::LeaseLost),
        (0..4_u8).prop_map(Step::Meddle),
    ]
}

#[derive(Default)]
struct World {
    table: Table,
    etcd: BTreeMap<Vec<u8>, Arc<[u8]>>,
    owners: BTreeMap<u8, (Owner, u8)>,
    sent: Option<Vec<Operation>>,
}

impl World {
    fn apply(&mut self, batch: &[Operation]) {
        for Operation { key, put } in batch {
            match put {
                Some(value) => self.etcd.insert(key.clone(), value.clone()),
                None => self.etcd.remove(key),
            };
        }
    }

    fn step(&mut self, step: Step, now: Instant) {
        let error = Error::unavailable("simulated");
        match step {
            Step::Publish(key, value) => match self.table.publish(&[key], [value].into()) {
                Some(owner) => drop(self.owners.insert(key, (owner, value))),
                None => assert!(self.owners.contains_key(&key), "refused only if it is published"),
            },
            Step::Update(key, new) => {
                if let Some((owner, value)) = self.owners.get_mut(&key) {
                    *value = new;
                    self.table.want(&[key], owner.id, Some([new].into()));
                }
            }
            Step::Withdraw(key) => {
                if let Some((owner, _)) = self.owners.remove(&key) {
                    self.table.want(&[key], owner.id, None);
                }
            }
            Step::Send(most) => {
                if self.sent.is_none() {
                    self.sent = Some(self.table.batch(now, most, 1 << 20));
                }
            }
            Step::Answer(answer) => {
                let Some(batch) = self.sent.take() else { return };
                match answer {
                    Answer::Done => {
                        self.apply(&batch);
                        self.table.done(&batch);
                    }
                    Answer::Lost => {
                        self.apply(&batch);
                        self.table.postponed(&batch, &error);
                    }
                    Answer::Failed => batch.iter().for_each(|one| self.table.failed(one, &error, now)),
                }
            }
            Step::LeaseLost => {
                self.sent = None;
                self.etcd.clear();
                self.table.ended(Some(&error));
            }
            Step::Meddle(key) => {
                // Batches and verifications follow one another.
                if self.sent.is_none() {
                    self.etcd.remove(&[key][..]);
                    self.table.verify(&self.etcd.keys().cloned().collect(), &error);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn in_the_end_etcd_holds_what_is_wanted_and_nothing_else(steps in prop::collection::vec(step(), 0..60)) {
        let (mut world, mut now) = (World::default(), Instant::now());
        for step in steps {
            world.step(step, now);
        }
        world.step(Step::Answer(Answer::Lost), now);
        for _ in 0..20 {
            now += Duration::from_secs(60);
            world.step(Step::Send(64), now);
            world.step(Step::Answer(Answer::Done), now);
        }
        let wanted: BTreeMap<_, Arc<[u8]>> =
            world.owners.iter().map(|(key, (_, value))| (vec![*key], [*value].into())).collect();
        prop_assert_eq!(&world.etcd, &wanted);
        for (owner, value) in world.owners.values() {
            prop_assert_eq!(&*owner.told.borrow(), &Told::Held([*value].into()));
        }
        prop_assert_eq!(world.table.entries.len(), world.owners.len());
        prop_assert!(world.table.due.is_empty());
    }
}
