//! Questions and answers as datagrams: words of 64 bits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tidegate::{
    fleet::{
        Account, Adjusted, Adjustment, Hint, Ledger, LedgerError, LedgerErrorKind, Node, Rule, Subject,
        Tidings,
    },
    throttle::Key,
};
use tidegate_core::ledger::{Ask, Mark, Reply, Seen};
use tokio::sync::{broadcast, oneshot};
use turmoil::net::UdpSocket;

pub(crate) const STORE: (&str, u16) = ("store", 6379);
/// The first word of a hint, where answers have a number.
const HINT: u64 = u64::MAX;

pub(crate) type Question = (u64, Key, Ask);

fn pack(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn unpack(bytes: &[u8]) -> Vec<u64> {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

pub(crate) fn question((number, key, ask): &Question) -> Vec<u8> {
    let bits = key.bits();
    let Seen { epoch, mark } = ask.seen;
    let [least, need, want, back, debt] = [ask.least, ask.need, ask.want, ask.back, ask.debt].map(u64::from);
    let key = [(bits >> 64) as u64, bits as u64];
    pack(&[
        *number, key[0], key[1], ask.node.0, ask.seq, least, need, want, back, ask.of, debt, epoch, mark.of,
        mark.level,
    ])
}

pub(crate) fn read_question(bytes: &[u8]) -> Question {
    let [number, high, low, node, seq, least, need, want, back, of, debt, epoch, mark_of, level] =
        unpack(bytes)[..]
    else {
        panic!("a question has 14 words")
    };
    let seen = Seen { epoch, mark: Mark { of: mark_of, level } };
    let [least, need, want, back, debt] = [least, need, want, back, debt].map(|word| word as u32);
    let key = Key::from_bits(u128::from(high) << 64 | u128::from(low));
    (number, key, Ask { node: Node(node), seq, least, need, want, back, of, debt, seen })
}

pub(crate) fn answer(number: u64, reply: &Reply) -> Vec<u8> {
    let Reply { granted, of, life, remaining, reset_in, retry_in, nodes, mark, epoch } = *reply;
    let [granted, remaining, nodes] = [granted, remaining, nodes].map(u64::from);
    pack(&[number, granted, of, life, remaining, reset_in, retry_in, nodes, mark.of, mark.level, epoch])
}

pub(crate) fn exhausted(key: Key) -> Vec<u8> {
    pack(&[HINT, (key.bits() >> 64) as u64, key.bits() as u64])
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Reply>>>>;

/// The store as a node sees it.
pub(crate) struct Remote {
    socket: Arc<UdpSocket>,
    waiting: Waiting,
    hints: broadcast::Sender<Hint>,
    /// One question in so many is sent twice.
    repeats: u32,
}

impl Remote {
    pub(crate) async fn connect(repeats: u32) -> Self {
        let socket = Arc::new(UdpSocket::bind(("0.0.0.0", 0)).await.expect("a free port"));
        let (waiting, hints) = (Waiting::default(), broadcast::Sender::new(64));
        let (answers, told, tell) = (socket.clone(), waiting.clone(), hints.clone());
        tokio::spawn(async move {
            let mut bytes = [0; 256];
            while let Ok((length, _)) = answers.recv_from(&mut bytes).await {
                let words = unpack(&bytes[..length]);
                if let [HINT, high, low] = words[..] {
                    let key = Key::from_bits(u128::from(high) << 64 | u128::from(low));
                    let tidings = Tidings::Exhausted(Duration::from_millis(100));
                    let _ = tell.send(Hint { limit: "limit".into(), key, tidings });
                } else if let Some(tell) = told.lock().expect("no panics here").remove(&words[0]) {
                    let _ = tell.send(reply(&words));
                }
            }
        });
        Self { socket, waiting, hints, repeats }
    }
}

fn reply(words: &[u64]) -> Reply {
    let [_, granted, of, life, remaining, reset_in, retry_in, nodes, mark_of, level, epoch] = words[..]
    else {
        panic!("an answer has 11 words")
    };
    let [granted, remaining, nodes] = [granted, remaining, nodes].map(|word| word as u32);
    let mark = Mark { of: mark_of, level };
    Reply { granted, of, life, remaining, reset_in, retry_in, nodes, mark, epoch }
}

impl Ledger for Remote {
    async fn ask(&self, subject: Subject<'_>, _: &Rule, ask: &Ask) -> Result<Reply, LedgerError> {
        let (tell, told) = oneshot::channel();
        self.waiting.lock().expect("no panics here").insert(ask.seq, tell);
        let bytes = question(&(ask.seq, subject.key, *ask));
        let copies = if self.repeats > 0 && fastrand::u32(..self.repeats) == 0 { 2 } else { 1 };
        for _ in 0..copies {
            self.socket
                .send_to(&bytes, STORE)
                .await
                .map_err(|error| LedgerError::new(LedgerErrorKind::Unreachable, error.to_string()))?;
        }
        told.await.map_err(|_| LedgerError::new(LedgerErrorKind::Unreachable, "the node ends"))
    }

    async fn inspect(&self, _: Subject<'_>, _: &Rule) -> Result<Account, LedgerError> {
        Err(LedgerError::new(LedgerErrorKind::Broken, "not simulated"))
    }

    async fn adjust(&self, _: Subject<'_>, _: &Rule, _: Adjustment) -> Result<Adjusted, LedgerError> {
        Err(LedgerError::new(LedgerErrorKind::Broken, "not simulated"))
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.hints.subscribe()
    }
}
