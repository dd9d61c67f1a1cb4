//! Secrets in a text that is shown: every byte of them becomes a star, so that places stay what they are.

use std::ops::Range;

/// Words in a key that tell its value is a secret.
const SECRET_KEYS: [&str; 8] =
    ["secret", "password", "passwd", "token", "credential", "api_key", "authorization", "cookie"];

/// Whether the value of `key`, a setting or a header field, is a secret.
pub(super) fn holds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    SECRET_KEYS.iter().any(|word| key.contains(word))
}

/// Masks passwords in URLs, and values of keys like `client_secret`, unless such a value is a section.
pub(super) fn masked(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for range in url_passwords(text).chain(secret_values(text)) {
        bytes[range].fill(b'*');
    }
    String::from_utf8(bytes).expect("whole characters were replaced by ASCII")
}

/// What stands between `://` and the last `@` of the same word.
fn url_passwords(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    text.match_indices("://").filter_map(|(at, separator)| {
        let start = at + separator.len();
        let word = &text[start..];
        let word = &word[..word.find(char::is_whitespace).unwrap_or(word.len())];
        let end = start + word.rfind('@')?;
        let user = text[start..end].find(':').map_or(0, |colon| colon + 1);
        Some(start + user..end)
    })
}

/// The rest of a line after a key that holds a secret.
fn secret_values(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    text.match_indices(':').filter_map(|(colon, _)| {
        let key = text[..colon].trim_end_matches(['"', '\'', ' ']);
        let key_start = key
            .rfind(|c: char| !c.is_alphanumeric() && c != '_' && c != '-')
            .map_or(0, |at| at + key[at..].chars().next().map_or(0, char::len_utf8));
        if !holds_secret(&key[key_start..]) {
            return None;
        }
        let rest = &text[colon + 1..];
        let line = &rest[..rest.find('\n').unwrap_or(rest.len())];
        let value = line.trim();
        if value.is_empty() || value.starts_with(['{', '#']) || !line.starts_with([' ', '"', '\'']) {
            return None;
        }
        let start = colon + 1 + (line.len() - line.trim_start().len());
        Some(start..start + value.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_become_stars_and_nothing_moves() {
        for (text, shown) in [
            ("store: redis://app:hunter2@host/0", "store: redis://app:*******@host/0"),
            ("{\"store\":\"redis://:hun/ter@2@host\"}", "{\"store\":\"redis://:*********@host\"}"),
            ("a: redis://pw@host # and b://x:y@z", "a: redis://**@host # and b://x:*@z"),
            ("client_secret: hunter2", "client_secret: *******"),
            ("  \"password\": \"hunter2\", x: 1", "  \"password\": ***************"),
            ("{ client-secret: hunter2 }", "{ client-secret: *********"),
            ("client_secret: { env: NAME }", "client_secret: { env: NAME }"),
            ("client_secret:\n  file: x", "client_secret:\n  file: x"),
            ("endpoints: [http://127.0.0.1:9001]", "endpoints: [http://127.0.0.1:9001]"),
            ("password: pässwört", "password: **********"),
            ("host: \"*.example.com\" # @home", "host: \"*.example.com\" # @home"),
        ] {
            assert_eq!(masked(text), shown);
            assert_eq!(masked(text).len(), text.len());
        }
    }
}
