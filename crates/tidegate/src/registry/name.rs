//! The name of a service.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// The most bytes a service's name may have.
pub const LONGEST_NAME: usize = 255;

/// The name of a service: 1 to 255 bytes, no control characters. Any other character may stand in it, `/` too; a source
/// that has separators of its own escapes them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(Arc<str>);

/// What is wrong with a service's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidServiceName {
    /// It has no character.
    Empty,
    /// It has this many bytes.
    TooLong(usize),
    /// There is a control character at this byte.
    Control(usize),
}

impl fmt::Display for InvalidServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a service's name is empty; write one, like orders"),
            Self::TooLong(bytes) => {
                write!(f, "a service's name has {bytes} bytes; it has at most {LONGEST_NAME}")
            }
            Self::Control(at) => {
                write!(f, "a service's name has a control character at byte {at}; leave it out")
            }
        }
    }
}

impl std::error::Error for InvalidServiceName {}

impl ServiceName {
    /// Reads a name.
    ///
    /// # Errors
    /// [`InvalidServiceName`] when it is empty, too long or has control characters.
    pub fn new(name: &str) -> Result<Self, InvalidServiceName> {
        if name.is_empty() {
            return Err(InvalidServiceName::Empty);
        }
        if name.len() > LONGEST_NAME {
            return Err(InvalidServiceName::TooLong(name.len()));
        }
        if let Some((at, _)) = name.char_indices().find(|(_, character)| character.is_control()) {
            return Err(InvalidServiceName::Control(at));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = InvalidServiceName;

    fn from_str(name: &str) -> Result<Self, InvalidServiceName> {
        Self::new(name)
    }
}

impl TryFrom<String> for ServiceName {
    type Error = InvalidServiceName;

    fn try_from(name: String) -> Result<Self, InvalidServiceName> {
        Self::new(&name)
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        (*name.0).to_owned()
    }
}

impl Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_separators_and_no_control_characters() {
        for good in ["orders", "a/b", "go.micro.srv.x", "Bestellung Ä", &"x".repeat(LONGEST_NAME)] {
            assert_eq!(ServiceName::new(good).unwrap().as_str(), good);
        }
        assert_eq!(ServiceName::new(""), Err(InvalidServiceName::Empty));
        assert_eq!(ServiceName::new("a\nb"), Err(InvalidServiceName::Control(1)));
        assert_eq!(ServiceName::new("a\0"), Err(InvalidServiceName::Control(1)));
        assert_eq!(ServiceName::new(&"x".repeat(256)), Err(InvalidServiceName::TooLong(256)));
    }
}
