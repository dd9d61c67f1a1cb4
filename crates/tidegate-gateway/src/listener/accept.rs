//! Taking connections and giving each to the worker with the fewest; and the end: no new ones, then none.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use rustix::io::Errno;
use socket2::SockRef;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    Handler,
    conn::{Speaks, serve},
    io::{ClientIo, Held},
    limits::{Limits, LiveLimits},
    peer::Peer,
    stats::{ListenerStats, count},
    stop::{Stage, Stop},
    tls::{LiveTls, agreed},
};
use crate::workers::Workers;

/// Connections that the system holds for us while we are busy; it may hold fewer.
const BACKLOG: i32 = 4096;
/// The pause when the system has no connection to give: what it lacks comes back when connections end.
const PAUSE: Duration = Duration::from_millis(100);
/// The time that idle connections have to close, however short the drain.
const IDLE_WITHIN: Duration = Duration::from_millis(100);
/// The time that connections have to be dropped once they are cut off.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(1);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {source}; {remedy}")]
pub struct BindError {
    /// The address.
    pub addr: SocketAddr,
    /// What the system says.
    pub source: io::Error,
    /// What to do.
    pub remedy: &'static str,
}

/// A bound address. Connections wait in the system until [`Listener::run`].
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    addr: SocketAddr,
    stats: Arc<ListenerStats>,
}

/// What a listener serves with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The bounds of each connection.
    pub limits: LiveLimits,
    /// TLS; none for plain text.
    pub tls: Option<Arc<LiveTls>>,
    /// Cancelled to end: nothing new is taken, what is in flight may finish.
    pub drain: CancellationToken,
    /// Cancelled once another process takes new connections from the same socket: as `drain`, but idle connections may make
    /// one more call each within the drain time, whose answer says that it is the last.
    pub handed_over: CancellationToken,
    /// How long it may take to finish.
    pub drain_time: Duration,
}

/// How a listener ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Everything in flight finished.
    Finished,
    /// So many connections did not end in time and were cut off.
    CutOff(usize),
}

impl Listener {
    /// Binds an address; port 0 takes any free port.
    ///
    /// # Errors
    /// When the address is taken, not this machine's, or not allowed.
    pub fn bind(addr: SocketAddr) -> Result<Self, BindError> {
        TcpListener::bind(addr).and_then(Self::adopt).map_err(|source| BindError {
            addr,
            remedy: remedy(&source),
            source,
        })
    }

    /// Listens on a socket that somebody else bound.
    ///
    /// # Errors
    /// What the system says.
    pub fn adopt(socket: TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // The standard library asks for a shorter queue; asking again lengthens it.
        SockRef::from(&socket).listen(BACKLOG)?;
        let addr = socket.local_addr()?;
        Ok(Self { socket, addr, stats: Arc::default() })
    }

    /// Another handle of its socket, to be handed to another process. The address is taken for as long as one lives.
    ///
    /// # Errors
    /// When there is no file descriptor left.
    pub fn share(&self) -> io::Result<TcpListener> {
        self.socket.try_clone()
    }

    /// The address, with the port that was taken.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it counts.
    pub fn stats(&self) -> Arc<ListenerStats> {
        Arc::clone(&self.stats)
    }

    /// Serves until told to drain and drained.
    ///
    /// Once draining, the address is free at once; requests in flight finish, with `Connection: close` or GOAWAY, idle
    /// connections close, and what is left after the drain time is dropped, tunnels excepted, which are their handler's.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    ///
    /// # Cancel safety
    /// If dropped, nothing new is taken and open connections are left to the workers.
    pub async fn run<H: Handler>(
        self,
        handler: Arc<H>,
        workers: &Workers,
        settings: Settings,
    ) -> io::Result<Drained> {
        let Self { socket, stats, .. } = self;
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let Settings { limits, tls, drain, handed_over, drain_time } = settings;
        let serving = Serving { handler, stop: Arc::default(), stats: Arc::clone(&stats), limits, tls };
        let mut drained = pin!(async {
            tokio::select! {
                () = drain.cancelled() => {}
                () = handed_over.cancelled() => {}
            }
        });
        loop {
            let accepted = tokio::select! {
                biased;
                () = drained.as_mut() => break,
                accepted = socket.accept() => accepted,
            };
            let pause = match accepted.and_then(|(stream, addr)| Ok((stream.into_std()?, addr))) {
                Ok((stream, addr)) => {
                    serving.place(stream, addr, workers);
                    continue;
                }
                Err(error) if is_shortage(&error) => {
                    count(&stats.accept_errors);
                    tracing::warn!(%error, open = stats.open.load(Relaxed), "cannot take a connection");
                    sleep(PAUSE)
                }
                // The client was gone before it was taken, or the network told of an error of its own (accept(2)).
                Err(_) => continue,
            };
            tokio::select! {
                biased;
                () = drained.as_mut() => break,
                () = pause => {}
            }
        }
        drop(socket);
        let end = Instant::now() + drain_time;
        if !drain.is_cancelled() {
            serving.stop.raise(Stage::HandedOver);
            tokio::select! {
                ended = timeout_at(end, stats.none_open()) => if ended.is_ok() {
                    return Ok(Drained::Finished);
                },
                () = drain.cancelled() => {}
            }
        }
        serving.stop.raise(Stage::Draining);
        // Those that are idle at the end of the drain time go before those with a call in flight are counted.
        if timeout_at(end.max(Instant::now() + IDLE_WITHIN), stats.none_open()).await.is_ok() {
            return Ok(Drained::Finished);
        }
        let left = stats.open.load(Relaxed);
        serving.stop.raise(Stage::Aborting);
        let _ = timeout(CUT_OFF_WITHIN, stats.none_open()).await;
        Ok(Drained::CutOff(left))
    }
}

