//! What a limited call may fail with.

use std::fmt;

use crate::Refused;

/// A refusal, or the error of the service below. The refusal is in a box, as the result of every call has room for it.
#[derive(Debug, PartialEq, Eq)]
pub enum Error<E> {
    /// The limiter refused; the call was not sent.
    Refused(Box<Refused>),
    /// The service failed.
    Inner(E),
}

impl<E> Error<E> {
    /// The refusal, if it is one.
    pub const fn refused(&self) -> Option<Refused> {
        match self {
            Self::Refused(refused) => Some(**refused),
            Self::Inner(_) => None,
        }
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refused) => refused.fmt(f),
            Self::Inner(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for Error<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(refused) => Some(&**refused),
            Self::Inner(error) => Some(error),
        }
    }
}

/// Finds a refusal in `error` or its sources (as in a `tonic::Status`): the call was not sent then.
pub fn refused_in(error: &(dyn std::error::Error + 'static)) -> Option<Refused> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(refused) = error.downcast_ref() {
            return Some(*refused);
        }
        next = error.source();
    }
    None
}
