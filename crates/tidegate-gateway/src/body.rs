//! The bodies that pass through: a request's on its way up, a response's on its way down. Neither is ever buffered.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;

use crate::{exchange::Exchange, flow::Flow, upload::Upload, upstream::UpstreamBody};

/// Why a body ended early.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A request body on its way to an upstream.
#[derive(Debug)]
pub enum RequestBody {
    /// As it comes from the client.
    Incoming(Box<Upload>),
    /// A whole one, held in memory: the gateway's own requests.
    Whole(Full<Bytes>),
}

/// A response body on its way to a client.
#[derive(Debug)]
pub enum ResponseBody {
    /// As it comes from an upstream.
    Upstream(Flow<UpstreamBody, Exchange>),
    /// A whole one, held in memory: the gateway's own answers.
    Whole(Full<Bytes>),
}

macro_rules! passes_through {
    ($body:ident: $($variant:ident),+) => {
        impl $body {
            /// A body without content.
            pub fn empty() -> Self {
                Self::Whole(Full::default())
            }
        }

        impl From<Bytes> for $body {
            fn from(bytes: Bytes) -> Self {
                Self::Whole(Full::new(bytes))
            }
        }

        impl Body for $body {
            type Data = Bytes;
            type Error = BodyError;

            fn poll_frame(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
                match self.get_mut() {
                    $(Self::$variant(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),)+
                }
            }

            fn is_end_stream(&self) -> bool {
                match self {
                    $(Self::$variant(body) => body.is_end_stream(),)+
                }
            }

            fn size_hint(&self) -> SizeHint {
                match self {
                    $(Self::$variant(body) => body.size_hint(),)+
                }
            }
        }
    };
}

passes_through!(RequestBody: Incoming, Whole);
passes_through!(ResponseBody: Upstream, Whole);
