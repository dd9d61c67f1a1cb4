//! A registry as Tidegate sees it.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use super::{Instance, Registrant, ServiceName};

/// The age of what a source tells: of two listings of a service, the one with the higher revision is the later.
///
/// Revisions are compared within one service of one source only. A source that has none gives every answer the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// All instances of a service, as its source knows them. No instances: the source was asked, and there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// As of when.
    pub revision: Revision,
    /// The instances, in any order; of two with one id the later one counts.
    pub instances: Vec<Arc<Instance>>,
    /// Entries that could not be read as instances. They are left out and counted.
    pub malformed: u32,
}

/// One instance that came, changed or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It came, or it is another than before.
    Put(Arc<Instance>),
    /// The instance with this id went: it deregistered, or its lease ended. A source need not know which.
    Removed(String),
    /// An entry came that is no instance; if one with this id was known, it stays as it was.
    Malformed(String),
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// All instances there are: the first update of a watch, and again whenever the source could not tell the changes
    /// one by one (a compacted history).
    All(Listing),
    /// All that changed up to a revision, together: one update for one answer of the registry, however much it holds.
    Changes {
        /// As of when.
        revision: Revision,
        /// In order.
        changes: Vec<Change>,
    },
    /// Nothing changed, and the watch is alive and caught up to this revision.
    Caught(Revision),
}

/// A registry.
///
/// The rule of all its verbs: who could not ask returns an error, never an empty answer. No verb retries: when to ask
/// again is decided above. Each bounds its own time (a call's deadline, 5 s by default).
pub trait Source: Send + Sync + 'static {
    /// A watch of one service.
    type Watch: Watch;

    /// What it is, for logs and pages, without passwords: `etcd://10.0.0.1:2379/tidegate/`.
    fn describe(&self) -> String;

    /// Lists the services that have instances.
    ///
    /// # Errors
    /// [`SourceError`] when it could not ask.
    ///
    /// # Cancel safety
    /// Dropping the future gives the call up.
    fn list(&self) -> impl Future<Output = Result<Vec<ServiceName>, SourceError>> + Send;

    /// Reads all instances of a service.
    ///
    /// # Errors
    /// [`SourceError`] when it could not ask. That there is none is a [`Listing`] without instances.
    ///
    /// # Cancel safety
    /// Dropping the future gives the call up.
    fn get(&self, service: &ServiceName) -> impl Future<Output = Result<Listing, SourceError>> + Send;

    /// Begins to watch a service. The first update is [`Update::All`]; nothing is lost between it and what follows.
    ///
    /// # Errors
    /// [`SourceError`]; [`SourceErrorKind::Unsupported`] from a source that cannot watch, which is asked again and again
    /// instead.
    ///
    /// # Cancel safety
    /// Dropping the future, or the watch, ends the watch.
    fn watch(&self, service: &ServiceName) -> impl Future<Output = Result<Self::Watch, SourceError>> + Send;

    /// Takes an instance over to keep it registered, in tasks of its own, until its owner no longer wants it: see
    /// [`Registrant`]. Returns at once; success and failure are told through the registrant.
    ///
    /// # Errors
    /// [`SourceErrorKind::Unsupported`] from a source that only reads.
    fn register(&self, registrant: Registrant) -> Result<(), SourceError>;
}

/// A watch of one service, from [`Source::watch`].
pub trait Watch: Send {
    /// Waits for the next update.
    ///
    /// A watch that is silent is alive: what it told is the truth. So it must notice when it is cut off, by progress
    /// or keep-alives, and return an error no later than its own bound on silence.
    ///
    /// # Errors
    /// [`SourceError`] when the watch ended; it is not asked again.
    ///
    /// # Cancel safety
    /// Dropping the future loses no update.
    fn next(&mut self) -> impl Future<Output = Result<Update, SourceError>> + Send;
}

/// Whose fault it is that a source could not answer, and whether to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SourceErrorKind {
    /// It cannot be reached, or did not answer in time.
    Unavailable,
    /// It, or the budget in front of it, asks to come back later.
    Throttled,
    /// It refuses these credentials.
    Denied,
    /// It answered something that could not be read.
    Malformed,
    /// It has no such verb.
    Unsupported,
}

/// Why a source could not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    /// What kind of failure it is.
    pub kind: SourceErrorKind,
    /// The thing, the value and the remedy, for people. Never a password.
    pub message: Arc<str>,
    /// When to ask again, if the source said so.
    pub retry_after: Option<Duration>,
}

impl SourceError {
    /// Makes an error.
    pub fn new(kind: SourceErrorKind, message: impl Into<Arc<str>>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }

    /// Makes an error of a source that cannot be reached.
    pub fn unavailable(message: impl Into<Arc<str>>) -> Self {
        Self::new(SourceErrorKind::Unavailable, message)
    }

    /// Makes an error of a source that has no such verb.
    pub fn unsupported(message: impl Into<Arc<str>>) -> Self {
        Self::new(SourceErrorKind::Unsupported, message)
    }

    /// Says when to ask again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SourceError {}