/// What the connections of a listener share.
struct Serving<H> {
    handler: Arc<H>,
    stop: Arc<Stop>,
    stats: Arc<ListenerStats>,
    limits: LiveLimits,
    tls: Option<Arc<LiveTls>>,
}

impl<H: Handler> Serving<H> {
    fn place(&self, stream: TcpStream, addr: SocketAddr, workers: &Workers) {
        let limits = **self.limits.load();
        if self.stats.open.load(Relaxed) >= limits.connections {
            count(&self.stats.refused);
            return;
        }
        let worker = workers.least_loaded();
        let held =
            Held { stats: Arc::clone(&self.stats), _open: self.stats.open(), _placed: workers.place(worker) };
        let (handler, stop) = (Arc::clone(&self.handler), Arc::clone(&self.stop));
        match self.tls.as_ref().map(|tls| TlsAcceptor::from(tls.current())) {
            None => workers.spawn_on(worker, move || plain(handler, stop, stream, addr, held, limits)),
            Some(tls) => {
                workers.spawn_on(worker, move || encrypted(handler, stop, stream, addr, held, limits, tls));
            }
        }
    }
}

/// Takes a connection over on its worker.
fn arrive(stream: TcpStream) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    Ok((tokio::net::TcpStream::from_std(stream)?, canonical(local)))
}

/// An IPv4 address that came in by an IPv6 socket is still an IPv4 address.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

async fn plain<H: Handler>(
    handler: Arc<H>,
    stop: Arc<Stop>,
    stream: TcpStream,
    addr: SocketAddr,
    held: Held,
    limits: Limits,
) {
    // An error says that the client is gone already.
    let Ok((stream, local)) = arrive(stream) else { return };
    let peer = Arc::new(Peer::new(canonical(addr), local, None));
    let io = ClientIo::new(stream, Arc::clone(&peer), held);
    serve(handler, stop, peer, io, limits, Speaks::FirstBytes).await;
}

async fn encrypted<H: Handler>(
    handler: Arc<H>,
    stop: Arc<Stop>,
    stream: TcpStream,
    addr: SocketAddr,
    held: Held,
    limits: Limits,
    tls: TlsAcceptor,
) {
    let Ok((stream, local)) = arrive(stream) else { return };
    // On the heap, since it is large and soon over.
    let handshake = Box::pin(timeout_at(Instant::now() + limits.header_timeout, tls.accept(stream)));
    let stream = tokio::select! {
        biased;
        () = stop.reached(Stage::Draining) => return,
        done = handshake => match done {
            Ok(Ok(stream)) => stream,
            failed => {
                tracing::debug!(client = %addr, error = ?failed.err(), "no TLS connection");
                count(&held.stats.tls_failures);
                return;
            }
        }
    };
    let info = agreed(stream.get_ref().1);
    let speaks = match info.alpn.as_deref() {
        Some(b"h2") => Speaks::Http2,
        Some(_) => Speaks::Http1,
        None => Speaks::FirstBytes,
    };
    let peer = Arc::new(Peer::new(canonical(addr), local, Some(info)));
    let io = ClientIo::new(Box::new(stream), Arc::clone(&peer), held);
    serve(handler, stop, peer, io, limits, speaks).await;
}

/// Whether the machine lacks something: then trying again at once would only spin.
fn is_shortage(error: &io::Error) -> bool {
    let lacks = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| lacks.contains(&errno))
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process has it: stop that one or choose another port",
        io::ErrorKind::AddrNotAvailable => {
            "it is not an address of this machine: 0.0.0.0 or [::] takes all of them"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege (CAP_NET_BIND_SERVICE): grant it or choose a higher port"
        }
        _ => "choose another address",
    }
}
