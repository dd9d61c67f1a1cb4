//! Reading responses: where the head ends, what it says, and where the body ends (RFC 9112 §§4–7).

mod body;
mod head;

use std::fmt;

use http::Response;

pub(super) use self::{body::Decoded, head::head};

/// Most bytes of a response head, and of a trailer section.
const MOST_HEAD_BYTES: usize = 64 << 10;
/// Most fields in either.
const MOST_FIELDS: usize = 128;

/// Why bytes are no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Malformed {
    Head,
    TooLarge,
    Interim,
    Status,
    Framing,
    Chunk,
    Trailers,
    Incomplete,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head => "the response head is not valid HTTP/1.1",
            Self::TooLarge => "the response head or trailer section is larger than 64 KiB or 128 fields",
            Self::Interim => "more than 64 informational heads came before the response",
            Self::Status => "the endpoint switched protocols without being asked",
            Self::Framing => "the response says in two ways, or in none that is valid, where its body ends",
            Self::Chunk => "a chunk of the response body is malformed",
            Self::Trailers => "the trailers of the response are malformed",
            Self::Incomplete => "the connection ended before the response did",
        })
    }
}

impl std::error::Error for Malformed {}

/// Whether a connection may be used again after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum After {
    Reuse,
    Close,
}

/// A response head and what follows it.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) rest: Rest,
    pub(super) after: After,
}

/// What is left to read of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Rest {
    /// Nothing.
    Nothing,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
    /// All that comes until the connection ends.
    ToEnd,
}

/// Where in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Chunk {
    /// Before the line with the size.
    Size,
    /// So many bytes before the end of a chunk.
    Data(u64),
    /// Before the line end after the data.
    DataEnd,
    /// After the last chunk.
    Trailers,
}

#[cfg(test)]
mod tests;
