//! The metrics of limits on calls per time: decisions, credit in hand, and the store that grants it.

use std::fmt;

use super::page::{NONE, Named, Page};
use crate::state::{CreditState, LimitState, StorePhase, StoreState};

pub(super) fn encode(page: &mut Page, limits: &[LimitState], by: &StoreState) -> fmt::Result {
    decisions(page, limits)?;
    credit(page, limits)?;
    store(page, by)
}

fn decisions(page: &mut Page, limits: &[LimitState]) -> fmt::Result {
    page.counter(
        "tidegate_limit_decisions",
        "Decisions of a limit on calls per time; one in shadow refuses nobody",
        None,
        limits.iter().flat_map(|limit| {
            [
                ("admitted", limit.admitted),
                ("refused", limit.refused),
                ("shadow-refused", limit.shadow_refused),
            ]
            .map(|(decision, count)| ([("limit", limit.name.as_str()), ("decision", decision)], count))
        }),
    )?;
    let shared = limits.iter().map(|limit| ([("limit", limit.name.as_str())], limit.shared));
    page.counter("tidegate_limit_shared", "Decisions on a counter shared for want of room", None, shared)?;
    let keys = limits.iter().map(|limit| ([("limit", limit.name.as_str())], limit.keys as f64));
    page.gauge("tidegate_limit_keys", "Keys of a limit remembered", None, keys)?;
    let most = limits.iter().map(|limit| ([("limit", limit.name.as_str())], limit.max_keys as f64));
    page.gauge("tidegate_limit_keys_max", "Most keys of a limit remembered", None, most)
}

fn credit(page: &mut Page, limits: &[LimitState]) -> fmt::Result {
    let shared = || limits.iter().filter_map(|limit| Some((limit.name.as_str(), limit.credit.as_ref()?)));
    let gauges: [Named<CreditState>; 5] = [
        ("tidegate_credit", "Units of a limit that this gateway holds and may spend", |c| c.in_hand),
        ("tidegate_credit_aside", "Units set aside for when the store is away", |c| c.aside),
        ("tidegate_credit_stranded", "Units granted to this gateway that nobody can spend", |c| c.stranded),
        ("tidegate_credit_owed", "Units spent beyond what was reserved, not told to the store yet", |c| {
            c.debt
        }),
        ("tidegate_credit_asking", "Questions of a limit to the store under way", |c| c.asking),
    ];
    for (name, help, of) in gauges {
        page.gauge(name, help, None, shared().map(|(name, c)| ([("limit", name)], of(c) as f64)))?;
    }
    let away = shared().map(|(name, c)| ([("limit", name)], c.away_share));
    let help = "How much of the store is known to be away for a limit, from 0 to 1";
    page.gauge("tidegate_store_away", help, None, away)?;
    let outages = shared().map(|(name, c)| ([("limit", name)], c.outages));
    let help = "How often the store, or a part of it, was found to be away for a limit";
    page.counter("tidegate_store_outages", help, None, outages)?;
    let forgiven = shared().map(|(name, c)| ([("limit", name)], c.forgiven));
    let help = "Units owed that were forgotten for want of room before the store could be told";
    page.counter("tidegate_credit_forgiven", help, None, forgiven)?;
    page.gauge(
        "tidegate_limit_over_admission_possible",
        "The most calls beyond a limit that could have been admitted",
        None,
        limits.iter().map(|limit| {
            let over = limit.over_admission_possible.map_or(f64::INFINITY, |units| units as f64);
            ([("limit", limit.name.as_str())], over)
        }),
    )?;
    page.counter(
        "tidegate_credit_decisions",
        "Decisions of a shared limit, by how they were taken",
        None,
        shared().flat_map(|(name, c)| {
            let aside = ("aside", c.from_aside);
            let unanswered = ("unanswered", c.unanswered);
            [("local", c.local), ("waited", c.waited), aside, ("open", c.open), unanswered]
                .map(|(how, count)| ([("limit", name), ("how", how)], count))
        }),
    )?;
    let operations = shared().map(|(name, c)| ([("limit", name)], c.operations));
    page.counter("tidegate_store_operations", "Questions of a limit to the store", None, operations)?;
    let withheld = shared().map(|(name, c)| ([("limit", name)], c.withheld));
    let help = "Questions not sent, too many being under way or the store resting";
    page.counter("tidegate_store_withheld", help, None, withheld)?;
    let losses = shared().map(|(name, c)| ([("limit", name)], c.losses));
    page.counter("tidegate_store_losses", "Losses of the ledger that were noticed", None, losses)?;
    page.counter(
        "tidegate_store_failures",
        "Questions of a limit that the store did not answer, by what kept it from that",
        None,
        shared().flat_map(|(name, c)| {
            c.failures.iter().map(move |(kind, count)| ([("limit", name), ("kind", *kind)], *count))
        }),
    )?;
    let latency = shared().map(|(name, c)| ([("limit", name)], &c.latency));
    page.histogram(
        "tidegate_store_latency",
        "How long the store took to answer questions of a limit",
        latency,
    )
}

fn store(page: &mut Page, store: &StoreState) -> fmt::Result {
    let phases = StorePhase::ALL
        .map(|phase| ([("state", phase.as_str())], if phase == store.state { 1.0 } else { 0.0 }));
    page.gauge("tidegate_store_state", "1 for the state that the store of counters is in", None, phases)?;
    let now = [(NONE, store.in_flight as f64)];
    page.gauge("tidegate_store_in_flight", "Questions to the store under way", None, now)?;
    let most = [(NONE, store.max_in_flight as f64)];
    page.gauge("tidegate_store_in_flight_max", "Most questions to the store under way", None, most)
}
