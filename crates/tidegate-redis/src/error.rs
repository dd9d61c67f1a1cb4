//! Why a store did not do what it was asked, and what an operator can do about it.

use std::time::Duration;

use tidegate::{
    Server,
    fleet::{LedgerError, LedgerErrorKind},
};

/// Why a store did not do what it was asked.
///
/// Only [`Fault`](Self::Fault) needs an operator; all others end by themselves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A server is not one that can hold a ledger, or does not let us in.
    #[error("store {server}: {fault}")]
    Fault {
        /// Which server.
        server: Server,
        /// What is wrong.
        fault: Fault,
    },
    /// A server is not there.
    #[error("store {server} is unavailable: {why}")]
    Unavailable {
        /// Which server.
        server: Server,
        /// In the connection's words.
        why: String,
    },
    /// A server is there, and says that it cannot serve now.
    #[error("store {server} cannot serve now: {code} {said}")]
    Unready {
        /// Which server.
        server: Server,
        /// The code of its error, like `LOADING`.
        code: String,
        /// The rest of it.
        said: String,
    },
    /// No server of the cluster owns the slot, as far as is known.
    #[error("store: nobody serves slot {0} of the cluster; look at CLUSTER INFO")]
    Uncovered(u16),
    /// The answer did not come in time. It may have had its effect.
    #[error("store {server} did not answer within {after:?}")]
    Deadline {
        /// Which server.
        server: Server,
        /// The deadline of an operation.
        after: Duration,
    },
    /// Too many operations under way; this one was not sent.
    #[error("store: {0} operations are under way already; raise in_flight, or ask less")]
    Busy(usize),
    /// The server failed too often a moment ago; this operation was not sent.
    #[error("store {server} keeps failing and is left alone for {retry_in:?}")]
    Open {
        /// Which server.
        server: Server,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// Other instances lease a limit's permits for another time. After a loss of the store it would not be known for how
    /// long to wait for them.
    #[error(
        "permits of `{limit}` are leased for {others:?} by other instances and for {here:?} by this one; give all the same \
         life of a lease, or let the others end first"
    )]
    MixedLeases {
        /// The limit of calls in flight.
        limit: std::sync::Arc<str>,
        /// The life of a lease here.
        here: Duration,
        /// The life of the leases of others.
        others: Duration,
    },
    /// The server's answer is not one to the question.
    #[error("the store answered what was not asked: {what}")]
    Garbled {
        /// What it said.
        what: String,
    },
}

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Fault { fault, .. } => match fault {
                Fault::PasswordMissing
                | Fault::Login { .. }
                | Fault::Forbidden { .. }
                | Fault::Protected
                | Fault::Certificate { .. } => LedgerErrorKind::Denied,
                Fault::Replica { .. } => LedgerErrorKind::Unready,
                Fault::TooOld { .. }
                | Fault::Evicts { .. }
                | Fault::IsCluster
                | Fault::NotCluster
                | Fault::IsSentinel
                | Fault::NotSentinel { .. }
                | Fault::MasterUnknown { .. }
                | Fault::Database { .. }
                | Fault::NoTls
                | Fault::OnlyTls
                | Fault::NotRedis { .. } => LedgerErrorKind::Broken,
            },
            StoreError::Unavailable { .. } | StoreError::Open { .. } => LedgerErrorKind::Unreachable,
            StoreError::Unready { .. } | StoreError::Uncovered(_) => LedgerErrorKind::Unready,
            StoreError::Deadline { .. } => LedgerErrorKind::Late,
            StoreError::Busy(_) => LedgerErrorKind::Busy,
            StoreError::Garbled { .. } | StoreError::MixedLeases { .. } => LedgerErrorKind::Broken,
        };
        Self::new(kind, error.to_string())
    }
}

impl StoreError {
    /// What an operator has to mend, if it is that.
    pub const fn fault(&self) -> Option<&Fault> {
        if let Self::Fault { fault, .. } = self { Some(fault) } else { None }
    }

