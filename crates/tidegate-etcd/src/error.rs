//! What may go wrong with etcd, and what each of its errors asks of us.

use std::{fmt, time::Duration};

use tonic::{Code, Status};

/// Why etcd could not be asked, or what it refused.
///
/// "Could not ask" is [`Unavailable`](ErrorKind::Unavailable) and never an empty answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    text: String,
    retry_after: Option<Duration>,
}

/// What kind of an error it is, and so whose fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No member gave an answer in time: theirs, and worth another try.
    Unavailable,
    /// This client holds itself back: its next login is put off, for many of its fleet log in. Nothing was sent.
    Throttled,
    /// The user or the password is wrong: the configuration's.
    Credentials,
    /// The user may not do this to these keys: the configuration's, or that of etcd's roles.
    Denied,
    /// The history is gone from the revision that was asked for; read everything again.
    Compacted,
    /// The lease does not exist any more.
    LeaseLost,
    /// An answer is larger than the client takes (raise `largest_answer`, or look for a value that is too large), or a
    /// value is larger than etcd takes.
    TooLarge,
    /// What was to be written or read is not possible: the caller's.
    Invalid,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), retry_after: None }
    }

    pub(crate) fn unavailable(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, text)
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, text)
    }

    pub(crate) fn after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// The error of a call of `what` that ended with `status`.
    pub(crate) fn of(what: &str, status: &Status) -> Self {
        let fault = Fault::of(status);
        let kind = match fault {
            Fault::Token | Fault::Unreachable | Fault::Busy | Fault::AuthOff => ErrorKind::Unavailable,
            Fault::TooLarge => ErrorKind::TooLarge,
            Fault::Credentials => ErrorKind::Credentials,
            Fault::Denied => ErrorKind::Denied,
            Fault::Compacted => ErrorKind::Compacted,
            Fault::LeaseGone => ErrorKind::LeaseLost,
            Fault::LeaseExists | Fault::Other => ErrorKind::Invalid,
        };
        Self::new(kind, format!("{what}: {}", told(status)))
    }

    /// What kind of an error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// When to come back, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match self.retry_after {
            Some(after) => write!(f, "; next try in {:.1} s", after.as_secs_f64()),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// The message of a status with the cause that tonic hides in its source.
pub(crate) fn told(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut source = std::error::Error::source(status);
    // A chain of causes ends; one that is longer than this tells nothing more.
    for _ in 0..6 {
        let Some(cause) = source else { break };
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// What an answer of etcd asks of the client. Decided by the text where codes differ between versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The token is missing, unknown, expired or of an older revision of the users: log in once and try again.
    Token,
    /// The user or the password is wrong.
    Credentials,
    /// Authentication is off, so there is nothing to log in to.
    AuthOff,
    Denied,
    Compacted,
    LeaseGone,
    LeaseExists,
    /// This member cannot help now, another may.
    Unreachable,
    /// The cluster asks for patience; another member would say the same.
    Busy,
    /// The answer is larger than the client takes, or the request than etcd takes.
    TooLarge,
    Other,
}

impl Fault {
    pub(crate) fn of(status: &Status) -> Self {
        match Self::told_by(status.message()) {
            Self::Other => match status.code() {
                Code::Unauthenticated => Self::Token,
                Code::PermissionDenied => Self::Denied,
                Code::ResourceExhausted => Self::Busy,
                Code::OutOfRange => Self::TooLarge,
                // Unknown is what tonic says of a connection that broke, Internal of a reset stream.
                Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Self::Unreachable,
                Code::Unknown | Code::Internal => Self::Unreachable,
                _ => Self::Other,
            },
            fault => fault,
        }
    }

    /// What etcd's own words mean. Watches are cancelled with words alone.
    pub(crate) fn told_by(message: &str) -> Self {
        const WORDS: [(&str, Fault); 19] = [
            ("invalid auth token", Fault::Token),
            // With JWT after any change to users or roles; with simple tokens when a change races a call.
            ("revision of auth store is old", Fault::Token),
            ("auth: revision in header is old", Fault::Token),
            // No token although authentication is on: it was switched on after we had looked.
            ("user name is empty", Fault::Token),
            ("authentication failed", Fault::Credentials),
            ("authentication is not enabled", Fault::AuthOff),
            ("permission denied", Fault::Denied),
            ("required revision has been compacted", Fault::Compacted),
            ("requested lease not found", Fault::LeaseGone),
            ("lease already exists", Fault::LeaseExists),
            ("no leader", Fault::Unreachable),
            ("request timed out", Fault::Unreachable),
            ("leader changed", Fault::Unreachable),
            ("too many requests", Fault::Busy),
            ("database space exceeded", Fault::Busy),
            ("decoded message length too large", Fault::TooLarge),
            // etcd's own bound, and that of the gRPC server in front of it.
            ("request is too large", Fault::TooLarge),
            ("message larger than max", Fault::TooLarge),
            ("mvcc: required revision is a future revision", Fault::Unreachable),
        ];
        WORDS.iter().find(|(words, _)| message.contains(words)).map_or(Self::Other, |(_, fault)| *fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_all_versions_are_known_by_their_words_and_then_by_their_code() {
        for (code, words, fault) in [
            (Code::Unauthenticated, "etcdserver: invalid auth token", Fault::Token),
            // Lock and Election of some versions wrap the words in Unknown.
            (Code::Unknown, "etcdserver: invalid auth token", Fault::Token),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old", Fault::Token),
            (Code::Unknown, "auth: revision in header is old", Fault::Token),
            (Code::InvalidArgument, "etcdserver: user name is empty", Fault::Token),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                Fault::Credentials,
            ),
            (Code::FailedPrecondition, "etcdserver: authentication is not enabled", Fault::AuthOff),
            (Code::PermissionDenied, "etcdserver: permission denied", Fault::Denied),
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", Fault::Compacted),
            (Code::NotFound, "etcdserver: requested lease not found", Fault::LeaseGone),
            (Code::FailedPrecondition, "etcdserver: lease already exists", Fault::LeaseExists),
            (Code::Unavailable, "etcdserver: no leader", Fault::Unreachable),
            (Code::Unavailable, "etcdserver: request timed out", Fault::Unreachable),
            (Code::ResourceExhausted, "etcdserver: too many requests", Fault::Busy),
            (Code::InvalidArgument, "etcdserver: request is too large", Fault::TooLarge),
            (Code::ResourceExhausted, "grpc: received message larger than max (9 vs. 8)", Fault::TooLarge),
            (Code::InvalidArgument, "etcdserver: key is not provided", Fault::Other),
            (Code::Unavailable, "tcp connect error", Fault::Unreachable),
            (Code::OutOfRange, "Error, decoded message length too large: found 9 bytes", Fault::TooLarge),
        ] {
            assert_eq!(Fault::of(&Status::new(code, words)), fault, "{words}");
        }
    }
}
