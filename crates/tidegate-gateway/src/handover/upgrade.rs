//! The upgrade of a running gateway, as the old process sees it: at most one successor at a time, and nothing changes
//! here until it serves.

use std::{fmt, future::pending, net::TcpListener};

use futures_util::{FutureExt as _, future::BoxFuture};

use super::{Role, UpgradeError, successor::Successor};

/// What can be handed over, and a successor that is starting.
pub struct Upgrade {
    /// Empty once somebody else has them, or nobody shall.
    sockets: Vec<(Role, TcpListener)>,
    starting: Option<Starting>,
}

struct Starting {
    id: u32,
    serves: BoxFuture<'static, Result<(), UpgradeError>>,
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let starting = self.starting.as_ref().map(|starting| starting.id);
        f.debug_struct("Upgrade").field("sockets", &self.sockets).field("starting", &starting).finish()
    }
}

impl Upgrade {
    /// An upgrade that would hand over these sockets. It holds handles of them: the addresses are not free before
    /// [`Upgrade::end`], or a successor has them alone.
    pub fn new(sockets: Vec<(Role, TcpListener)>) -> Self {
        Self { sockets, starting: None }
    }

    /// Starts a successor; a second is not started beside it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn begin(&mut self) -> Result<(), UpgradeError> {
        if let Some(Starting { id, .. }) = &self.starting {
            return Err(UpgradeError::Starting(*id));
        }
        if self.sockets.is_empty() {
            return Err(UpgradeError::Draining);
        }
        match Successor::start(&self.sockets) {
            Ok(successor) => self.await_it(successor),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(super) fn await_it(&mut self, successor: Successor) {
        let Some(id) = successor.id() else { return };
        tracing::info!(pid = id, "upgrading: a new process starts; this one serves until it does");
        self.starting = Some(Starting { id, serves: successor.serves().boxed() });
    }

    /// Waits until the successor that is starting serves, and tells its process id; the sockets are its alone from then
    /// on. While none is starting, it waits for ever.
    ///
    /// # Errors
    /// When it does not come to serve: it is gone, and all is as before.
    ///
    /// # Cancel safety
    /// Cancel safe: the next call waits for the same successor.
    pub async fn ended(&mut self) -> Result<u32, UpgradeError> {
        let Some(starting) = &mut self.starting else { return pending().await };
        let (id, served) = (starting.id, (&mut starting.serves).await);
        self.starting = None;
        served?;
        self.sockets.clear();
        Ok(id)
    }

    /// Lets go of the sockets, and ends a successor that does not serve yet: from now on nothing is handed over.
    pub fn end(&mut self) {
        self.starting = None;
        self.sockets.clear();
    }
}
