//! The metrics of the tokens that calls of upstreams carry.

use std::fmt;

use super::page::{Page, SECONDS};
use crate::state::{TokenPhase, TokenState};

pub(super) fn encode(page: &mut Page<'_>, tokens: &[TokenState]) -> fmt::Result {
    let each = |of: fn(&TokenState) -> u64| {
        tokens.iter().map(move |token| ([("token", token.name.as_str())], of(token)))
    };
    page.counter(
        "tidegate_token_grants",
        "Grants of tokens, by what became of them",
        None,
        tokens.iter().flat_map(|token| {
            let grants = token.grants.iter();
            grants.map(|(outcome, count)| ([("token", token.name.as_str()), ("outcome", *outcome)], *count))
        }),
    )?;
    page.counter(
        "tidegate_token_rejected",
        "Tokens given up, the upstream calling them invalid",
        None,
        each(|t| t.rejected),
    )?;
    page.counter("tidegate_token_refusals", "Calls refused for want of a token", None, each(|t| t.refused))?;
    let floats = |of: fn(&TokenState) -> u64| each(of).map(|(labels, count)| (labels, count as f64));
    page.gauge("tidegate_token_waiting", "Calls that wait for a token", None, floats(|t| t.waiting))?;
    page.gauge("tidegate_token_keys", "Tokens in hand", None, floats(|t| t.keys))?;
    page.gauge(
        "tidegate_token_state",
        "1 for the state that a token is in",
        None,
        tokens.iter().flat_map(|token| {
            TokenPhase::ALL.map(|phase| {
                let is = if phase == token.state { 1.0 } else { 0.0 };
                ([("token", token.name.as_str()), ("state", phase.as_str())], is)
            })
        }),
    )?;
    let lives =
        tokens.iter().filter_map(|token| Some(([("token", token.name.as_str())], token.expires_in_seconds?)));
    page.gauge("tidegate_token_expires_in", "How long the token in hand is good", SECONDS, lives)?;
    let ahead =
        tokens.iter().map(|token| ([("token", token.name.as_str())], token.clock_ahead_seconds as f64));
    page.gauge("tidegate_token_clock_ahead", "How far the provider's clock is ahead of ours", SECONDS, ahead)
}
