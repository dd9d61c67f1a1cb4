//! An upstream that counts what arrives, by seconds of the clock that the store reads as well: all share one machine.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::Outcome;

/// Calls of a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Second {
    /// Sent and arrived in it: admitted in it, then.
    pub surely: u64,
    /// Arrived in it, and sent in an earlier one.
    pub perhaps: u64,
}

#[derive(Clone, Default)]
pub struct Upstream(Arc<Mutex<BTreeMap<u64, Second>>>);

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const SENT: &[u8] = b"\r\nx-sent: ";

pub fn second() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs()
}

impl Upstream {
    pub async fn start(address: SocketAddr) -> Outcome<Self> {
        let (listener, counts) = (TcpListener::bind(address).await?, Self::default());
        let upstream = counts.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let upstream = upstream.clone();
                tokio::spawn(async move { upstream.serve(stream).await });
            }
        });
        Ok(counts)
    }

    pub fn seconds(&self) -> BTreeMap<u64, Second> {
        self.0.lock().expect("no panic while it is held").clone()
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut head = Vec::with_capacity(4096);
        while let Ok(1..) = stream.read_buf(&mut head).await {
            let mut from = 0;
            while let Some(end) = find(&head[from..], b"\r\n\r\n") {
                self.count(&head[from..from + end]);
                from += end + 4;
                if stream.write_all(ANSWER).await.is_err() {
                    return;
                }
            }
            head.drain(..from);
        }
    }

    fn count(&self, head: &[u8]) {
        let arrived = second();
        let sent = find(head, SENT).map(|at| &head[at + SENT.len()..]).and_then(|rest| {
            let digits = rest.split(|byte| !byte.is_ascii_digit()).next()?;
            std::str::from_utf8(digits).ok()?.parse::<u64>().ok()
        });
        let mut seconds = self.0.lock().expect("no panic while it is held");
        let calls = seconds.entry(arrived).or_default();
        if sent == Some(arrived) {
            calls.surely += 1;
        } else {
            calls.perhaps += 1;
        }
    }
}

pub fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
