//! A call whose proof lacked the upstream's nonce: it was not acted on, and goes once more, to the same endpoint.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::Full;

use crate::{
    body::RequestBody,
    exchange::Exchange,
    oidc::prove::{Heard, Proving},
    upstream::UpstreamBody,
};

/// The proofs of a call, and what it takes to send it once more.
pub(super) struct Again {
    proving: Arc<Proving>,
    spare: Option<Spare>,
}

struct Spare {
    head: Parts,
    body: Body,
}

enum Body {
    Whole(Full<Bytes>),
    /// As it went up, if it was one piece.
    Up,
}

/// Whether a call may be sent more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeats {
    Once,
    Never,
}

impl Again {
    /// What a call is sent again by, if its proofs may make that necessary.
    pub(super) fn of(request: &mut Request<RequestBody>, repeats: Repeats) -> Option<Box<Self>> {
        let proving = Proving::of(request)?;
        let spare = (repeats == Repeats::Once).then(|| {
            let body = match request.body() {
                RequestBody::Whole(body) => Body::Whole(body.clone()),
                RequestBody::Incoming(upload) => {
                    upload.keep();
                    Body::Up
                }
            };
            let mut head = Request::new(()).into_parts().0;
            head.method = request.method().clone();
            head.uri = request.uri().clone();
            head.version = request.version();
            head.headers = request.headers().clone();
            head.extensions = request.extensions().clone();
            Spare { head, body }
        });
        Some(Box::new(Self { proving, spare }))
    }

    /// Learns from an answer; the call, if it should and can be sent again.
    pub(super) fn heard(
        &mut self,
        response: &mut Response<UpstreamBody>,
        exchange: &Exchange,
    ) -> Option<Box<Request<RequestBody>>> {
        let (status, headers) = (response.status(), response.headers_mut());
        if self.proving.heard(status, headers) == Heard::Done {
            return None;
        }
        let Spare { head, body } = self.spare.take()?;
        let body = match body {
            Body::Whole(body) => RequestBody::Whole(body),
            Body::Up => exchange.upload.as_ref()?.again()?.into(),
        };
        Some(Box::new(Request::from_parts(head, body)))
    }
}
