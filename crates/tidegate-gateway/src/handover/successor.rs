//! The process that takes the place of this one: started from here, given the sockets, and waited for.

use std::{
    env, io,
    net::TcpListener,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio, id},
    time::Duration,
};

use tokio::{io::AsyncReadExt as _, time::timeout};

use super::{PREDECESSOR, READY, Role, wire};

/// The longest that a successor may take until it serves. Default: 60 s.
const START_WITHIN: Duration = Duration::from_secs(60);
/// The process whose end ends all others of its container.
const INIT: u32 = 1;

/// Why no other process takes the place of this one. This one goes on as if nothing had been asked.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The end of this process would end its container.
    #[error("this process is the first of its container, which would end with it: start another container")]
    First,
    /// One at a time.
    #[error("a new process (pid {0}) is starting already")]
    Starting(u32),
    /// There is nothing left to hand over.
    #[error("this process is draining: it takes no new connections that another could take")]
    Draining,
    /// There is no such program, or no process to be had.
    #[error("cannot start {}: {source}", program.display())]
    Start {
        /// The program, as this process was started by.
        program: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It ended before it served.
    #[error("the new process ended with {0} before it served; it says why above")]
    Ended(ExitStatus),
    /// It did not serve in time.
    #[error("the new process did not serve within {START_WITHIN:?} and was ended")]
    Late,
    /// The way to it broke.
    #[error("the new process cannot be reached: {0}")]
    Channel(#[from] io::Error),
}

/// A successor that does not serve yet. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Successor {
    /// Taken out once it serves: then it outlives this process.
    child: Option<Child>,
    channel: tokio::net::UnixStream,
}

impl Successor {
    /// Starts the program that this process was started by, as it is on disk now, with the same arguments, and gives it
    /// these sockets.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(sockets: &[(Role, TcpListener)]) -> Result<Self, UpgradeError> {
        if id() == INIT {
            return Err(UpgradeError::First);
        }
        let mut arguments = env::args_os();
        let program = PathBuf::from(arguments.next().unwrap_or_else(|| "tidegate".into()));
        let mut command = Command::new(&program);
        command.args(arguments);
        Self::spawn(command, sockets, program)
    }

    pub(super) fn spawn(
        mut command: Command,
        sockets: &[(Role, TcpListener)],
        program: PathBuf,
    ) -> Result<Self, UpgradeError> {
        let (ours, theirs) = UnixStream::pair()?;
        wire::send(&ours, sockets)?;
        ours.set_nonblocking(true)?;
        let channel = tokio::net::UnixStream::from_std(ours)?;
        command.env(PREDECESSOR, id().to_string()).stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
        let child = command.spawn().map_err(|source| UpgradeError::Start { program, source })?;
        // With the command goes the last handle of the other end that is here: its end is then the successor's.
        drop(command);
        Ok(Self { child: Some(child), channel })
    }

    /// Its process id.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Waits until it serves; from then on it is on its own.
    ///
    /// # Errors
    /// When it ends first, or takes too long; it is gone then.
    ///
    /// # Cancel safety
    /// Dropping the future ends the successor.
    pub(super) async fn serves(mut self) -> Result<(), UpgradeError> {
        let mut said = [0];
        match timeout(START_WITHIN, self.channel.read(&mut said)).await {
            Ok(Ok(1)) if said == [READY] => {
                self.child = None;
                Ok(())
            }
            // It is ending. One that never read its sockets ends with a reset.
            Ok(Ok(_) | Err(_)) => Err(self.end().map_or_else(UpgradeError::Channel, UpgradeError::Ended)),
            Err(_) => Err(UpgradeError::Late),
        }
    }

    /// Ends it and tells how it ended: by itself, if it was about to.
    fn end(&mut self) -> io::Result<ExitStatus> {
        let Some(mut child) = self.child.take() else { return Err(io::ErrorKind::NotFound.into()) };
        child.kill()?;
        child.wait()
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if self.child.is_some()
            && let Err(error) = self.end()
        {
            tracing::warn!(%error, "the new process could not be ended");
        }
    }
}
