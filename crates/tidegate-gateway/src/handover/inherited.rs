//! What a process finds at its start: sockets that systemd or the process before it listens on already.

use std::{
    env, io,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    os::{fd::AsFd as _, unix::net::UnixStream},
    time::Duration,
};

use listenfd::ListenFd;
use rustix::process::getppid;
use socket2::SockRef;

use super::{PREDECESSOR, READY, Role, wire};

/// The longest wait for what was sent before this process began. Default: 10 s.
const RECEIVE_WITHIN: Duration = Duration::from_secs(10);

/// Sockets that were listening before this process began.
#[derive(Debug)]
pub struct Inherited {
    sockets: Vec<Passed>,
    giver: Giver,
}

/// A socket, and what its giver says it is for.
#[derive(Debug)]
struct Passed {
    role: Option<Role>,
    socket: TcpListener,
    addr: SocketAddr,
}

/// Who listened before.
#[derive(Debug)]
enum Giver {
    Nobody,
    /// systemd, or whoever else sets `LISTEN_FDS`.
    Systemd,
    /// The process that started this one in its place, and the way to it.
    Predecessor(UnixStream),
}

/// Why sockets that were passed cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// What `LISTEN_FDS` speaks of.
    #[error(
        "socket {index} of LISTEN_FDS cannot be used: {source}; the unit needs ListenStream= with an IP address and a port"
    )]
    Activation {
        /// Which, from 0.
        index: usize,
        /// What is wrong with it.
        source: io::Error,
    },
    /// What the process before this one sent.
    #[error(
        "the process before this one (pid {pid}) passes no sockets: {source}; start without {PREDECESSOR}"
    )]
    Predecessor {
        /// Its id.
        pid: i32,
        /// What is wrong.
        source: io::Error,
    },
}

/// systemd listens where the configuration does not.
#[derive(Debug, thiserror::Error)]
#[error(
    "systemd listens on {passed}, which is neither listen.http ({http}) nor listen.admin ({admin}): write the same \
     address in ListenStream= and in the configuration"
)]
pub struct Unclaimed {
    passed: SocketAddr,
    http: SocketAddr,
    admin: SocketAddr,
}

impl Inherited {
    /// Takes what was passed to this process; nothing for one that was started by hand. To be called once, before the
    /// process has threads: `LISTEN_FDS` and `LISTEN_PID` leave the environment.
    ///
    /// # Errors
    /// When something was passed that is no listening socket.
    pub fn take() -> Result<Self, InheritError> {
        let mut activated = ListenFd::from_env();
        let parent = getppid().map(|pid| pid.as_raw_nonzero().get());
        let claimed = env::var(PREDECESSOR).ok().and_then(|pid| pid.parse::<i32>().ok());
        // A variable that some process in between inherited speaks of somebody else.
        if let Some(pid) = claimed.filter(|pid| parent == Some(*pid)) {
            return Self::from_predecessor().map_err(|source| InheritError::Predecessor { pid, source });
        }
        let mut sockets = Vec::new();
        for index in 0..activated.len() {
            let failed = |source| InheritError::Activation { index, source };
            if let Some(socket) = activated.take_tcp_listener(index).map_err(failed)? {
                sockets.push(Passed::new(None, socket).map_err(failed)?);
            }
        }
        let giver = if sockets.is_empty() { Giver::Nobody } else { Giver::Systemd };
        Ok(Self { sockets, giver })
    }

    fn from_predecessor() -> io::Result<Self> {
        Self::received(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
    }

    pub(super) fn received(channel: UnixStream) -> io::Result<Self> {
        channel.set_read_timeout(Some(RECEIVE_WITHIN))?;
        let sockets = wire::receive(&channel)?.into_iter();
        let sockets = sockets.map(|(role, socket)| Passed::new(Some(role), socket));
        Ok(Self { sockets: sockets.collect::<io::Result<_>>()?, giver: Giver::Predecessor(channel) })
    }

    /// Takes the socket that listens on `wanted` for `role`. A port 0 is any port.
    pub fn claim(&mut self, role: Role, wanted: SocketAddr) -> Option<TcpListener> {
        let is_it = |passed: &Passed| {
            let is_any_port = wanted.port() == 0 && passed.role.is_some() && passed.addr.ip() == wanted.ip();
            passed.role.is_none_or(|its| its == role) && (passed.addr == wanted || is_any_port)
        };
        let index = self.sockets.iter().position(is_it)?;
        Some(self.sockets.swap_remove(index).socket)
    }

    /// What nobody claimed is closed here, and goes on listening where it came from. That a predecessor listened elsewhere
    /// is a change of the configuration; that systemd does is a mistake.
    ///
    /// # Errors
    /// When systemd listens where neither `http` nor `admin` is.
    pub fn settle(&mut self, http: SocketAddr, admin: SocketAddr) -> Result<(), Unclaimed> {
        match (self.sockets.drain(..).next(), &self.giver) {
            (Some(Passed { addr: passed, .. }), Giver::Systemd) => Err(Unclaimed { passed, http, admin }),
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// Whether this process takes the place of another that still serves.
    pub fn is_successor(&self) -> bool {
        matches!(self.giver, Giver::Predecessor(_))
    }

    /// Tells the process before this one, if there is one, that this one serves.
    pub fn serving(self) {
        if let Giver::Predecessor(mut channel) = self.giver
            && let Err(error) = channel.write_all(&[READY])
        {
            tracing::warn!(%error, "the process before this one is gone: this one serves alone");
        }
    }
}

impl Passed {
    fn new(role: Option<Role>, socket: TcpListener) -> io::Result<Self> {
        if !SockRef::from(&socket).is_listener()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen (Accept=yes?)"));
        }
        let addr = socket.local_addr()?;
        Ok(Self { role, socket, addr })
    }
}
