//! What a session is known by.

use std::{
    cmp::Ordering,
    fmt,
    hash::{BuildHasher as _, Hash, Hasher},
    sync::{Arc, LazyLock},
};

use foldhash::quality::RandomState;

/// The longest name of a session, in bytes.
pub const LONGEST_ID: usize = 128;

/// What a session is known by in its store: never what a browser presents, but a hash of it, because whoever reads the
/// store must not be able to present it.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionId {
    /// Of the name, made once: a name is looked up for every call. Another in every process, so that nobody can choose names
    /// that meet.
    hash: u64,
    name: Arc<str>,
}

impl Hash for SessionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Ord for SessionId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name.cmp(&other.name)
    }
}

impl PartialOrd for SessionId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What is wrong with a name of a session. It does not say the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSessionId;

impl fmt::Display for InvalidSessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this is no id of a session; it is 1 to {LONGEST_ID} letters, digits and any of `-_.:`")
    }
}

impl std::error::Error for InvalidSessionId {}

impl SessionId {
    /// Takes a name: 1 to [`LONGEST_ID`] letters, digits and any of `-_.:`.
    ///
    /// # Errors
    /// [`InvalidSessionId`] when it is none.
    pub fn new(name: &str) -> Result<Self, InvalidSessionId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if name.is_empty() || name.len() > LONGEST_ID || !name.bytes().all(allowed) {
            return Err(InvalidSessionId);
        }
        Ok(Self::of(name.into()))
    }

    /// Names a session by a hash, in hex.
    pub fn of_hash(hash: &[u8; 32]) -> Self {
        let digits = hash.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        Self::of(digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect::<String>().into())
    }

    fn of(name: Arc<str>) -> Self {
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);
        Self { hash: HASHER.hash_one(&*name), name }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.name
    }
}

/// Prints the beginning only.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({}…)", self.name.get(..self.name.len().min(6)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_fits_into_a_key_and_prints_its_beginning_only() {
        assert_eq!(format!("{:?}", SessionId::of_hash(&[0xab; 32])), "SessionId(ababab…)");
        assert_eq!(SessionId::of_hash(&[0x0f; 32]).as_str().len(), 64);
        for wrong in ["", "a b", "a{b}", "ä", &"x".repeat(129)] {
            assert_eq!(SessionId::new(wrong), Err(InvalidSessionId), "{wrong}");
        }
        assert_eq!(SessionId::new("user-1").unwrap().as_str(), "user-1");
    }
}
