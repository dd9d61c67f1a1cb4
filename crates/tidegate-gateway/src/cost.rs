//! What a call costs in a limit: read from its request at once, or from its response at the end.

use std::{fmt, str::FromStr};

use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What tells the cost of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CostSource {
    /// A header field of the request holds a whole number; 0 counts as 1, as clients choose it.
    RequestHeader(HeaderName),
    /// The bytes of the request body, at least 1.
    RequestBytes,
    /// The bytes of the response body.
    ResponseBytes,
    /// A header field, or a trailer field, of the response holds a whole number.
    ResponseHeader(HeaderName),
}

/// Why a text is no cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidCost {
    /// Nothing of the kind.
    Unknown,
    /// The name of a field is missing or is not one.
    Name,
}

impl fmt::Display for InvalidCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => {
                "not a cost; write a number from 1 up, header:NAME, request-bytes, response-bytes or response-header:NAME"
            }
            Self::Name => "the name of this header field is missing or has a character that no such name has",
        })
    }
}

impl std::error::Error for InvalidCost {}

impl FromStr for CostSource {
    type Err = InvalidCost;

    fn from_str(text: &str) -> Result<Self, InvalidCost> {
        let field = |name: &str| HeaderName::from_bytes(name.as_bytes()).map_err(|_| InvalidCost::Name);
        match text.split_once(':') {
            Some(("header", name)) => field(name).map(Self::RequestHeader),
            Some(("response-header", name)) => field(name).map(Self::ResponseHeader),
            None if text == "request-bytes" => Ok(Self::RequestBytes),
            None if text == "response-bytes" => Ok(Self::ResponseBytes),
            None if matches!(text, "header" | "response-header") => Err(InvalidCost::Name),
            _ => Err(InvalidCost::Unknown),
        }
    }
}

impl fmt::Display for CostSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestHeader(name) => write!(f, "header:{name}"),
            Self::RequestBytes => f.write_str("request-bytes"),
            Self::ResponseBytes => f.write_str("response-bytes"),
            Self::ResponseHeader(name) => write!(f, "response-header:{name}"),
        }
    }
}

impl Serialize for CostSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CostSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The whole number in a header field; none when it is not there or is no such number. More than fits counts as the most.
pub fn number_in(headers: &HeaderMap, name: &HeaderName) -> Option<u32> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u32::MAX))
}

/// Bytes as units.
pub fn units(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_read_and_print_as_they_are_written() {
        for text in ["header:x-cost", "request-bytes", "response-bytes", "response-header:x-tokens"] {
            assert_eq!(text.parse::<CostSource>().unwrap().to_string(), text);
        }
        for (text, wrong) in [
            ("", InvalidCost::Unknown),
            ("0", InvalidCost::Unknown),
            ("bytes", InvalidCost::Unknown),
            ("request-bytes:x", InvalidCost::Unknown),
            ("header", InvalidCost::Name),
            ("header:", InvalidCost::Name),
            ("response-header:a b", InvalidCost::Name),
        ] {
            assert_eq!(text.parse::<CostSource>(), Err(wrong), "{text}");
        }
    }

    #[test]
    fn a_number_in_a_header_is_read_strictly() {
        let name = HeaderName::from_static("x-cost");
        for (text, number) in [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("0", Some(0)),
            ("99999999999", Some(u32::MAX)),
            ("", None),
            ("-7", None),
            ("+7", None),
            ("7.5", None),
            ("0x7", None),
            ("7, 8", None),
        ] {
            let headers = HeaderMap::from_iter([(name.clone(), text.parse().unwrap())]);
            assert_eq!(number_in(&headers, &name), number, "{text}");
        }
        assert_eq!(number_in(&HeaderMap::new(), &name), None);
    }
}
