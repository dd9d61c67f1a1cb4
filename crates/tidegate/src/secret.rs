//! A text that must not be seen: it can be used, never printed.

use std::fmt;

use zeroize::Zeroizing;

/// A secret, such as a password. `Debug` and `Display` print `[redacted]`; its memory is wiped when it is dropped.
///
/// # Examples
/// ```
/// let secret = tidegate::Secret::new("hunter2");
/// assert_eq!(format!("{secret} {secret:?}"), "[redacted] [redacted]");
/// assert_eq!(secret.expose(), "hunter2");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Box<str>>);

/// What a secret prints as.
pub const REDACTED: &str = "[redacted]";

impl Secret {
    /// Takes a text as a secret.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Gives the text away. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}
