//! The body of a response, by length, in chunks, or to the end of the connection (RFC 9112 §§6–7).

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body::Frame;

use super::{Chunk, MOST_FIELDS, MOST_HEAD_BYTES, Malformed, Rest};

/// Most bytes of the line that begins a chunk, extensions included.
pub(super) const MOST_CHUNK_LINE: usize = 4 << 10;
/// Sixteen hexadecimal digits fill 64 bits.
const MOST_CHUNK_DIGITS: usize = 16;

/// What a look at the bytes gave.
#[derive(Debug)]
pub(in super::super) enum Decoded {
    Frame(Frame<Bytes>),
    End,
    /// More bytes are needed.
    More,
}

impl Rest {
    /// Takes the next frame from what was read.
    ///
    /// # Errors
    /// When the bytes are no body of this kind.
    pub(in super::super) fn next(&mut self, read: &mut BytesMut) -> Result<Decoded, Malformed> {
        match self {
            Self::Nothing => Ok(Decoded::End),
            Self::ToEnd if read.is_empty() => Ok(Decoded::More),
            Self::ToEnd => Ok(Decoded::Frame(Frame::data(read.split().freeze()))),
            Self::Length(_) if read.is_empty() => Ok(Decoded::More),
            Self::Length(left) => {
                let piece = take(read, left);
                if *left == 0 {
                    *self = Self::Nothing;
                }
                Ok(Decoded::Frame(Frame::data(piece)))
            }
            Self::Chunked(_) => self.next_chunk(read),
        }
    }

    /// Whether a body may end where the connection does.
    pub(in super::super) fn ends_with_connection(self) -> bool {
        matches!(self, Self::ToEnd | Self::Nothing)
    }

    fn next_chunk(&mut self, read: &mut BytesMut) -> Result<Decoded, Malformed> {
        loop {
            let Self::Chunked(chunk) = self else { return Ok(Decoded::End) };
            match chunk {
                Chunk::Size => match size(read)? {
                    None => return Ok(Decoded::More),
                    Some(0) => *chunk = Chunk::Trailers,
                    Some(size) => *chunk = Chunk::Data(size),
                },
                Chunk::Data(_) if read.is_empty() => return Ok(Decoded::More),
                Chunk::Data(left) => {
                    let piece = take(read, left);
                    if *left == 0 {
                        *chunk = Chunk::DataEnd;
                    }
                    return Ok(Decoded::Frame(Frame::data(piece)));
                }
                Chunk::DataEnd if read.len() < 2 => return Ok(Decoded::More),
                Chunk::DataEnd => {
                    if !read.starts_with(b"\r\n") {
                        return Err(Malformed::Chunk);
                    }
                    read.advance(2);
                    *chunk = Chunk::Size;
                }
                Chunk::Trailers => {
                    let Some(trailers) = trailers(read)? else { return Ok(Decoded::More) };
                    *self = Self::Nothing;
                    if !trailers.is_empty() {
                        return Ok(Decoded::Frame(Frame::trailers(trailers)));
                    }
                }
            }
        }
    }
}

/// Takes at most `left` bytes.
fn take(read: &mut BytesMut, left: &mut u64) -> Bytes {
    let size = usize::try_from(*left).map_or(read.len(), |left| left.min(read.len()));
    *left -= size as u64;
    read.split_to(size).freeze()
}

/// Takes the line that begins a chunk.
fn size(read: &mut BytesMut) -> Result<Option<u64>, Malformed> {
    let Some(end) = read.iter().take(MOST_CHUNK_LINE).position(|byte| *byte == b'\n') else {
        return if read.len() >= MOST_CHUNK_LINE { Err(Malformed::Chunk) } else { Ok(None) };
    };
    let line = read[..end].strip_suffix(b"\r").ok_or(Malformed::Chunk)?;
    if line.contains(&b'\r') {
        return Err(Malformed::Chunk);
    }
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    if digits.is_empty() || digits.len() > MOST_CHUNK_DIGITS || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(Malformed::Chunk);
    }
    let size = str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let size = size.ok_or(Malformed::Chunk)?;
    read.advance(end + 1);
    Ok(Some(size))
}

/// Takes the trailer section, without the fields that would speak of framing.
fn trailers(read: &mut BytesMut) -> Result<Option<HeaderMap>, Malformed> {
    if read.starts_with(b"\r\n") {
        read.advance(2);
        return Ok(Some(HeaderMap::new()));
    }
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let (size, trailers) = match httparse::parse_headers(read, &mut fields) {
        Ok(httparse::Status::Partial) if read.len() > MOST_HEAD_BYTES => return Err(Malformed::TooLarge),
        Ok(httparse::Status::Partial) => return Ok(None),
        Ok(httparse::Status::Complete((size, _))) if size > MOST_HEAD_BYTES => {
            return Err(Malformed::TooLarge);
        }
        Ok(httparse::Status::Complete((size, fields))) => {
            let mut trailers = HeaderMap::with_capacity(fields.len());
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::Trailers)?;
                let value = HeaderValue::from_bytes(field.value).map_err(|_| Malformed::Trailers)?;
                if name != header::CONTENT_LENGTH && name != header::TRANSFER_ENCODING {
                    trailers.append(name, value);
                }
            }
            (size, trailers)
        }
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TooLarge),
        Err(_) => return Err(Malformed::Trailers),
    };
    read.advance(size);
    Ok(Some(trailers))
}
