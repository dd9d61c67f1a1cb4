//! Tidegate's own layout.

use tidegate::registry::Instance;

pub(super) fn encode(instance: &Instance) -> Vec<u8> {
    serde_json::to_vec(instance).expect("an instance has strings as keys and no numbers that JSON lacks")
}

pub(super) fn decode(value: &[u8]) -> Result<Instance, String> {
    serde_json::from_slice(value).map_err(|why| why.to_string())
}

/// Writes `%` and `/` as `%25` and `%2F`, so that a segment is one.
pub(super) fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('/', "%2F")
}

/// The reverse of [`escape`]; `None` for what it does not write.
pub(super) fn unescape(text: &str) -> Option<String> {
    let plain = text.replace("%2F", "/").replace("%25", "%");
    (escape(&plain) == text).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_reads_back_and_nothing_else_does() {
        for text in ["", "a", "a/b", "%", "%2F", "%252F", "ä/%", "//"] {
            assert_eq!(unescape(&escape(text)).as_deref(), Some(text));
        }
        for foreign in ["%2f", "%", "%20", "a%2"] {
            assert_eq!(unescape(foreign), None, "{foreign}");
        }
    }
}
