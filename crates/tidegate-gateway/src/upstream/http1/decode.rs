//! Reading responses: where the head ends, what it says, and where the body ends (RFC 9112 §§4–7).

use std::{fmt, mem::MaybeUninit};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};
use http_body::Frame;

/// Most bytes of a response head, and of a trailer section.
const MOST_HEAD_BYTES: usize = 64 << 10;
/// Most fields in either.
const MOST_FIELDS: usize = 128;
/// Most informational heads before the final one.
const MOST_INTERIM: u32 = 64;
/// Most bytes of the line that begins a chunk, extensions included.
const MOST_CHUNK_LINE: usize = 4 << 10;
/// Sixteen hexadecimal digits fill 64 bits.
const MOST_CHUNK_DIGITS: usize = 16;

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

/// Takes a final response head from what was read; `None` when it is not all there. Informational heads are skipped and
/// counted in `interim`.
///
/// # Errors
/// When this is no response to a request with `method`.
pub(super) fn head(
    read: &mut BytesMut,
    method: &Method,
    interim: &mut u32,
) -> Result<Option<Head>, Malformed> {
    loop {
        if read.is_empty() {
            return Ok(None);
        }
        let Some(parsed) = parse(read)? else {
            return if read.len() > MOST_HEAD_BYTES { Err(Malformed::TooLarge) } else { Ok(None) };
        };
        match parsed.response.status() {
            StatusCode::SWITCHING_PROTOCOLS => return Err(Malformed::Status),
            status if status.is_informational() && *interim < MOST_INTERIM => *interim += 1,
            status if status.is_informational() => return Err(Malformed::Interim),
            _ => return framed(parsed, method).map(Some),
        }
    }
}

struct Parsed {
    response: Response<()>,
    lengths: Lengths,
}

/// What a head says of lengths.
#[derive(Clone, Copy, Default)]
struct Lengths {
    length: Option<u64>,
    encoded: bool,
}

fn parse(read: &mut BytesMut) -> Result<Option<Parsed>, Malformed> {
    #[derive(Clone, Copy)]
    struct Field {
        name: (u32, u32),
        value: (u32, u32),
    }
    let mut fields = [Field { name: (0, 0), value: (0, 0) }; MOST_FIELDS];
    let (size, count, code, version) = {
        let mut headers = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let size = match config.parse_response_with_uninit_headers(&mut response, read, &mut headers) {
            Ok(httparse::Status::Complete(size)) => size,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TooLarge),
            Err(_) => return Err(Malformed::Head),
        };
        let start = read.as_ptr() as usize;
        let range = |part: &[u8]| {
            let from = part.as_ptr() as usize - start;
            (from as u32, (from + part.len()) as u32)
        };
        for (field, header) in fields.iter_mut().zip(response.headers.iter()) {
            *field = Field { name: range(header.name.as_bytes()), value: range(header.value) };
        }
        (size, response.headers.len(), response.code.unwrap_or(0), response.version.unwrap_or(0))
    };
    if size > MOST_HEAD_BYTES {
        return Err(Malformed::TooLarge);
    }
    let head = read.split_to(size).freeze();
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(code).map_err(|_| Malformed::Head)?;
    *response.version_mut() = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut lengths = Lengths::default();
    let headers = response.headers_mut();
    // With room for what a gateway adds, so that the map is not built twice.
    headers.reserve(count + 6);
    for field in &fields[..count] {
        let name = HeaderName::from_bytes(&head[field.name.0 as usize..field.name.1 as usize])
            .map_err(|_| Malformed::Head)?;
        let value = head.slice(field.value.0 as usize..field.value.1 as usize);
        if name == header::CONTENT_LENGTH {
            let length = length(&value)?;
            if lengths.length.replace(length).is_some_and(|earlier| earlier != length) {
                return Err(Malformed::Framing);
            }
            headers.insert(name, HeaderValue::from(length));
            continue;
        }
        lengths.encoded |= name == header::TRANSFER_ENCODING;
        headers.append(name, HeaderValue::from_maybe_shared(value).map_err(|_| Malformed::Head)?);
    }
    Ok(Some(Parsed { response, lengths }))
}

/// A length is digits and nothing else; a list of equal ones is one (RFC 9110 §8.6).
fn length(value: &[u8]) -> Result<u64, Malformed> {
    let mut found = None;
    for part in value.split(|byte| *byte == b',') {
        let digits = part.trim_ascii();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Malformed::Framing);
        }
        let number = str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok());
        let number = number.ok_or(Malformed::Framing)?;
        if found.replace(number).is_some_and(|earlier| earlier != number) {
            return Err(Malformed::Framing);
        }
    }
    found.ok_or(Malformed::Framing)
}

