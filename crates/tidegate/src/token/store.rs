//! Where sessions stand, for all processes that share them.
//!
//! A record changes by compare-and-swap on its version only. Whoever wants to ask for a grant holds the session's
//! lease: one at a time, renewed while the grant is out, with a fencing number that grows. What a lease says
//! when it runs out without being given back is that its holder died; whether it had sent anything is told to the next.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::sync::broadcast;

use super::SessionId;

/// Where sessions stand. Every operation is bounded in time by the store; it may have had its effect when it fails.
pub trait SessionStore: Send + Sync + 'static {
    /// Reads a record, and keeps it for `keep` from now on, if that is given.
    ///
    /// # Errors
    /// [`SessionStoreError`] when the store could not be asked. That there is no record is no error.
    fn read(
        &self,
        id: &SessionId,
        keep: Option<Duration>,
    ) -> impl Future<Output = Result<Option<Stored>, SessionStoreError>> + Send;

    /// Writes a record where none is, as version 1, for as long as `keep`. `false`: there is one. Told to all who listen to
    /// [`changes`](Self::changes): they may have heard that one of this name is gone.
    ///
    /// # Errors
    /// [`SessionStoreError`] when the store could not be asked.
    fn create(
        &self,
        id: &SessionId,
        record: Vec<u8>,
        keep: Duration,
    ) -> impl Future<Output = Result<bool, SessionStoreError>> + Send;

    /// Writes a record in place of the version it was made from.
    ///
    /// # Errors
    /// [`SessionStoreError`] when the store could not be asked.
    fn write(
        &self,
        id: &SessionId,
        write: Write,
    ) -> impl Future<Output = Result<Written, SessionStoreError>> + Send;

    /// Removes a record, with its lease, and tells what it was. Nothing that was begun for it has an effect on a later record
    /// of the same name.
    ///
    /// # Errors
    /// [`SessionStoreError`] when the store could not be asked; it may be removed.
    fn remove(
        &self,
        id: &SessionId,
    ) -> impl Future<Output = Result<Option<Stored>, SessionStoreError>> + Send;

    /// Takes the lease of a session, if nobody holds it, and reads the record under it. Asking again with the same
    /// `holder` while it is held gives the same lease.
    ///
    /// # Errors
    /// [`SessionStoreError`] when the store could not be asked; the lease may be taken.
    fn lease(
        &self,
        id: &SessionId,
        holder: u64,
        life: Duration,
    ) -> impl Future<Output = Result<Leased, SessionStoreError>> + Send;

    /// Renews a lease. `false`: it is somebody else's by now, or the session is gone. That something is sent is told to all
    /// who listen to [`changes`](Self::changes).
    ///
    /// # Errors
    /// [`SessionStoreError`] when the store could not be asked.
    fn renew(
        &self,
        id: &SessionId,
        fence: Fence,
        life: Duration,
        phase: Phase,
    ) -> impl Future<Output = Result<bool, SessionStoreError>> + Send;

    /// Gives a lease back: what it was taken for is over, and its end is known. Nothing happens if it is not held.
    ///
    /// # Errors
    /// [`SessionStoreError`] when the store could not be asked.
    fn release(
        &self,
        id: &SessionId,
        fence: Fence,
    ) -> impl Future<Output = Result<(), SessionStoreError>> + Send;

    /// What changes from now on: hints, some of which may be lost.
    fn changes(&self) -> broadcast::Receiver<Change>;

    /// Tells others that a token endpoint wants to be left alone. A hint: those who do not hear it are told by the
    /// endpoint itself.
    fn pause(&self, endpoint: &Arc<str>, pause: Duration) -> impl Future<Output = ()> + Send;
}

/// The number of a lease; a later one is higher, also of a later record of the same name. 0 is of no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(pub u64);

/// How far the holder of a lease is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was sent to the endpoint.
    Held,
    /// A grant was sent, or is about to be.
    Sent,
}

/// A record as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// How often it was written.
    pub version: u64,
    /// How long ago it was written, by the store's clock.
    pub age: Duration,
    /// What was written.
    pub record: Vec<u8>,
}

/// A write to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The record.
    pub record: Vec<u8>,
    /// The version it takes the place of.
    pub over: u64,
    /// How long it is kept from now on.
    pub keep: Duration,
    /// The lease it is written under.
    pub fence: Fence,
    /// What the lease has to do with it.
    pub under: Under,
}

/// What a lease has to do with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Under {
    /// It is written whoever holds the lease: what is new is known for good, like rotated tokens.
    Anybody,
    /// The same, and the lease is given back if it is still held.
    AnybodyReleasing,
    /// It is written only while the lease is held, which is given back then: like the end of a session.
    HolderReleasing,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It stands, with this version.
    Done(u64),
    /// Another version stands there.
    Conflict,
    /// The record is gone, or another one of the same name than the lease is of.
    Gone,
    /// The lease is not held any more.
    Fenced,
}

/// What became of asking for a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leased {
    /// It is taken.
    Taken {
        /// Its number.
        fence: Fence,
        /// The record as it stands.
        stored: Stored,
        /// How long ago the last holder sent a grant, if it was not heard of again.
        orphan: Option<Duration>,
    },
    /// Somebody else holds it, for this much longer unless it is renewed.
    Held(Duration),
    /// There is no such session.
    Gone,
}

/// Something that happened to a store's sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A record has a new version; or it has the same, and a lease under which a grant was sent was given back.
    Written {
        /// Whose.
        id: SessionId,
        /// Which.
        version: u64,
    },
    /// A record was removed.
    Removed(SessionId),
    /// A lease's holder is about to send a grant. Its end is [`Written`](Self::Written), and nothing if the holder dies.
    Sent(SessionId),
    /// A token endpoint wants to be left alone.
    Pause {
        /// Which one, by the name its coordinators have for it.
        endpoint: Arc<str>,
        /// For how long.
        pause: Duration,
    },
}

/// Why a store could not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStoreError(pub Arc<str>);

impl SessionStoreError {
    /// With the store's words, in which nothing of a record stands.
    pub fn new(why: impl Into<Arc<str>>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for SessionStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store of sessions could not be asked: {}", self.0)
    }
}

impl std::error::Error for SessionStoreError {}
