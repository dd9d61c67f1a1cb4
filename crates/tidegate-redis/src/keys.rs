//! Where things stand in the store: every key of a namespace in one of 256 buckets, and each bucket in one slot.

use tidegate::{fleet::MOST_PARTS, throttle::Key};

use crate::slot::slot_of;

/// Buckets of a namespace. Each has its epoch beside its accounts, in the same slot of a cluster.
pub(crate) const BUCKETS: usize = MOST_PARTS as usize;
/// The longest namespace, in bytes.
pub const LONGEST_NAMESPACE: usize = 64;

/// The bucket of a key.
pub(crate) fn bucket_of(key: Key) -> u8 {
    key.bits().to_le_bytes()[0]
}

/// The prefix of every key of one deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    name: String,
    slots: Box<[u16]>,
}

/// What is wrong with a namespace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` is not a namespace; write 1 to {LONGEST_NAMESPACE} letters, digits and any of `.-_:/`, like prod",
    .0.escape_debug()
)]
pub struct InvalidNamespace(String);

impl Namespace {
    /// Takes a name.
    ///
    /// # Errors
    /// [`InvalidNamespace`] when it is empty or too long, or has more than letters, digits and `.-_:/`: braces would
    /// change the slot of a key.
    pub fn new(name: &str) -> Result<Self, InvalidNamespace> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_:/".contains(&b);
        if name.is_empty() || name.len() > LONGEST_NAMESPACE || !name.bytes().all(allowed) {
            return Err(InvalidNamespace(name.chars().take(LONGEST_NAMESPACE).collect()));
        }
        let slots = (0..BUCKETS).map(|bucket| slot_of(format!("{{{name}:{bucket}}}").as_bytes())).collect();
        Ok(Self { name: name.to_owned(), slots })
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The slot of a bucket.
    pub(crate) fn slot(&self, bucket: u8) -> u16 {
        self.slots[usize::from(bucket)]
    }

    /// The key of a bucket's epoch.
    pub(crate) fn epoch(&self, bucket: u8) -> String {
        self.key(bucket, "epoch")
    }

    /// A key in a bucket.
    pub(crate) fn key(&self, bucket: u8, rest: &str) -> String {
        let name = &self.name;
        format!("{name}:{{{name}:{bucket}}}:{rest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_bucket_are_in_its_slot() {
        let namespace = Namespace::new("prod").unwrap();
        assert_eq!(namespace.epoch(7), "prod:{prod:7}:epoch");
        for bucket in 0..=255 {
            for key in [namespace.epoch(bucket), namespace.key(bucket, "a1000000:per-{client}:00ff")] {
                assert_eq!(slot_of(key.as_bytes()), namespace.slot(bucket), "{key}");
            }
        }
    }

    #[test]
    fn a_name_that_would_move_keys_is_refused() {
        for name in ["", "a{b", "a}", "a b", "ä", &"x".repeat(65)] {
            assert!(Namespace::new(name).is_err(), "{name}");
        }
    }
}
