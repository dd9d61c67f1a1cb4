//! The head of a response, and where it says that the body ends (RFC 9112 §§4–6).

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};

use super::{After, Chunk, Head, MOST_FIELDS, MOST_HEAD_BYTES, Malformed, Rest};

/// Most informational heads before the final one.
pub(super) const MOST_INTERIM: u32 = 64;

/// Takes a final response head from what was read; `None` when it is not all there. Informational heads are skipped and
/// counted in `interim`.
///
/// # Errors
/// When this is no response to a request with `method`.
pub(in super::super) fn head(
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
