//! Stands between gateways and a store and does to their messages what networks and servers do, at random: questions
//! arrive twice, answers are late, lost or change places, hints are dropped, late or repeated.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::servers::Redis;

/// Longer than a gateway waits for its store.
const LATE: Duration = Duration::from_millis(80);
/// How long an answer waits for another one to change places with.
const SWAP_WITHIN: Duration = Duration::from_millis(20);
/// One question in so many meets a fault; of those that would lose their connection, one in so many does.
const ODD: u32 = 3;
const CUT: u32 = 8;

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Questions arrive twice; which of the two answers the gateway gets is left to chance.
    Twice,
    /// So does credit that is handed back, all of it.
    BackTwice,
    /// Answers come after their deadline, and all behind them.
    Late,
    /// Answers change places.
    Swap,
    /// Questions are booked, and their answers lost with the connection.
    Cut,
    /// Hints are dropped, come late and after newer ones, or twice.
    Hints,
}

impl Fault {
    pub(super) const ALL: [Self; 6] =
        [Self::Twice, Self::BackTwice, Self::Late, Self::Swap, Self::Cut, Self::Hints];
}

/// How often it did what.
#[derive(Default)]
pub(super) struct Deeds([AtomicUsize; 6]);

impl Deeds {
    pub(super) fn of(&self, fault: Fault) -> usize {
        self.0[fault as usize].load(Relaxed)
    }

    fn add(&self, fault: Fault) {
        self.0[fault as usize].fetch_add(1, Relaxed);
    }
}

/// The way to a store, with a life of its own. It ends with its runtime.
pub(super) struct Meddler {
    pub(super) addr: SocketAddr,
    pub(super) deeds: Arc<Deeds>,
}

impl Meddler {
    pub(super) async fn before(redis: &Redis, faults: &'static [Fault]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (addr, store) = (listener.local_addr().unwrap(), redis.port);
        let deeds = Arc::new(Deeds::default());
        let done = deeds.clone();
        tokio::spawn(async move {
            while let Ok((gateway, _)) = listener.accept().await {
                let Ok(store) = TcpStream::connect(("127.0.0.1", store)).await else { continue };
                for stream in [&gateway, &store] {
                    stream.set_nodelay(true).unwrap();
                }
                let ((from, to), (back, on)) = (gateway.into_split(), store.into_split());
                let (tell, fates) = mpsc::unbounded_channel();
                // Each half ends the other: with the channel, or with the socket.
                tokio::spawn(questions(from, on, tell, faults));
                tokio::spawn(answers(back, to, fates, faults.contains(&Fault::Hints), done.clone()));
            }
        });
        Self { addr, deeds }
    }

    pub(super) fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }
}

/// Passes commands on, and says what is to become of their answers, if anything is.
async fn questions(
    gateway: OwnedReadHalf,
    mut store: OwnedWriteHalf,
    tell: mpsc::UnboundedSender<Option<Fault>>,
    faults: &'static [Fault],
) {
    let mut frames = Frames { from: gateway, read: Vec::new() };
    while let Some(command) = frames.next().await {
        let is_question = command.windows(8).take(16).any(|word| word == b"EVALSHA\r");
        let fate = fastrand::choice(faults).filter(|_| is_question && fastrand::u32(..ODD) == 0);
        let fate = match fate.copied() {
            _ if faults.contains(&Fault::BackTwice) && hands_back(&command) => Some(Fault::BackTwice),
            Some(Fault::BackTwice) => None,
            Some(Fault::Cut) if fastrand::u32(..CUT) > 0 => None,
            Some(Fault::Hints) => None,
            fate => fate,
        };
        let copies = if matches!(fate, Some(Fault::Twice | Fault::BackTwice)) { 2 } else { 1 };
        if tell.send(fate).is_err() || store.write_all(&command.repeat(copies)).await.is_err() {
            return;
        }
    }
}

