//! Listening sockets that outlive a process. They come from systemd or from the process before this one, and go on to
//! the next: whoever has them, a connection that comes in waits in the same queue.

mod inherited;
mod notify;
mod successor;
mod upgrade;
mod wire;

pub use inherited::{InheritError, Inherited, Unclaimed};
pub use notify::Notify;
pub use successor::UpgradeError;
pub use upgrade::Upgrade;

/// The variable by which a process tells its successor that standard input is the way to it: its process id.
const PREDECESSOR: &str = "TIDEGATE_PREDECESSOR";
/// What a successor says once it serves.
const READY: u8 = b'r';

/// What a listening socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Traffic: `listen.http`.
    Http,
    /// The admin pages: `listen.admin`.
    Admin,
}

impl Role {
    const ALL: [Self; 2] = [Self::Http, Self::Admin];

    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Admin => "admin",
        }
    }
}

#[cfg(test)]
mod tests;
