//! What systemd is told of the life of a service, as sd_notify(3) has it: one datagram a change.

use std::{
    env, io,
    os::unix::net::{SocketAddr, UnixDatagram},
};

use rustix::time::{ClockId, clock_gettime};

/// Who wants to know how the process fares; nobody, when `NOTIFY_SOCKET` is not set.
#[derive(Debug)]
pub struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    /// The one that the environment names.
    pub fn from_env() -> Self {
        let Some(path) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Self(None);
        };
        let open = || {
            let socket = UnixDatagram::unbound()?;
            // A reader that is stuck must not stop the gateway.
            socket.set_nonblocking(true)?;
            Ok((socket, address(&path)?))
        };
        Self(open().inspect_err(|error: &io::Error| cannot(error)).ok())
    }

    /// It serves: after the start, and after a reload.
    pub fn ready(&self) {
        self.say("READY=1\nSTATUS=serving");
    }

    /// It takes over another configuration.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// It ends.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=draining");
    }

    /// Another process is the service from now on; this one finishes what it has.
    pub fn succeeded_by(&self, pid: u32) {
        self.say(&format!("MAINPID={pid}\nREADY=1\nSTATUS=serving"));
    }

    fn say(&self, text: &str) {
        if let Some((socket, address)) = &self.0
            && let Err(error) = socket.send_to_addr(text.as_bytes(), address)
        {
            cannot(&error);
        }
    }
}

fn cannot(error: &io::Error) {
    tracing::warn!(%error, "cannot tell NOTIFY_SOCKET how the service fares");
}

/// A path, or an abstract name after `@`.
fn address(path: &std::ffi::OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    {
        use std::os::{linux::net::SocketAddrExt as _, unix::ffi::OsStrExt as _};
        if let Some(name) = path.as_bytes().strip_prefix(b"@") {
            return SocketAddr::from_abstract_name(name);
        }
    }
    SocketAddr::from_pathname(path)
}
