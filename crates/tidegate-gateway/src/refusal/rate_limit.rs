//! What a client is told of its limits: the `RateLimit` and `RateLimit-Policy` fields.

use std::{fmt::Write, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::ceil_secs;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Where a call stands with one limit: what the `RateLimit` fields tell (draft-ietf-httpapi-ratelimit-headers-10).
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// The fields of the limit that never change, rendered once.
    pub policy: &'a Policy,
    /// Units left now.
    pub remaining: u32,
    /// Until the whole limit is there again.
    pub reset_in: Duration,
    /// Whether this limit refused the call.
    pub violated: bool,
}

/// The name and the policy of a limit, rendered once.
#[derive(Clone, Debug)]
pub struct Policy {
    name: String,
    member: String,
}

impl Policy {
    /// Renders the policy of the limit `name`: `quota` units per `window`.
    pub fn new(name: &str, quota: u32, window: Duration) -> Self {
        let escaped: String =
            name.chars().filter(|c| (' '..='~').contains(c) && !matches!(c, '"' | '\\')).collect();
        let member = format!("\"{escaped}\";q={quota};w={}", window.as_secs().max(1));
        Self { name: escaped, member }
    }

    /// The limit's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The `RateLimit-Policy` of several limits, rendered once. None when there are none.
pub fn policies<'a>(policies: impl IntoIterator<Item = &'a Policy>) -> Option<HeaderValue> {
    let members: Vec<&str> = policies.into_iter().map(|policy| &*policy.member).collect();
    let list = HeaderValue::try_from(members.join(", ")).expect("a policy has only visible characters");
    (!members.is_empty()).then_some(list)
}

/// Adds the `RateLimit` and `RateLimit-Policy` fields for `standings`, whose policies were rendered before.
pub fn rate_limit_fields<'a>(
    headers: &mut HeaderMap,
    policies: Option<&HeaderValue>,
    standings: impl IntoIterator<Item = Standing<'a>>,
) {
    let Some(policies) = policies else { return };
    let mut list = String::with_capacity(policies.len() + 32);
    for Standing { policy, remaining, reset_in, .. } in standings {
        let comma = if list.is_empty() { "" } else { ", " };
        let _ = write!(list, "{comma}\"{}\";r={remaining};t={}", policy.name, ceil_secs(reset_in));
    }
    if let Ok(list) = HeaderValue::from_maybe_shared(Bytes::from(list)) {
        headers.insert(RATE_LIMIT_POLICY, policies.clone());
        headers.insert(RATE_LIMIT, list);
    }
}