    /// The server that it is about, if it is about one.
    pub const fn server(&self) -> Option<&Server> {
        match self {
            Self::Fault { server, .. }
            | Self::Unavailable { server, .. }
            | Self::Unready { server, .. }
            | Self::Deadline { server, .. }
            | Self::Open { server, .. } => Some(server),
            Self::Uncovered(_) | Self::Busy(_) | Self::MixedLeases { .. } | Self::Garbled { .. } => None,
        }
    }
}

/// The oldest Redis that is spoken to: the first that has all that is used here and is still found in the field.
pub const OLDEST: (u32, u32) = (6, 2);

/// What a user of the store has to be allowed, in the words of its ACL.
pub const RIGHTS: &str = "+eval +evalsha +get +set +time +publish +subscribe +spublish +ssubscribe +info +ping +select \
                          +cluster|slots";

/// What an operator has to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It wants a password, and the URL has none.
    #[error("it wants a password, and the URL has none; write redis://user:password@host")]
    PasswordMissing,
    /// It does not take the user or the password.
    #[error(
        "it refuses the login of user `{user}`: {said}; look at the user and the password in the URL, and at ACL LIST"
    )]
    Login {
        /// Who tried.
        user: String,
        /// What it said.
        said: String,
    },
    /// The user may not do what is needed.
    #[error(
        "the user may not do what is needed: {said}; allow it {RIGHTS} on the namespace's keys and channels, like \
         ~prod:* &prod:*"
    )]
    Forbidden {
        /// What it said.
        said: String,
    },
    /// It talks to its own host only.
    #[error("it runs in protected mode and takes no strangers; set a password, or bind it to this network")]
    Protected,
    /// It is too old.
    #[error("it is Redis {version}; {}.{} or newer is needed, or any Valkey", OLDEST.0, OLDEST.1)]
    TooOld {
        /// Its version.
        version: String,
    },
    /// It drops keys when memory is short: each of them a spent quota that would be granted again.
    #[error("its maxmemory-policy is {policy}, which forgets what was spent; set it to noeviction")]
    Evicts {
        /// Its policy.
        policy: String,
    },
    /// It copies another one and takes no writes.
    #[error("it is a replica of {master} and takes no writes; name the master, or use redis-sentinel://")]
    Replica {
        /// Whom it copies.
        master: String,
    },
    /// One server was meant, and it is a node of a cluster.
    #[error("it is a node of a cluster; write redis-cluster:// (rediss-cluster:// over TLS)")]
    IsCluster,
    /// A cluster was meant, and it is not in one.
    #[error("it is not in cluster mode; write redis:// (rediss:// over TLS)")]
    NotCluster,
    /// A store was meant, and it is a sentinel.
    #[error("it is a sentinel; write redis-sentinel://host:26379/NAME")]
    IsSentinel,
    /// A sentinel was meant, and it is none.
    #[error("it is not a sentinel: {said}; name a sentinel, or write redis://")]
    NotSentinel {
        /// What it said.
        said: String,
    },
    /// The sentinels do not know the master.
    #[error("this sentinel knows no master `{name}`; it is the last part of the URL, as in SENTINEL MASTERS")]
    MasterUnknown {
        /// Its name.
        name: String,
    },
    /// It has no such database.
    #[error("it has no database {database}; write one below its `databases`, like redis://host:6379/0")]
    Database {
        /// The number.
        database: u32,
    },
    /// TLS was meant, and it speaks plainly.
    #[error("it does not speak TLS on this port; write redis:// (not rediss://), or name its tls-port")]
    NoTls,
    /// It speaks TLS only.
    #[error("it speaks only TLS on this port; write rediss:// (not redis://)")]
    OnlyTls,
    /// It is something else.
    #[error("it does not answer in Redis's protocol; name a Redis or Valkey (said: {said})")]
    NotRedis {
        /// What came.
        said: String,
    },
    /// Its certificate is not trusted.
    #[error(
        "its certificate is not trusted: {why}; give the certificate of its CA, or name the host as in it"
    )]
    Certificate {
        /// Why.
        why: String,
    },
}
