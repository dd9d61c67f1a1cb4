//! A client, or a server's end of a connection, that says exactly what it is told to, byte for byte.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::within;

/// Most bytes kept of what the peer says.
const MOST: usize = 16 << 20;

/// One end of a connection.
pub struct Raw {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Raw {
    /// Connects.
    pub async fn connect(addr: SocketAddr) -> Self {
        Self::over(within("connecting", TcpStream::connect(addr)).await.expect("the peer listens"))
    }

    /// Takes over a connection.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, unread: Vec::new() }
    }

    /// Connects, sends, and reads all until the peer closes or resets the connection.
    pub async fn exchange(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
        let mut raw = Self::connect(addr).await;
        raw.try_send(bytes).await;
        String::from_utf8_lossy(&raw.rest().await).into_owned()
    }

    /// Sends.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        assert!(self.try_send(bytes).await, "the peer closed the connection");
    }

    /// Sends; false when the peer has closed the connection.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        within("sending", self.stream.write_all(bytes.as_ref())).await.is_ok()
    }

    /// Says that there is no more to come.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Reads up to and including `end`.
    pub async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end.as_bytes()) {
                let text = self.unread.drain(..at + end.len()).collect();
                return String::from_utf8(text).unwrap();
            }
            let more = self.read().await;
            assert!(more > 0, "closed before {end:?}: {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// Reads a message head.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// Reads so many bytes.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert!(self.read().await > 0, "closed after {} of {count} bytes", self.unread.len());
        }
        self.unread.drain(..count).collect()
    }

    /// Reads until the peer closes or resets the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.read().await > 0 {}
        std::mem::take(&mut self.unread)
    }

    async fn read(&mut self) -> usize {
        assert!(self.unread.len() < MOST, "the peer does not stop talking");
        let unread = &mut self.unread;
        within("reading", self.stream.read_buf(unread)).await.unwrap_or(0)
    }
}
