use proptest::prelude::*;

use super::*;

fn read(input: &[u8]) -> Result<Place, &'static str> {
    let mut framing = Framing::new();
    framing.read(input).map_err(|ambiguous| ambiguous.why)?;
    Ok(framing.place())
}

#[test]
fn every_whole_message_ends_between_two_requests() {
    for message in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\ncontent-length:5 \r\n\r\nhello",
        "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=b\r\nhello\r\nA \r\n0123456789\r\n0\r\nx: y\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n\n",
    ] {
        assert_eq!(read(message.as_bytes()), Ok(Place::Between), "{message:?}");
    }
}

#[test]
fn a_body_may_look_like_a_head() {
    let inner = "Content-Length: 1\nTransfer-Encoding: gzip\n\n";
    let message = format!(
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
        inner.len()
    );
    assert_eq!(read(message.as_bytes()), Ok(Place::Between));
}

#[test]
fn what_two_readers_could_understand_differently_is_ambiguous() {
    for (message, why) in [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", "a line feed without its carriage return"),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", "a line feed without its carriage return"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", "a line feed without its carriage return"),
        ("\nGET / HTTP/1.1\r\n\r\n", "a line feed without its carriage return"),
        (
            "P / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "both content-length and transfer-encoding",
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            "both transfer-encoding and content-length",
        ),
        ("P / HTTP/1.1\r\ncontent-length: 5\r\nContent-Length: 6\r\n\r\n", "two content-lengths that differ"),
        ("P / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n", "a content-length that is not a number"),
        ("P / HTTP/1.1\r\nContent-Length: +5\r\n\r\n", "a content-length that is not a number"),
        ("P / HTTP/1.1\r\nContent-Length: 0x5\r\n\r\n", "a content-length that is not a number"),
        ("P / HTTP/1.1\r\nContent-Length:\r\n\r\n", "a content-length that is not a number"),
        (
            "P / HTTP/1.1\r\nContent-Length: 9999999999999999999\r\n\r\n",
            "a content-length that is not a number",
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "a transfer-encoding other than one `chunked`",
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
            "a transfer-encoding other than one `chunked`",
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "a transfer-encoding other than one `chunked`",
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "a transfer-encoding other than one `chunked`",
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n",
            "a line feed without its carriage return",
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n",
            "a chunk length that is not a number",
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
            "a chunk length that is not a number",
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            "a chunk length that is not a number",
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: y\n\r\n",
            "a line feed without its carriage return",
        ),
    ] {
        assert_eq!(read(message.as_bytes()), Err(why), "{message:?}");
        // The same, however the network cuts it.
        let mut framing = Framing::new();
        let found =
            message.bytes().enumerate().find_map(|(at, byte)| Some((at, framing.read(&[byte]).err()?.why)));
        assert_eq!(found.map(|(_, why)| why), Some(why), "{message:?} byte by byte");
        let whole = Framing::new().read(message.as_bytes()).unwrap_err().at;
        assert_eq!(found.map(|(at, _)| at), Some(whole), "{message:?} at the same byte");
    }
}

#[test]
fn a_length_in_a_line_longer_than_is_kept_is_refused_however_it_is_cut() {
    for blanks in [47, 48, 49, 50, 200] {
        let message = format!("P / HTTP/1.1\r\nContent-Length:{}5\r\n\r\nhello", " ".repeat(blanks));
        let whole = read(message.as_bytes());
        let mut framing = Framing::new();
        let cut =
            message.bytes().try_for_each(|byte| framing.read(&[byte])).map_err(|ambiguous| ambiguous.why);
        assert_eq!(whole, cut.map(|()| framing.place()), "{blanks}");
        assert_eq!(whole.is_ok(), blanks == 47, "{blanks}");
    }
}

#[test]
fn a_long_header_that_the_network_cuts_is_not_mistaken() {
    let mut framing = Framing::new();
    let long = "x".repeat(200);
    for part in
        ["POST / HTTP/1.1\r\nCookie: content-length: 5", &long, "\r\nContent-Le", "ngth: 3\r", "\n\r\nab"]
    {
        framing.read(part.as_bytes()).unwrap();
    }
    assert_eq!(framing.place(), Place::Body(1));
}

#[test]
fn after_a_request_for_another_protocol_bytes_have_no_meaning_until_it_is_decided() {
    let upgrade = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    let mut agreed = Framing::new();
    agreed.read(upgrade).unwrap();
    assert_eq!(agreed.place(), Place::Undecided);
    agreed.decide(true);
    agreed.read(b"\n\n\n").unwrap();
    assert_eq!(agreed.place(), Place::Opaque);

    let mut refused = Framing::new();
    refused.read(upgrade).unwrap();
    refused.decide(false);
    assert_eq!((refused.place(), refused.is_blind()), (Place::Between, false));

    let mut early = Framing::new();
    early.read(upgrade).unwrap();
    early.read(b"GET / HTTP/1.1\n\n").unwrap();
    assert!(early.is_blind());
}

proptest! {
    #[test]
    fn how_the_network_cuts_a_stream_changes_nothing(
        bodies in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..100)), 1..5),
        cuts in prop::collection::vec(1usize..40, 1..60),
    ) {
        let mut stream = Vec::new();
        for (chunked, body) in &bodies {
            if *chunked {
                stream.extend_from_slice(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
                for chunk in body.chunks(30) {
                    stream.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    stream.extend_from_slice(chunk);
                    stream.extend_from_slice(b"\r\n");
                }
                stream.extend_from_slice(b"0\r\n\r\n");
            } else {
                stream.extend_from_slice(format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
                stream.extend_from_slice(body);
            }
        }
        let mut framing = Framing::new();
        let mut rest = &stream[..];
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let (part, tail) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            prop_assert_eq!(framing.read(part), Ok(()));
            rest = tail;
        }
        prop_assert_eq!(framing.place(), Place::Between);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 0usize..400) {
        let mut framing = Framing::new();
        let (first, second) = bytes.split_at(cut.min(bytes.len()));
        let _ = framing.read(first).and_then(|()| framing.read(second));
    }
}
