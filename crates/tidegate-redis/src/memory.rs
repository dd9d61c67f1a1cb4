//! What this node saw of the ledger: told to a ledger that lost it, also of subjects that nobody asks for any more.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tidegate::{
    fleet::{Node, Rule},
    throttle::Key,
};
use tidegate_core::ledger::{Ask, Reply, Seen};
use tokio::time::Instant;

/// Most subjects that are remembered; of those beyond, whoever holds their credit tells when it asks again.
const MOST: usize = 65_536;
/// The shortest time between two sweeps for want of room.
const SWEEPS_APART: Duration = Duration::from_secs(1);
/// Subjects of a limit before those that count no more are looked for.
const FIRST_SWEEP: usize = 256;

/// What this node saw.
#[derive(Default)]
pub(crate) struct Memory(Mutex<Limits>);

#[derive(Default)]
struct Limits {
    named: HashMap<Arc<str>, Limit>,
    count: usize,
    /// When all limits were swept last for want of room.
    swept: Option<Instant>,
}

struct Limit {
    rule: Rule,
    subjects: HashMap<Key, Subject>,
    sweep_at: usize,
}

/// What was seen of one subject.
#[derive(Clone, Copy)]
struct Subject {
    node: Node,
    seq: u64,
    seen: Seen,
    /// Until when it counts in the ledger.
    until: Instant,
}

/// Something to tell the ledger again.
#[derive(Clone, Debug)]
pub(crate) struct Recollection {
    pub(crate) limit: Arc<str>,
    pub(crate) key: Key,
    pub(crate) rule: Rule,
    pub(crate) ask: Ask,
}

impl Memory {
    /// Remembers an answer that was got at `now`.
    pub(crate) fn learn(&self, limit: &str, key: Key, rule: &Rule, ask: &Ask, reply: &Reply, now: Instant) {
        let mut limits = self.0.lock();
        if limits.count >= MOST && limits.swept.is_none_or(|swept| now >= swept + SWEEPS_APART) {
            limits.sweep(now);
        }
        let Limits { named, count, .. } = &mut *limits;
        if !named.contains_key(limit) {
            named
                .insert(limit.into(), Limit { rule: *rule, subjects: HashMap::new(), sweep_at: FIRST_SWEEP });
        }
        let limit = named.get_mut(limit).expect("it was put there");
        limit.rule = *rule;
        let until = now + Duration::from_micros(reply.reset_in);
        let seen = Seen { epoch: reply.epoch, mark: reply.mark };
        let subject = Subject { node: ask.node, seq: ask.seq, seen, until };
        if let Some(known) = limit.subjects.get_mut(&key) {
            // An answer that was overtaken by a later one says less.
            if known.node != ask.node || known.seq <= ask.seq {
                *known = subject;
            }
            return;
        }
        let before = limit.subjects.len();
        if before >= limit.sweep_at {
            limit.subjects.retain(|_, subject| subject.until > now);
            *count -= before - limit.subjects.len();
            // As much again before the next look, so that looking costs each new subject a constant.
            limit.sweep_at = (limit.subjects.len() * 2).max(FIRST_SWEEP);
        }
        if *count < MOST && until > now {
            limit.subjects.insert(key, subject);
            *count += 1;
        }
    }

    /// What was seen of a subject at last: by whoever asks, or before.
    pub(crate) fn seen(&self, limit: &str, key: Key, by_asker: Seen, now: Instant) -> Seen {
        let limits = self.0.lock();
        let known = limits.named.get(limit).and_then(|limit| limit.subjects.get(&key));
        match known {
            Some(known) if known.until > now && known.seen.epoch > by_asker.epoch => known.seen,
            _ => by_asker,
        }
    }

    /// Whether what was seen of a subject is told again when the ledger loses it.
    pub(crate) fn counts(&self, limit: &str, key: Key, now: Instant) -> bool {
        let limits = self.0.lock();
        let known = limits.named.get(limit).and_then(|limit| limit.subjects.get(&key));
        known.is_some_and(|known| known.until > now)
    }

