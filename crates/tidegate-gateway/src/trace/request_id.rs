//! The id of a request: the client's own if it is sane, else 128 random bits.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::context::digits;

/// The header that carries it, both ways.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id taken over from a client, in bytes.
const LONGEST: usize = 128;

/// The request's id. An id taken over shares the memory of the header; one made up is 32 hexadecimal digits.
pub fn request_id(headers: &HeaderMap) -> HeaderValue {
    let mut all = headers.get_all(X_REQUEST_ID).iter();
    match (all.next(), all.next()) {
        (Some(id), None) if is_sane(id.as_bytes()) => id.clone(),
        _ => {
            let mut text = [0; 32];
            digits(&mut text, fastrand::u128(..));
            HeaderValue::from_bytes(&text).expect("hexadecimal digits are a header value")
        }
    }
}

/// Short, and of characters that are safe in every log and URL.
fn is_sane(id: &[u8]) -> bool {
    let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~+/=:".contains(byte);
    (1..=LONGEST).contains(&id.len()) && id.iter().all(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(values: &[&[u8]]) -> HeaderValue {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(X_REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
        }
        request_id(&headers)
    }

    #[test]
    fn a_sane_id_is_kept() {
        let longest = [b'x'; LONGEST];
        for id in [&b"1"[..], b"01ARZ3NDEKTSV4RRFFQ69G5FAV", b"req_a-b.c~d+e/f=:1", &longest] {
            assert_eq!(id_for(&[id]).as_bytes(), id);
        }
    }

    #[test]
    fn an_id_that_is_odd_long_or_doubled_is_replaced() {
        let long = [b'x'; LONGEST + 1];
        let odd: [&[&[u8]]; 7] = [&[], &[b""], &[b"a b"], &[b"\"x\""], &[b"\xff"], &[&long], &[b"a", b"b"]];
        for ids in odd {
            let id = id_for(ids);
            assert_eq!(id.len(), 32, "{ids:?}");
            assert!(id.as_bytes().iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        }
        assert_ne!(id_for(&[]), id_for(&[]));
    }
}
