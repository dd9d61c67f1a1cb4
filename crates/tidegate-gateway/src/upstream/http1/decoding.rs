//! A whole response from bytes in memory: what the decoder makes of it must not depend on how the bytes arrive.

use bytes::BytesMut;
use http::{HeaderMap, Method, Response};

use super::decode::{self, After, Decoded, Malformed};

/// What a stream of bytes is as a response.
#[derive(Debug)]
pub struct Decoding {
    head: Option<Response<()>>,
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    end: End,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Whole(After, Vec<u8>),
    Refused,
}

impl PartialEq for Decoding {
    fn eq(&self, other: &Self) -> bool {
        let head = |decoding: &Self| {
            decoding.head.as_ref().map(|head| (head.status(), head.version(), head.headers().clone()))
        };
        (head(self), &self.data, &self.trailers, &self.end)
            == (head(other), &other.data, &other.trailers, &other.end)
    }
}

impl Decoding {
    /// Reads `pieces` as the response to a request with `method`.
    pub(crate) fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, method: &Method) -> Self {
        let mut decoding = Self { head: None, data: Vec::new(), trailers: None, end: End::Refused };
        if let Ok((after, mut left, rest)) = decoding.read(&mut pieces.into_iter(), method) {
            left.extend(rest);
            decoding.end = End::Whole(after, left);
        }
        decoding
    }

    fn read<'a>(
        &mut self,
        pieces: &mut impl Iterator<Item = &'a [u8]>,
        method: &Method,
    ) -> Result<(After, Vec<u8>, Vec<u8>), Malformed> {
        let (mut read, mut interim) = (BytesMut::new(), 0);
        let mut head = loop {
            match decode::head(&mut read, method, &mut interim)? {
                Some(head) => break head,
                None => read.extend_from_slice(pieces.next().ok_or(Malformed::Incomplete)?),
            }
        };
        self.head = Some(head.response);
        loop {
            match head.rest.next(&mut read)? {
                Decoded::Frame(frame) => match frame.into_data() {
                    Ok(data) => self.data.extend_from_slice(&data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Decoded::End => break,
                Decoded::More => match pieces.next() {
                    Some(piece) => read.extend_from_slice(piece),
                    None if head.rest.ends_with_connection() => break,
                    None => return Err(Malformed::Incomplete),
                },
            }
        }
        Ok((head.after, read.to_vec(), pieces.flatten().copied().collect()))
    }
}