    /// What the ledger has to be told of subjects whose epoch `is_lost`: questions that ask for nothing.
    ///
    /// Each has the number of the last question that was answered: what was under way then is new to the ledger, and
    /// what was booked before is not.
    pub(crate) fn lost(&self, now: Instant, is_lost: impl Fn(Key, u64) -> bool) -> Vec<Recollection> {
        let limits = self.0.lock();
        let mut all = Vec::new();
        for (name, limit) in &limits.named {
            for (key, subject) in &limit.subjects {
                if subject.until > now && is_lost(*key, subject.seen.epoch) {
                    let Subject { node, seq, seen, .. } = *subject;
                    let ask = Ask { node, seq, least: 0, need: 0, want: 0, back: 0, of: 0, debt: 0, seen };
                    all.push(Recollection { limit: name.clone(), key: *key, rule: limit.rule, ask });
                }
            }
        }
        all
    }
}

impl Limits {
    /// Forgets what counts no more, of all limits.
    fn sweep(&mut self, now: Instant) {
        for limit in self.named.values_mut() {
            limit.subjects.retain(|_, subject| subject.until > now);
            limit.sweep_at = (limit.subjects.len() * 2).max(FIRST_SWEEP);
        }
        self.count = self.named.values().map(|limit| limit.subjects.len()).sum();
        self.swept = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use tidegate::Rate;
    use tidegate_core::{
        Quota,
        ledger::{Book, Epoch},
    };

    use super::*;

    fn rule() -> Rule {
        Rule::of(Quota::of("10/s".parse::<Rate>().unwrap()).build().unwrap()).build().unwrap()
    }

    fn ask(seq: u64) -> Ask {
        Ask { node: Node(7), seq, least: 1, need: 1, want: 5, back: 0, of: 0, debt: 0, seen: Seen::default() }
    }

    fn answer(book: &mut Book, ask: &Ask) -> Reply {
        book.grant(&rule(), ask, 1_764_000_000_000_000, Epoch::WHOLE)
    }

    #[tokio::test(start_paused = true)]
    async fn what_counts_is_told_again_with_the_last_number_and_nothing_else() {
        let (memory, mut book, now) = (Memory::default(), Book::default(), Instant::now());
        let replies = [1, 2, 3].map(|seq| answer(&mut book, &ask(seq)));
        memory.learn("l", Key::of(b"a"), &rule(), &ask(3), &replies[2], now);
        memory.learn("l", Key::of(b"a"), &rule(), &ask(2), &replies[1], now);
        assert!(memory.lost(now, |_, _| false).is_empty());
        let told = memory.lost(now, |key, epoch| key == Key::of(b"a") && epoch == 1);
        let [told] = &told[..] else { panic!("{told:?}") };
        let nothing = Ask { least: 0, need: 0, want: 0, ..ask(3) };
        assert_eq!(told.ask, Ask { seen: Seen { epoch: 1, mark: replies[2].mark }, ..nothing });
        let later = now + Duration::from_micros(replies[2].reset_in);
        assert!(memory.lost(later, |_, _| true).is_empty(), "it counts no more");
        let seen = |by_asker, now| memory.seen("l", Key::of(b"a"), by_asker, now);
        assert_eq!(seen(Seen::default(), now).mark, replies[2].mark, "who asks may have forgotten it");
        let newer = Seen { epoch: 2, ..Seen::default() };
        assert_eq!((seen(newer, now), seen(Seen::default(), later)), (newer, Seen::default()));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_has_a_bound_and_makes_room_for_what_counts() {
        let (memory, mut book, now) = (Memory::default(), Book::default(), Instant::now());
        let reply = answer(&mut book, &ask(1));
        let learn = |limit: &str, n: usize, now| {
            memory.learn(limit, Key::of(&n.to_le_bytes()), &rule(), &ask(1), &reply, now);
        };
        for n in 0..MOST + 10 {
            learn("l", n, now);
        }
        assert_eq!(memory.lost(now, |_, _| true).len(), MOST);
        let later = now + Duration::from_micros(reply.reset_in).max(SWEEPS_APART);
        for n in MOST + 10..MOST + 20 {
            learn("another", n, later);
        }
        assert_eq!(
            memory.lost(later, |_, _| true).len(),
            10,
            "what counts no more makes room for other limits"
        );
    }
}
