//! Which calls go where.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Hold, RouteInFlight, RouteKind, Timeout};
use crate::config::formats::{HostText, MethodText, PathText, RouteNameText};

/// Which calls go where.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The route's name in metrics and state. Default: its host and path.
    #[serde(default)]
    #[schemars(with = "Option<RouteNameText>")]
    pub name: Option<String>,
    /// What a call must look like. Default: every call.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// The names of limits, at most 8; all must admit, or none is charged. Default: none.
    #[serde(default)]
    pub limits: Vec<String>,
    /// The name of the upstream.
    pub upstream: String,
    /// The name of the session that its calls need. Default: none, everybody may come in.
    #[serde(default)]
    pub session: Option<String>,
    /// What the calls of this route are. Default: `auto`.
    #[serde(default)]
    pub kind: RouteKind,
    /// Calls in flight on this route, inside of the upstream's limit. Default: no limit of its own.
    #[serde(default)]
    pub in_flight: Option<RouteInFlight>,
    /// Overrides the upstream's `in_flight.hold` on this route. Default: the upstream's.
    #[serde(default)]
    pub hold: Option<Hold>,
    /// Overrides the upstream's `timeout` on this route, for streams as well. Default: the upstream's; none for streams.
    #[serde(default)]
    pub timeout: Option<Timeout>,
}

/// What a call must look like.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// A host, or `*.domain` for every host below it. Default: any.
    #[serde(default)]
    #[schemars(with = "Option<HostText>")]
    pub host: Option<String>,
    /// A path prefix, matched on segment borders: `/orders` matches `/orders` and `/orders/1`, never `/orders2`. Default: `/`.
    #[serde(default)]
    #[schemars(with = "Option<PathText>")]
    pub path: Option<String>,
    /// Methods. Default: any.
    #[serde(default)]
    #[schemars(with = "Vec<MethodText>")]
    pub methods: Vec<String>,
    /// Headers and their exact values. Default: none.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}
