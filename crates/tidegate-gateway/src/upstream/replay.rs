//! What it takes to send a request body again: nothing was taken from it, or all that was is still here.

use bytes::Bytes;

use crate::body::RequestBody;

/// What is known of a body that is being sent.
#[derive(Debug, Default)]
pub(crate) enum Replay {
    /// Nothing was taken from it.
    #[default]
    Untouched,
    /// This one piece is all that was taken. Most bodies that are worth a second try, unary gRPC calls among them, are one.
    One(Bytes),
    /// More than is kept.
    Lost,
}

/// Whether a body was read to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Taken {
    All,
    #[default]
    Part,
}

impl Replay {
    /// A piece was taken.
    pub(crate) fn take(&mut self, piece: &Bytes) {
        *self = match std::mem::replace(self, Self::Lost) {
            Self::Untouched => Self::One(piece.clone()),
            Self::One(first) if piece.is_empty() => Self::One(first),
            Self::One(_) | Self::Lost => Self::Lost,
        };
    }

    /// The end was taken, without a piece before it.
    pub(crate) fn end(&mut self) {
        if matches!(self, Self::Untouched) {
            *self = Self::One(Bytes::new());
        }
    }

    /// Something was taken that is not kept.
    pub(crate) fn lose(&mut self) {
        *self = Self::Lost;
    }

    /// The whole of a body that is gone, if it was this one piece.
    pub(crate) fn piece(self, taken: Taken) -> Option<Bytes> {
        match (self, taken) {
            (Self::One(piece), Taken::All) => Some(piece),
            (Self::One(_) | Self::Untouched | Self::Lost, _) => None,
        }
    }

    /// The body as it was at the beginning, if it still can be had.
    pub(crate) fn body(self, body: RequestBody, taken: Taken) -> Option<RequestBody> {
        match (self, taken) {
            (Self::Untouched, _) => Some(body),
            (Self::One(piece), Taken::All) => Some(piece.into()),
            (Self::One(_), Taken::Part) | (Self::Lost, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn again(pieces: &[&'static str], taken: Taken) -> Option<Bytes> {
        let mut replay = Replay::default();
        for piece in pieces {
            replay.take(&Bytes::from_static(piece.as_bytes()));
        }
        let body = replay.body(Bytes::from_static(b"untouched").into(), taken)?;
        Some(body.collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn a_body_of_one_piece_can_be_sent_again_once_it_is_all_there() {
        assert_eq!(again(&[], Taken::Part).await.unwrap(), "untouched");
        assert_eq!(again(&["one"], Taken::All).await.unwrap(), "one");
        assert_eq!(again(&["one", ""], Taken::All).await.unwrap(), "one");
        assert_eq!(again(&["one"], Taken::Part).await, None);
        assert_eq!(again(&["one", "two"], Taken::All).await, None);
    }
}
