//! A compact signed token, taken apart and checked.

use std::fmt;

use serde::{Deserialize, de::DeserializeOwned};

use super::{Algorithm, from_base64url};

/// Longest token that is looked at. Default: 64 KiB.
const MOST_BYTES: usize = 64 << 10;

/// What a token's header says of its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The algorithm that it claims.
    pub algorithm: Algorithm,
    /// The name of the key.
    pub key_id: Option<String>,
    /// What kind of token it claims to be.
    pub kind: Option<String>,
}

#[derive(Deserialize)]
struct RawHeader {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    crit: Option<serde_json::Value>,
    #[serde(default)]
    b64: Option<serde_json::Value>,
}

/// A token taken apart. Nothing of it is to be believed before its signature was checked.
pub struct Parts<'a> {
    /// What its header says.
    pub header: Header,
    pub(super) signed: &'a str,
    payload: &'a str,
    pub(super) signature: Vec<u8>,
}

/// Why a text is no token that can be checked. No variant holds a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidToken {
    /// It is too long, or does not have three parts of base64url.
    Shape,
    /// Its header is no JSON object with an `alg`.
    Header,
    /// Its algorithm is none that is known here.
    Algorithm,
    /// It demands an extension that is not understood.
    Critical,
    /// Its payload is no JSON of the kind that is wanted.
    Payload,
    /// The signature is not that of the key.
    Signature,
}

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shape => "not three parts of base64url",
            Self::Header => "its header is no JSON object with an alg",
            Self::Algorithm => "its alg is none, or is not known here",
            Self::Critical => "its header demands an extension that is not known here",
            Self::Payload => "its claims are not JSON of the expected kind",
            Self::Signature => "its signature is not that of the provider's key",
        })
    }
}

impl std::error::Error for InvalidToken {}

impl<'a> Parts<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`InvalidToken`].
    pub fn of(token: &'a str) -> Result<Self, InvalidToken> {
        if token.len() > MOST_BYTES {
            return Err(InvalidToken::Shape);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(InvalidToken::Shape)?;
        let (header, payload) = signed.split_once('.').ok_or(InvalidToken::Shape)?;
        let signature = from_base64url(signature).ok_or(InvalidToken::Shape)?;
        if payload.contains('.') || signature.is_empty() {
            return Err(InvalidToken::Shape);
        }
        let header = from_base64url(header).ok_or(InvalidToken::Shape)?;
        let header: RawHeader = serde_json::from_slice(&header).map_err(|_| InvalidToken::Header)?;
        if header.crit.is_some() || header.b64.is_some() {
            return Err(InvalidToken::Critical);
        }
        let algorithm = header.alg.parse().map_err(|_| InvalidToken::Algorithm)?;
        Ok(Self {
            header: Header { algorithm, key_id: header.kid, kind: header.typ },
            signed,
            payload,
            signature,
        })
    }

    /// Reads the claims. Only what was verified is to be believed.
    ///
    /// # Errors
    /// [`InvalidToken`] when they are not what is wanted.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, InvalidToken> {
        let payload = from_base64url(self.payload).ok_or(InvalidToken::Shape)?;
        serde_json::from_slice(&payload).map_err(|_| InvalidToken::Payload)
    }
}

impl fmt::Debug for Parts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("header", &self.header).finish_non_exhaustive()
    }
}
