//! Who is at the other end of a connection, and what the connection is doing.

use std::{
    net::SocketAddr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use rustls::ProtocolVersion;

use crate::proxy::forwarded::Told;

/// The client's end of one connection.
#[derive(Debug)]
pub struct Peer {
    /// Where it comes from; an IPv4 address is never written as IPv6.
    pub addr: SocketAddr,
    /// Where it was accepted.
    pub local: SocketAddr,
    /// What TLS agreed on; none on plain text.
    pub tls: Option<TlsInfo>,
    pub(super) activity: Activity,
    told: OnceLock<Told>,
}

/// What TLS agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// The name that the client asked for.
    pub sni: Option<String>,
    /// The application protocol, like `h2`.
    pub alpn: Option<Vec<u8>>,
    /// The version of TLS.
    pub version: Option<ProtocolVersion>,
}

impl Peer {
    /// An end of a connection that nothing happened on yet.
    pub fn new(addr: SocketAddr, local: SocketAddr, tls: Option<TlsInfo>) -> Self {
        Self { addr, local, tls, activity: Activity::default(), told: OnceLock::new() }
    }

    /// What upstreams are told of this client, written once.
    pub(crate) fn told(&self) -> &Told {
        self.told.get_or_init(|| Told::new(self.addr.ip(), self.tls.is_some()))
    }

    /// Exchanges that have not ended yet: requests whose response body is not wholly handed over.
    pub fn in_flight(&self) -> u32 {
        self.activity.in_flight.load(Relaxed)
    }
}

/// What a connection is doing. Written by its parts as they go, read by its watch when it rests. All on one worker, so
/// the order of memory does not matter.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Exchanges that have not ended.
    pub(super) in_flight: AtomicU32,
    /// Exchanges begun.
    pub(super) begun: AtomicU64,
    /// Where the next byte of the client belongs: an [`Input`].
    input: AtomicU8,
    /// Whether we wait for the client to send.
    pub(super) awaits_read: AtomicBool,
    /// Whether we wait for the client to read.
    pub(super) awaits_write: AtomicBool,
    /// Times the client went on reading after it had stopped.
    pub(super) writes_resumed: AtomicU64,
    /// Bytes of request bodies.
    pub(super) body_bytes: AtomicU64,
    /// Whether the connection only waits for the client to close it.
    pub(super) lingers: AtomicBool,
    /// What the handler decided on a request for another protocol: an [`Agreement`].
    agreement: AtomicU8,
    /// Whether bytes came before that was decided.
    pub(super) blind: AtomicBool,
}

/// Where the next byte of the client belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Between requests, or to a protocol that keeps its own order.
    Between = 0,
    /// In a request head.
    Head = 1,
    /// In a request body.
    Body = 2,
}

/// What became of a request for another protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agreement {
    /// Nothing yet.
    Open = 0,
    /// It stays HTTP.
    Refused = 1,
    /// It changes.
    Agreed = 2,
}

impl Activity {
    pub(super) fn input(&self) -> Input {
        match self.input.load(Relaxed) {
            1 => Input::Head,
            2 => Input::Body,
            _ => Input::Between,
        }
    }

    pub(super) fn set_input(&self, input: Input) {
        self.input.store(input as u8, Relaxed);
    }

    /// The decision, which is taken out.
    pub(super) fn take_agreement(&self) -> Agreement {
        match self.agreement.load(Relaxed) {
            0 => return Agreement::Open,
            1 => self.agreement.store(0, Relaxed),
            _ => return Agreement::Agreed,
        }
        Agreement::Refused
    }

    pub(super) fn agree(&self, agreement: Agreement) {
        self.agreement.store(agreement as u8, Relaxed);
    }
}
