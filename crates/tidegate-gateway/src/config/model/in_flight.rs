//! Calls in flight: what a configuration says of an upstream's and of a route's.

use std::{collections::BTreeMap, num::NonZeroU32};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Off, Timeout};
use crate::config::{
    defaults::*,
    formats::{PartitionKeyText, StreamPathText},
    units::HumanDuration,
};

/// Calls in flight to an upstream. Exactly one of `limit`, `adaptive` and `fleet` says how many.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InFlight {
    /// Most calls at once; `off` for any number, counted all the same.
    #[serde(default)]
    pub limit: Option<Ceiling>,
    /// A limit that follows the upstream: `gradient` and `vegas` by its latency, `aimd` by errors and a latency bound;
    /// all of them by calls that hang.
    #[serde(default)]
    pub adaptive: Option<Law>,
    /// Least limit of `adaptive`, where it begins. Default: 10, or `max` if that is less.
    #[serde(default)]
    #[schemars(range(max = 1_048_575))]
    pub min: Option<NonZeroU32>,
    /// Greatest limit of `adaptive`. Default: 1000, or `min` if that is more.
    #[serde(default)]
    #[schemars(range(max = 1_048_575))]
    pub max: Option<NonZeroU32>,
    /// Of `aimd`: a mean latency that is longer counts as overload. Default: none.
    #[serde(default)]
    pub latency: Option<HumanDuration>,
    /// Most calls at once of all gateways that share the `store` and the `namespace`. With `memory://` this process is
    /// the whole fleet.
    #[serde(default)]
    #[schemars(range(max = 1_048_575))]
    pub fleet: Option<NonZeroU32>,
    /// Most callers waiting for a permit; 0 for none. Default: 1000.
    #[serde(default = "default_queue")]
    #[schemars(range(max = 1_048_575))]
    pub queue: u32,
    /// Longest wait for a permit. Default: 500ms.
    #[serde(default = "default_max_wait")]
    pub max_wait: HumanDuration,
    /// Who goes first among those who wait. Default: `fifo`.
    #[serde(default)]
    pub order: Order,
    /// How long a call holds its permit. Default: `body`.
    #[serde(default)]
    pub hold: Hold,
    /// Permits held for longer are counted in metrics and state. Default: `off`.
    #[serde(default = "default_watch")]
    pub watch_held_longer_than: Timeout,
    /// Longest silence of a stream, either way, in place of `idle_timeout`. Default: `idle_timeout`.
    #[serde(default)]
    pub idle_stream: Option<Timeout>,
    /// A limit of their own for long-lived streams, so that they starve no calls. Default: none, streams are calls.
    #[serde(default)]
    pub streams: Option<Streams>,
    /// Shares of the limit, which borrow from each other what is idle. Default: none.
    #[serde(default)]
    pub partitions: Option<Partitions>,
}

impl InFlight {
    /// A fixed limit, all else by default.
    pub fn at_most(limit: NonZeroU32) -> Self {
        Self {
            limit: Some(Ceiling::Calls(limit)),
            adaptive: None,
            min: None,
            max: None,
            latency: None,
            fleet: None,
            queue: default_queue(),
            max_wait: default_max_wait(),
            order: Order::default(),
            hold: Hold::default(),
            watch_held_longer_than: default_watch(),
            idle_stream: None,
            streams: None,
            partitions: None,
        }
    }

    /// The bounds of an adaptive limit.
    pub fn bounds(&self) -> (u32, u32) {
        let (min, max) = (self.min.map(NonZeroU32::get), self.max.map(NonZeroU32::get));
        let least = min.unwrap_or(DEFAULT_MIN.min(max.unwrap_or(DEFAULT_MIN)));
        (least, max.unwrap_or(DEFAULT_MAX.max(least)))
    }
}

/// A number of calls, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Ceiling {
    /// Any number: written `off`.
    Off(Off),
    /// At most so many.
    Calls(#[schemars(range(max = 1_048_575))] NonZeroU32),
}

impl Ceiling {
    /// The number, if there is one.
    pub fn calls(self) -> Option<NonZeroU32> {
        match self {
            Self::Off(_) => None,
            Self::Calls(calls) => Some(calls),
        }
    }
}

/// How a limit follows its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Law {
    /// Keeps latency near what it is without load.
    Gradient,
    /// Grows by one while all is well, falls by a tenth when it is not.
    Aimd,
    /// Keeps the queue at the upstream, as latency tells of it, short.
    Vegas,
}

impl Law {
    /// Its name in the configuration and in state.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gradient => "gradient",
            Self::Aimd => "aimd",
            Self::Vegas => "vegas",
        }
    }
}

/// Who goes first among those who wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The one that came first.
    #[default]
    Fifo,
    /// The newest, while more wait than may run at once: the oldest are about to leave.
    LifoWhenBusy,
}

/// How long a call holds its permit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Hold {
    /// To the end of the response body.
    #[default]
    Body,
    /// To the response head: for downloads that would starve short calls.
    Headers,
}

/// The limit of long-lived streams: upgraded connections such as WebSockets, Server-Sent Events (by `Accept:
/// text/event-stream`), every call of a route of `kind: stream`, and calls to `paths`. They take no permit of the calls.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Streams {
    /// Most streams at once; `off` for any number, counted all the same.
    pub limit: Ceiling,
    /// gRPC methods, or other paths, that are streams: whole, or a beginning with a `*` at its end. Default: none.
    #[serde(default)]
    #[schemars(with = "Vec<StreamPathText>")]
    pub paths: Vec<String>,
    /// Most callers waiting for a stream's permit. Default: 0, since streams seldom end.
    #[serde(default)]
    #[schemars(range(max = 1_048_575))]
    pub queue: u32,
    /// Longest wait for a stream's permit. Default: 500ms.
    #[serde(default = "default_max_wait")]
    pub max_wait: HumanDuration,
}

/// Shares of a limit. Whoever has least for its share goes next; what nobody waits for is lent.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Partitions {
    /// What tells calls apart: `header:NAME`, `cookie:NAME`, `path`, `path:N`, `method` or `host`.
    #[schemars(with = "PartitionKeyText")]
    pub by: String,
    /// Values and their shares, relative to each other; at most 64. `queue` is the line of each.
    pub shares: BTreeMap<String, NonZeroU32>,
    /// The share of all other calls together. Default: 1.
    #[serde(default = "default_share")]
    pub other: NonZeroU32,
}

/// Calls in flight on one route, inside of the upstream's limit.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteInFlight {
    /// Most calls at once on this route, streams included.
    #[schemars(range(max = 1_048_575))]
    pub limit: NonZeroU32,
    /// Most callers waiting for a permit; 0 for none. Default: 1000.
    #[serde(default = "default_queue")]
    #[schemars(range(max = 1_048_575))]
    pub queue: u32,
    /// Longest wait for a permit. Default: 500ms.
    #[serde(default = "default_max_wait")]
    pub max_wait: HumanDuration,
    /// Who goes first among those who wait. Default: `fifo`.
    #[serde(default)]
    pub order: Order,
    /// Permits held for longer are counted in metrics and state. Default: `off`.
    #[serde(default = "default_watch")]
    pub watch_held_longer_than: Timeout,
}

/// What the calls of a route are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RouteKind {
    /// Streams where that can be seen: upgrades, Server-Sent Events, and the `paths` of `in_flight.streams`.
    #[default]
    Auto,
    /// Calls, whatever they look like.
    Call,
    /// Long-lived streams: without the upstream's `timeout`, with its `in_flight.streams` and `in_flight.idle_stream`.
    Stream,
}
