use bytes::BytesMut;
use http::{HeaderMap, Method};

use super::{body::MOST_CHUNK_LINE, head::MOST_INTERIM, *};

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
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n", chunked, After::Close),
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
