//! Why a ledger did not answer.

use std::fmt;

/// A ledger that did not answer. Whether it booked the question is not known, and need not be: credit that was granted
/// to nobody is lost until its window is over, never spent twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerError {
    kind: LedgerErrorKind,
    message: Box<str>,
}

/// What kept a ledger from answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LedgerErrorKind {
    /// No connection, or it broke.
    Unreachable,
    /// No answer within the deadline of an operation.
    Late,
    /// More questions are under way, or more subjects kept, than may be: nothing was sent.
    Busy,
    /// It is there and cannot serve yet: it loads, fails over, or is a replica.
    Unready,
    /// It refuses this client: a wrong password, or no right to a command.
    Denied,
    /// It answered what makes no sense: another version or another kind of server.
    Broken,
}

impl LedgerErrorKind {
    /// Every kind, in the order of [`index`](Self::index).
    pub const ALL: [Self; 6] =
        [Self::Unreachable, Self::Late, Self::Busy, Self::Unready, Self::Denied, Self::Broken];

    /// The name used in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Late => "late",
            Self::Busy => "busy",
            Self::Unready => "unready",
            Self::Denied => "denied",
            Self::Broken => "broken",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl LedgerError {
    /// Makes an error. The message names the server, the value and the remedy, in lower case and without a full stop.
    pub fn new(kind: LedgerErrorKind, message: impl Into<Box<str>>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What kept the ledger from answering.
    pub const fn kind(&self) -> LedgerErrorKind {
        self.kind
    }

    /// What happened, where, and what to do about it.
    pub const fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the ledger did not answer ({}): {}", self.kind.as_str(), self.message)
    }
}

impl std::error::Error for LedgerError {}
