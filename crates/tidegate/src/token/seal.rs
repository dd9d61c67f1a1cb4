//! Records that nobody can read who reads the store.

use std::fmt;

use zeroize::Zeroizing;

/// Encrypts and authenticates what stands in a store.
pub trait Seal: Send + Sync + 'static {
    /// Seals a text. It opens with the same `context` only.
    fn seal(&self, plain: &[u8], context: &[u8]) -> Vec<u8>;

    /// Opens what was sealed; `None`: by no key that is known, for another context, or changed since.
    fn open(&self, sealed: &[u8], context: &[u8]) -> Option<Zeroizing<Vec<u8>>>;
}

/// What stands in the store is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It cannot be opened.
    Sealed,
    /// It is not written as records are.
    Garbled,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sealed => {
                "the session cannot be opened with any key that is known; keep the keys that sealed it in the ring"
            }
            Self::Garbled => "the session is not written as this version writes them",
        })
    }
}

impl std::error::Error for Unreadable {}
