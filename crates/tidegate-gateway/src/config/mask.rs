//! Secrets in a text that is shown: every byte of them becomes a star, so that places stay what they are.

use std::ops::Range;

/// Parts of words in a key that tell its value is a secret, also in one that is mistyped at its end.
const SECRET_KEYS: [&str; 8] =
    ["secr", "passw", "pwd", "token", "credential", "api_key", "authorization", "cookie"];

/// Whether the value of `key`, a setting or a header field, is a secret.
pub(super) fn holds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    SECRET_KEYS.iter().any(|word| key.contains(word))
}

/// Shortest text that is taken for a key itself, in bytes: what stands at `key` may also be a path, or what a limit counts by.
const SHORTEST_KEY: usize = 32;

/// Masks passwords in URLs, private keys, and values of keys like `client_secret`, unless such a value is a section.
pub(super) fn masked(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for range in url_passwords(text).chain(secret_values(text)).chain(pem_keys(text)) {
        bytes[range].fill(b'*');
    }
    String::from_utf8(bytes).expect("whole characters were replaced by ASCII")
}

/// What stands between `://` and the last `@` of the same word.
fn url_passwords(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut next = 0;
    std::iter::from_fn(move || {
        loop {
            let start = next + text[next..].find("://")? + "://".len();
            let word = text[start..].split(char::is_whitespace).next().unwrap_or_default();
            // Each word is looked at once, however many URLs are in it.
            next = start + word.len();
            if let Some(at) = word.rfind('@') {
                let user = word[..at].find(':').map_or(0, |colon| colon + 1);
                return Some(start + user..start + at);
            }
        }
    })
}

/// The rest of a line after a key that holds a secret.
fn secret_values(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut line_start = 0;
    text.split_inclusive('\n').filter_map(move |line| {
        let start = line_start;
        line_start += line.len();
        let value = line.match_indices(':').find_map(|(colon, _)| secret_value(line, colon))?;
        Some(start + value.start..start + value.end)
    })
}

/// The lines of private keys in PEM: to the end of each, or, where that is not to be found, as far as lines are as deep.
fn pem_keys(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let (mut line_start, mut depth) = (0, None);
    text.split_inclusive('\n').filter_map(move |line| {
        let start = line_start;
        line_start += line.len();
        let end = start + line.trim_end().len();
        let indent = line.len() - line.trim_start().len();
        let begin = line.find("-----BEGIN").filter(|at| line[*at..].contains("PRIVATE KEY"));
        if let Some(begin) = begin {
            // After a key what belongs to it is deeper than that.
            depth = Some(indent + usize::from(begin > indent));
        }
        let least = depth?;
        if begin.is_none() && indent < least && !line.trim().is_empty() {
            depth = None;
            return None;
        }
        if line.contains("-----END") {
            depth = None;
        }
        Some(start + begin.unwrap_or(indent).min(line.trim_end().len())..end)
    })
}

/// Whether a text is a key and not the path of one, nor a name: long base64, or PEM.
fn is_key_itself(value: &str) -> bool {
    let is_base64 = |word: &str| {
        let has = |is: fn(&u8) -> bool| word.as_bytes().iter().any(is);
        word.len() >= SHORTEST_KEY
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=-_".contains(&b))
            && has(u8::is_ascii_uppercase)
            && has(u8::is_ascii_lowercase)
            && has(u8::is_ascii_digit)
    };
    value.contains("-----BEGIN")
        || value.split(|c: char| c.is_whitespace() || "\"',[]{}".contains(c)).any(is_base64)
}

/// The value after the key before `colon`, to the end of the line, if it is a secret one.
fn secret_value(line: &str, colon: usize) -> Option<Range<usize>> {
    let key = line[..colon].trim_end_matches(['"', '\'', ' ']);
    let key_start = key.rfind(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').map_or(0, |at| at + 1);
    let key_start = key.ceil_char_boundary(key_start);
    let rest = &line[colon + 1..];
    let value = rest.trim_start();
    let follows = rest.starts_with([' ', '"', '\'']);
    let key = &key[key_start..];
    // Sessions have a list of secrets; a secret by its place is none to see.
    let secret = holds_secret(key) || key == "keys" || key == "key" && is_key_itself(value);
    let place = value.starts_with(['{', '#']) || value.starts_with("[{");
    if !follows || !secret || value.is_empty() || place {
        return None;
    }
    Some(line.len() - value.len()..line.trim_end().len())
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
            ("client_secrt: hunter2", "client_secrt: *******"),
            ("client_secret: { env: NAME }", "client_secret: { env: NAME }"),
            ("keys: [hunter2]", "keys: *********"),
            ("keys: [{ file: x }]", "keys: [{ file: x }]"),
            ("max_keys: 5", "max_keys: 5"),
            ("key: MC4CAQAwBQYDK2VwBCIEIPz1aGVsbG8=", "key: ********************************"),
            (
                "{ key: \"-----BEGIN PRIVATE KEY-----\\nMC4C\" }",
                "{ key: *************************************",
            ),
            ("key: /etc/tidegate/clients/Billing-2/key.pem", "key: /etc/tidegate/clients/Billing-2/key.pem"),
            ("key: [\"header:x-api\", client-ip]", "key: [\"header:x-api\", client-ip]"),
            (
                "key: |\n  -----BEGIN EC PRIVATE KEY-----\n  MC4C\n  -----END EC PRIVATE KEY-----\n  a: b",
                "key: |\n  ******************************\n  ****\n  ****************************\n  a: b",
            ),
            (
                "key: -----BEGIN PRIVATE KEY-----\n  MC4C\n\n  AQAw\nname: x",
                "key: ***************************\n  ****\n\n  ****\nname: x",
            ),
            ("-----BEGIN CERTIFICATE-----\nMC4C", "-----BEGIN CERTIFICATE-----\nMC4C"),
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
