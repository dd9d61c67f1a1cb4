//! What the fuzz targets need of the inside; no part of the API.

use http::Method;

pub use crate::upstream::Decoding;

/// Reads bytes that arrive in `pieces` as the response to a request with `method`, to the end of the connection.
pub fn response<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, method: &Method) -> Decoding {
    Decoding::of(pieces, method)
}