/// Decides where the body ends.
fn framed(parsed: Parsed, method: &Method) -> Result<Head, Malformed> {
    let Parsed { mut response, lengths } = parsed;
    let headers = response.headers();
    let mut after = match response.version() {
        Version::HTTP_10 if !says(headers, header::CONNECTION, b"keep-alive") => After::Close,
        _ if says(headers, header::CONNECTION, b"close") => After::Close,
        _ => After::Reuse,
    };
    let bare = *method == Method::HEAD
        || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let rest = if bare {
        // A 204 that announces a body may have one, and its bytes must not begin the next response (RFC 9112 §6.3).
        let announced = lengths.encoded || lengths.length.is_some_and(|length| length > 0);
        if response.status() == StatusCode::NO_CONTENT && announced {
            after = After::Close;
        }
        Rest::Nothing
    } else if lengths.encoded {
        if response.version() == Version::HTTP_10 {
            return Err(Malformed::Framing);
        }
        if lengths.length.is_some() {
            // Both: the encoding counts, and whoever believed the length is not trusted with another message.
            response.headers_mut().remove(header::CONTENT_LENGTH);
            after = After::Close;
        }
        match codings(response.headers())? {
            Coded::Chunked => Rest::Chunked(Chunk::Size),
            Coded::Otherwise => Rest::ToEnd,
        }
    } else {
        match lengths.length {
            Some(0) => Rest::Nothing,
            Some(length) => Rest::Length(length),
            None => Rest::ToEnd,
        }
    };
    if rest == Rest::ToEnd {
        after = After::Close;
    }
    Ok(Head { response, rest, after })
}

enum Coded {
    Chunked,
    Otherwise,
}

/// Whether the body is chunked, or ends with the connection. Any other coding was not asked for, and without the field,
/// which ends at this hop, nobody could undo it.
fn codings(headers: &HeaderMap) -> Result<Coded, Malformed> {
    let mut coded = Coded::Otherwise;
    for value in headers.get_all(header::TRANSFER_ENCODING) {
        for coding in value.as_bytes().split(|byte| *byte == b',') {
            if matches!(coded, Coded::Chunked) {
                return Err(Malformed::Framing);
            }
            match coding.trim_ascii() {
                coding if coding.eq_ignore_ascii_case(b"chunked") => coded = Coded::Chunked,
                coding if coding.eq_ignore_ascii_case(b"identity") => {}
                _ => return Err(Malformed::Framing),
            }
        }
    }
    Ok(coded)
}

fn says(headers: &HeaderMap, name: HeaderName, word: &[u8]) -> bool {
    headers.get_all(name).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(word))
    })
}