/// Passes answers on as they are fated, and what the store says unasked, as chance will have it or as it comes.
async fn answers(
    store: OwnedReadHalf,
    mut gateway: OwnedWriteHalf,
    mut fates: mpsc::UnboundedReceiver<Option<Fault>>,
    meddles_with_hints: bool,
    deeds: Arc<Deeds>,
) -> Option<()> {
    let mut frames = Frames { from: store, read: Vec::new() };
    let (mut following, mut late_hints) = (None, VecDeque::<Vec<u8>>::new());
    loop {
        let frame = frames.next().await?;
        if frame[0] == b'>' {
            let hint = meddles_with_hints && frame.windows(9).take(24).any(|word| word == b"message\r\n");
            match fastrand::u32(..4) {
                0 | 1 if hint => late_hints.push_back(frame),
                2 if hint => gateway.write_all(&frame.repeat(2)).await.ok()?,
                _ => gateway.write_all(&frame).await.ok()?,
            }
            if hint {
                deeds.add(Fault::Hints);
            }
            // Of those kept back some come in their turn after newer ones, and some never.
            if late_hints.len() > 3 {
                let order = [2, 0].map(|at| late_hints[at].clone()).concat();
                late_hints.clear();
                gateway.write_all(&order).await.ok()?;
            }
            continue;
        }
        let fate = match following.take() {
            Some(fate) => fate,
            None => fates.recv().await?,
        };
        if let Some(fault) = fate.filter(|fault| *fault != Fault::Swap) {
            deeds.add(fault);
        }
        match fate {
            None | Some(Fault::Hints) => gateway.write_all(&frame).await.ok()?,
            Some(Fault::Twice | Fault::BackTwice) => {
                let other = frames.next().await?;
                gateway.write_all(if fastrand::bool() { &frame } else { &other }).await.ok()?;
            }
            Some(Fault::Late) => {
                sleep(LATE).await;
                gateway.write_all(&frame).await.ok()?;
            }
            Some(Fault::Swap) => match timeout(SWAP_WITHIN, fates.recv()).await {
                Ok(Some(None)) => {
                    let other = frames.next().await?;
                    deeds.add(Fault::Swap);
                    gateway.write_all(&[other, frame].concat()).await.ok()?;
                }
                // The next one has a fate of its own, or does not come yet.
                Ok(next) => {
                    following = next;
                    gateway.write_all(&frame).await.ok()?;
                }
                Err(_) => gateway.write_all(&frame).await.ok()?,
            },
            Some(Fault::Cut) => return None,
        }
    }
}

/// Whether a command gives credit back to the ledger: the verb and the units stand at their places in it.
fn hands_back(command: &[u8]) -> bool {
    let words: Vec<&[u8]> = command.split(|byte| *byte == b'\n').skip(2).step_by(2).collect();
    words.get(5) == Some(&&b"grant\r"[..]) && words.get(25).is_some_and(|units| *units != b"0\r")
}

/// Messages of RESP as they come, each with all that is in it.
struct Frames {
    from: OwnedReadHalf,
    read: Vec<u8>,
}

impl Frames {
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(length) = frame(&self.read) {
                let rest = self.read.split_off(length);
                return Some(std::mem::replace(&mut self.read, rest));
            }
            if self.from.read_buf(&mut self.read).await.ok()? == 0 {
                return None;
            }
        }
    }
}

/// The length of the message that `bytes` begin with, if all of it is there.
fn frame(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|end| end == b"\r\n")?;
    let number = || std::str::from_utf8(&bytes[1..line]).ok()?.parse::<i64>().ok();
    let mut length = line + 2;
    match bytes[0] {
        b'$' | b'=' | b'!' => {
            if let Ok(text) = usize::try_from(number()?) {
                length += text + 2;
            }
        }
        kind @ (b'*' | b'~' | b'>' | b'%' | b'|') => {
            let each = if matches!(kind, b'%' | b'|') { 2 } else { 1 };
            for _ in 0..number()?.max(0) * each {
                length += frame(&bytes[length..])?;
            }
        }
        _ => {}
    }
    (length <= bytes.len()).then_some(length)
}

#[test]
fn messages_are_told_apart() {
    for whole in [
        &b"+OK\r\n"[..],
        b":7\r\n",
        b"_\r\n",
        b"$3\r\na\r\n\r\n",
        b"$-1\r\n",
        b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
        b"%1\r\n+server\r\n+redis\r\n",
        b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$4\r\nlost\r\n",
    ] {
        assert_eq!(frame(&[whole, b"+next\r\n"].concat()), Some(whole.len()));
        for cut in 0..whole.len() {
            assert_eq!(frame(&whole[..cut]), None, "{:?}", &whole[..cut]);
        }
    }
}
