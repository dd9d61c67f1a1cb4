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
/// One question in so many meets a fault that both sides survive, one in so many loses its connection, and one hint in so
/// many arrives as it was sent.
const ODD: u32 = 4;
const CUT: u32 = 60;
const WHOLE_HINT: u32 = 4;

/// What it has done.
#[derive(Default)]
pub(super) struct Deeds {
    /// Questions that were sent twice; which of the two answers the gateway got was left to chance.
    pub(super) repeated: AtomicUsize,
    /// Answers that came after their deadline, and all behind them.
    pub(super) late: AtomicUsize,
    /// Pairs of answers that changed places.
    pub(super) swapped: AtomicUsize,
    /// Questions that were booked, and their answers lost with the connection.
    pub(super) lost: AtomicUsize,
    /// Hints that were dropped, sent late, or sent twice.
    pub(super) hints: AtomicUsize,
}

/// What becomes of the answer to a command.
enum Fate {
    Pass,
    /// The command was sent twice.
    Twice,
    Late,
    Swap,
    Cut,
}

/// The way to a store, with a life of its own. It ends with its runtime.
pub(super) struct Meddler {
    pub(super) addr: SocketAddr,
    pub(super) deeds: Arc<Deeds>,
}

impl Meddler {
    pub(super) async fn before(redis: &Redis) -> Self {
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
                tokio::spawn(questions(from, on, tell, done.clone()));
                tokio::spawn(answers(back, to, fates, done.clone()));
            }
        });
        Self { addr, deeds }
    }

    pub(super) fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }
}

/// Passes commands on, and says what is to become of their answers.
async fn questions(
    gateway: OwnedReadHalf,
    mut store: OwnedWriteHalf,
    tell: mpsc::UnboundedSender<Fate>,
    deeds: Arc<Deeds>,
) {
    let mut frames = Frames { from: gateway, read: Vec::new() };
    while let Some(command) = frames.next().await {
        let is_question = command.windows(8).take(16).any(|word| word == b"EVALSHA\r");
        let fate = match fastrand::u32(..CUT) {
            _ if !is_question => Fate::Pass,
            0 => Fate::Cut,
            _ if fastrand::u32(..ODD) > 0 => Fate::Pass,
            dice if dice % 3 == 0 => Fate::Late,
            dice if dice % 3 == 1 => Fate::Swap,
            _ => Fate::Twice,
        };
        let copies = if matches!(fate, Fate::Twice) { 2 } else { 1 };
        deeds.repeated.fetch_add(copies - 1, Relaxed);
        if tell.send(fate).is_err() || store.write_all(&command.repeat(copies)).await.is_err() {
            return;
        }
    }
}

/// Passes answers on as they are fated, and what the store says unasked as chance will have it.
async fn answers(
    store: OwnedReadHalf,
    mut gateway: OwnedWriteHalf,
    mut fates: mpsc::UnboundedReceiver<Fate>,
    deeds: Arc<Deeds>,
) -> Option<()> {
    let mut frames = Frames { from: store, read: Vec::new() };
    let (mut following, mut late_hints) = (None, VecDeque::<Vec<u8>>::new());
    loop {
        let frame = frames.next().await?;
        if frame[0] == b'>' {
            let hint = frame.windows(9).take(24).any(|word| word == b"message\r\n");
            match fastrand::u32(..WHOLE_HINT) {
                0 | 1 if hint => late_hints.push_back(frame),
                2 if hint => gateway.write_all(&frame.repeat(2)).await.ok()?,
                _ => gateway.write_all(&frame).await.ok()?,
            }
            if hint {
                deeds.hints.fetch_add(1, Relaxed);
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
        match fate {
            Fate::Pass => gateway.write_all(&frame).await.ok()?,
            Fate::Twice => {
                let other = frames.next().await?;
                gateway.write_all(if fastrand::bool() { &frame } else { &other }).await.ok()?;
            }
            Fate::Late => {
                deeds.late.fetch_add(1, Relaxed);
                sleep(LATE).await;
                gateway.write_all(&frame).await.ok()?;
            }
            Fate::Swap => {
                match timeout(SWAP_WITHIN, fates.recv()).await {
                    Ok(Some(Fate::Pass)) => {
                        let other = frames.next().await?;
                        deeds.swapped.fetch_add(1, Relaxed);
                        gateway.write_all(&[other, frame].concat()).await.ok()?;
                    }
                    // The next one has a fate of its own, or does not come yet.
                    Ok(next) => {
                        following = next;
                        gateway.write_all(&frame).await.ok()?;
                    }
                    Err(_) => gateway.write_all(&frame).await.ok()?,
                }
            }
            Fate::Cut => {
                deeds.lost.fetch_add(1, Relaxed);
                return None;
            }
        }
    }
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