/// What a look at the bytes gave.
#[derive(Debug)]
pub(super) enum Decoded {
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
    pub(super) fn next(&mut self, read: &mut BytesMut) -> Result<Decoded, Malformed> {
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
    pub(super) fn ends_with_connection(self) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Head>, Malformed> {
        head(&mut BytesMut::from(text), &Method::GET, &mut 0)
    }

    #[test]
    fn where_a_body_ends_is_read_from_its_head() {
        let chunked = Rest::Chunked(Chunk::Size);
        for (text, rest, after) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Rest::Length(5), After::Reuse),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\nContent-Length: 5\r\n\r\n",
                Rest::Length(5),
                After::Reuse,
            ),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Rest::Nothing, After::Reuse),
            ("HTTP/1.1 204 No Content\r\n\r\n", Rest::Nothing, After::Reuse),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", Rest::Nothing, After::Reuse),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n", chunked, After::Reuse),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", Rest::Nothing, After::Reuse),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", Rest::Nothing, After::Close),
            ("HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n", Rest::Nothing, After::Close),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n",
                chunked,
                After::Close,
            ),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n", Rest::ToEnd, After::Close),
            ("HTTP/1.1 200 OK\r\n\r\n", Rest::ToEnd, After::Close),
            (
                "HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 5\r\n\r\n",
                Rest::Length(5),
                After::Close,
            ),
            ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\n", Rest::Length(5), After::Close),
            (
                "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\n",
                Rest::Length(5),
                After::Reuse,
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 \r\n\r\n",
                Rest::Nothing,
                After::Reuse,
            ),
        ] {
            let head = read(text).unwrap().expect(text);
            assert_eq!((head.rest, head.after), (rest, after), "{text}");
        }
        let mut bytes = BytesMut::from("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
        let head = head(&mut bytes, &Method::HEAD, &mut 0).unwrap().unwrap();
        assert_eq!(
            (head.rest, &head.response.headers()["content-length"]),
            (Rest::Nothing, &"5".parse().unwrap())
        );
    }

    #[test]
    fn an_ambiguous_or_malformed_head_is_refused() {
        for (text, why) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", Malformed::Framing),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\n", Malformed::Framing),
            ("HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n", Malformed::Framing),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0x5\r\n\r\n", Malformed::Framing),
            ("HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n", Malformed::Framing),
            ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n", Malformed::Framing),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n", Malformed::Framing),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\n", Malformed::Framing),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", Malformed::Framing),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", Malformed::Framing),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked;q=1\r\n\r\n", Malformed::Framing),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding:\r\n\r\n", Malformed::Framing),
            ("HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n", Malformed::Framing),
            ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Malformed::Framing),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Malformed::Status),
            ("HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n", Malformed::Head),
            ("HTTP/1.1 200 OK\r\na b: c\r\n\r\n", Malformed::Head),
            ("HTTP/1.1 2xx OK\r\n\r\n", Malformed::Head),
            ("HTTP/2.0 200 OK\r\n\r\n", Malformed::Head),
            ("SSH-2.0-OpenSSH_9.6\r\n\r\n", Malformed::Head),
        ] {
            assert_eq!(read(text).map(|_| ()), Err(why), "{text}");
        }
        let many = "a: b\r\n".repeat(MOST_FIELDS + 1);
        assert_eq!(read(&format!("HTTP/1.1 200 OK\r\n{many}\r\n")).map(|_| ()), Err(Malformed::TooLarge));
        let long = "x".repeat(MOST_HEAD_BYTES);
        assert_eq!(read(&format!("HTTP/1.1 200 OK\r\na: {long}")).map(|_| ()), Err(Malformed::TooLarge));
        assert!(read("HTTP/1.1 200 OK\r\ncontent-le").unwrap().is_none());
        let hints = "HTTP/1.1 103 Early Hints\r\n\r\n";
        let most = MOST_INTERIM as usize;
        let ok = "HTTP/1.1 204 No Content\r\n\r\n";
        assert!(read(&format!("{}{ok}", hints.repeat(most))).unwrap().is_some());
        assert_eq!(read(&format!("{}{ok}", hints.repeat(most + 1))).map(|_| ()), Err(Malformed::Interim));
    }

    /// Feeds `text` in pieces of `step` bytes.
    fn chunks(text: &str, step: usize) -> Result<Option<(String, HeaderMap)>, Malformed> {
        let mut rest = Rest::Chunked(Chunk::Size);
        let (mut data, mut trailers) = (String::new(), HeaderMap::new());
        let mut bytes = BytesMut::new();
        let mut pieces = text.as_bytes().chunks(step);
        loop {
            match rest.next(&mut bytes)? {
                Decoded::Frame(frame) => match frame.into_data() {
                    Ok(piece) => data.push_str(str::from_utf8(&piece).unwrap()),
                    Err(frame) => trailers = frame.into_trailers().unwrap(),
                },
                Decoded::End => return Ok(Some((data, trailers))),
                Decoded::More => match pieces.next() {
                    Some(piece) => bytes.extend_from_slice(piece),
                    None => return Ok(None),
                },
            }
        }
    }

    #[test]
    fn chunks_are_joined_however_they_arrive() {
        let text = "5\r\nhello\r\n1;ext=\"a\"\r\n \r\n00A \r\n0123456789\r\n0\r\ngrpc-status: 0\r\ncontent-length: 9\r\n\r\n";
        for step in 1..=text.len() {
            let (data, trailers) = chunks(text, step).unwrap().unwrap();
            assert_eq!((data.as_str(), trailers.len()), ("hello 0123456789", 1));
            assert_eq!(trailers["grpc-status"], "0");
            for cut in 1..text.len() {
                assert_eq!(chunks(&text[..cut], step), Ok(None), "{cut}");
            }
        }
        assert_eq!(chunks("0\r\n\r\n", 1).unwrap().unwrap(), (String::new(), HeaderMap::new()));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        let long = format!("1;{}\r\n", "x".repeat(MOST_CHUNK_LINE));
        for text in [
            "\r\n",
            "5\nhello\r\n",
            "x\r\n",
            "-1\r\n",
            "+5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            " 5\r\nhello\r\n",
            "5\r\nhello0\r\n",
            "5\r\nhelloXX",
            "11111111111111111\r\n",
            "5;a\rb\r\nhello\r\n",
            &long,
        ] {
            assert_eq!(chunks(text, text.len()), Err(Malformed::Chunk), "{text:?}");
        }
        assert_eq!(chunks("0\r\nbad field: x\r\n\r\n", 7), Err(Malformed::Trailers));
        let large = format!("0\r\nx: {}\r\n\r\n", "x".repeat(MOST_HEAD_BYTES));
        for step in [large.len(), 8000] {
            assert_eq!(chunks(&large, step), Err(Malformed::TooLarge), "in pieces of {step}");
        }
    }
}
