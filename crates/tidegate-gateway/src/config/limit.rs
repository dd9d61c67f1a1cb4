//! What a configuration says of limits on calls per time, typed.

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use tidegate_core::{
    self as core, InvalidQuota, Quota, Rate,
    ledger::{Calendar, InvalidRule, Opening, Rule},
};

use super::{
    defaults::{default_estimate, default_keys},
    formats::{CostText, KeyText, QuotaText, RateText},
    units::HumanDuration,
};
use crate::cost::CostSource;

/// A limit on calls per time.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// How many per how long: `100/s`, `2500/min`, `10000/h`, `1/500ms`. A limit has a `rate` or a `quota`.
    #[serde(default, with = "super::units::rate")]
    #[schemars(with = "Option<RateText>")]
    pub rate: Option<Rate>,
    /// How many per calendar `minute`, `hour`, `day` or `month` in UTC, in place of a rate: `50000/month`.
    #[serde(default)]
    #[schemars(with = "Option<QuotaText>")]
    pub quota: Option<CalendarQuota>,
    /// Most calls at once out of a rested `token-bucket`. Default: the count of `rate`.
    #[serde(default)]
    pub burst: Option<NonZeroU32>,
    /// How calls are counted. Default: `token-bucket` for a rate; a quota is a `fixed-window`.
    #[serde(default)]
    pub algorithm: Option<Algorithm>,
    /// When a `fixed-window` begins: at a multiple of its period on the `clock`, or with the `first-call`. Default: `clock`.
    #[serde(default)]
    pub window: Option<WindowStart>,
    /// How long a key is refused once it has used up the limit. Default: until there is room again.
    #[serde(default)]
    pub prohibit: Option<HumanDuration>,
    /// What the counter is kept per: `header:NAME`, `query:NAME`, `cookie:NAME`, `path`, `path:N`, `method`, `host`,
    /// `client-ip`, `client-ip/24`, `client-ip/48`. Default: one counter for all.
    #[serde(default)]
    #[schemars(with = "Vec<KeyText>")]
    pub key: Vec<String>,
    /// What a call takes: a number, `header:NAME`, `request-bytes`, `response-bytes`, `response-header:NAME`, or a section
    /// with an estimate. Default: 1.
    #[serde(default)]
    pub cost: Cost,
    /// Decide and count, but never refuse. Default: false.
    #[serde(default)]
    pub shadow: bool,
    /// What happens once the store cannot be asked and the credit in hand is spent. Default: `deny`, which leaves nothing
    /// of the limit idle while the store is there.
    #[serde(default)]
    pub on_store_failure: OnStoreFailure,
    /// Longest life of credit taken from a shared store, 10ms to 1h. Default: 5s, of a sliding-window a hundredth of its
    /// period, of a token-bucket a tenth of the time it takes to fill.
    #[serde(default)]
    pub lease: Option<HumanDuration>,
    /// Most keys remembered; what does not fit shares counters and may be refused early, never late. Default: 1000000.
    #[serde(default = "default_keys")]
    pub max_keys: NonZeroU32,
}

/// How calls are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// GCRA: a steady rate with a burst.
    #[default]
    TokenBucket,
    /// A count that starts anew with each window.
    FixedWindow,
    /// Never more than the count in any span of one period.
    SlidingWindow,
}

/// When a fixed window begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WindowStart {
    /// At each multiple of the period, the same for all keys.
    #[default]
    Clock,
    /// With the first call of a key after the window before has ended.
    FirstCall,
}

/// What happens once a shared store cannot be asked and the credit in hand is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnStoreFailure {
    /// Calls are refused.
    #[default]
    Deny,
    /// Calls spend a slice that was set aside before for this case and lives as long as `lease`: some are served, and never
    /// one too many. So much of the limit lies idle on each gateway while the store is there.
    Share,
    /// Calls are admitted without bound.
    Open,
}

/// How many per calendar period, in UTC. Parses from and prints as `50000/month`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CalendarQuota {
    /// Units per period.
    pub count: u32,
    /// The period.
    pub period: CalendarPeriod,
}

/// A period of the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalendarPeriod {
    /// From second 0.
    Minute,
    /// From minute 0.
    Hour,
    /// From midnight.
    Day,
    /// From the first at midnight.
    Month,
}

impl CalendarPeriod {
    const ALL: [(Self, &[&str]); 4] = [
        (Self::Minute, &["minute", "min"]),
        (Self::Hour, &["hour", "h"]),
        (Self::Day, &["day", "d"]),
        (Self::Month, &["month"]),
    ];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

impl FromStr for CalendarQuota {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const NOT: &str =
            "not a quota; write a number, a slash and minute, hour, day or month, like 50000/month";
        let (count, period) = text.split_once('/').ok_or(NOT)?;
        let (count, period) = (count.trim(), period.trim());
        if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NOT);
        }
        let count = count
            .parse()
            .map_err(|_| "the count of a quota is too large; write a whole number from 0 to 4294967295")?;
        let (period, _) =
            CalendarPeriod::ALL.into_iter().find(|(_, names)| names.contains(&period)).ok_or(NOT)?;
        Ok(Self { count, period })
    }
}

impl fmt::Display for CalendarQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.period.as_str())
    }
}

/// What a call takes of a limit.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Cost {
    /// What something about the call says; 1 while that is not known.
    #[schemars(with = "CostText")]
    Of(CostSource),
    /// The same for each call.
    Fixed(NonZeroU32),
    /// What something about the call says, with an estimate.
    Estimated(EstimatedCost),
}

/// A cost that is not known when the call is decided.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EstimatedCost {
    /// What tells the cost: `header:NAME`, `request-bytes`, `response-bytes` or `response-header:NAME`.
    #[schemars(with = "CostText")]
    pub of: CostSource,
    /// Units reserved until the cost is known, and the cost of a call that does not tell it. Default: 1.
    #[serde(default = "default_estimate")]
    pub estimate: NonZeroU32,
}

impl Default for Cost {
    fn default() -> Self {
        Self::Fixed(NonZeroU32::MIN)
    }
}

impl Cost {
    /// What is reserved for a call whose cost is not known yet.
    pub const fn estimate(&self) -> NonZeroU32 {
        match self {
            Self::Of(_) => NonZeroU32::MIN,
            Self::Fixed(cost) => *cost,
            Self::Estimated(estimated) => estimated.estimate,
        }
    }

    /// What tells the cost; none when it is the same for each call.
    pub const fn source(&self) -> Option<&CostSource> {
        match self {
            Self::Of(source) => Some(source),
            Self::Fixed(_) => None,
            Self::Estimated(estimated) => Some(&estimated.of),
        }
    }
}

/// Why a limit can not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimit {
    /// There is no rate.
    #[error("there is no rate; write one, like 100/s")]
    NoAmount,
    /// As a counter.
    #[error(transparent)]
    Quota(#[from] InvalidQuota),
    /// As an account in a ledger.
    #[error(transparent)]
    Rule(#[from] InvalidRule),
}

/// How a limit counts, with what only that way of counting has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// A rate as a token bucket.
    TokenBucket {
        /// Units per period.
        rate: Rate,
        /// Most units at once.
        burst: Option<NonZeroU32>,
    },
    /// A rate in windows.
    FixedWindow {
        /// Units per window.
        rate: Rate,
        /// When a window begins.
        start: WindowStart,
    },
    /// A rate in any span of its period.
    SlidingWindow {
        /// Units per period.
        rate: Rate,
    },
    /// So many per calendar period.
    Calendar(CalendarQuota),
}

impl Limit {
    /// A limit of this rate, all else by default.
    pub fn of(rate: Rate) -> Self {
        Self {
            rate: Some(rate),
            quota: None,
            burst: None,
            algorithm: None,
            window: None,
            prohibit: None,
            key: Vec::new(),
            cost: Cost::default(),
            shadow: false,
            on_store_failure: OnStoreFailure::default(),
            lease: None,
            max_keys: default_keys(),
        }
    }

    /// How it counts; none when it has neither a rate nor a quota, which the check refuses.
    pub fn counting(&self) -> Option<Counting> {
        if let Some(quota) = self.quota {
            return Some(Counting::Calendar(quota));
        }
        let rate = self.rate?;
        Some(match self.algorithm.unwrap_or_default() {
            Algorithm::TokenBucket => Counting::TokenBucket { rate, burst: self.burst },
            Algorithm::FixedWindow => Counting::FixedWindow { rate, start: self.window.unwrap_or_default() },
            Algorithm::SlidingWindow => Counting::SlidingWindow { rate },
        })
    }

    /// The rule that a ledger keeps.
    ///
    /// # Errors
    /// What no ledger can keep, like a burst that takes years to regenerate.
    pub fn rule(&self) -> Result<Rule, InvalidLimit> {
        let builder = match self.counting().ok_or(InvalidLimit::NoAmount)? {
            Counting::FixedWindow { start: WindowStart::FirstCall, .. } => {
                Rule::of(self.quota_of_rate()?).opening(Opening::FirstCall)
            }
            Counting::TokenBucket { .. } | Counting::FixedWindow { .. } | Counting::SlidingWindow { .. } => {
                Rule::of(self.quota_of_rate()?)
            }
            Counting::Calendar(CalendarQuota { count, period }) => {
                let calendar = match period {
                    CalendarPeriod::Minute => Calendar::Minute,
                    CalendarPeriod::Hour => Calendar::Hour,
                    CalendarPeriod::Day => Calendar::Day,
                    CalendarPeriod::Month => Calendar::Month,
                };
                Rule::each(calendar, count)
            }
        };
        let builder = match self.lease {
            Some(lease) => builder.life(*lease),
            None => builder,
        };
        let prohibit = self.prohibit.map_or(Duration::ZERO, |prohibit| *prohibit);
        Ok(builder.prohibit(prohibit).build()?)
    }

    /// The quota of a rate, as a counter in this process keeps it.
    ///
    /// # Errors
    /// What no counter can keep, or that there is no rate.
    pub fn quota_of_rate(&self) -> Result<Quota, InvalidLimit> {
        let builder = match self.counting().ok_or(InvalidLimit::NoAmount)? {
            Counting::TokenBucket { rate, burst: None } => Quota::of(rate),
            Counting::TokenBucket { rate, burst: Some(burst) } => Quota::of(rate).burst(burst.get()),
            Counting::FixedWindow { rate, .. } => Quota::of(rate).algorithm(core::Algorithm::FixedWindow),
            Counting::SlidingWindow { rate } => Quota::of(rate).algorithm(core::Algorithm::SlidingWindow),
            Counting::Calendar(_) => return Err(InvalidLimit::NoAmount),
        };
        Ok(builder.build()?)
    }

    /// The rate or the quota as it is written.
    pub fn amount(&self) -> String {
        match (self.quota, self.rate) {
            (Some(quota), _) => quota.to_string(),
            (None, Some(rate)) => rate.to_string(),
            (None, None) => String::new(),
        }
    }

    /// Writes out what follows from the rest by default.
    pub(super) fn fill_in(&mut self) {
        match self.counting() {
            Some(Counting::TokenBucket { rate, burst }) => {
                self.algorithm = Some(Algorithm::TokenBucket);
                self.burst = burst.or_else(|| rate.count().try_into().ok());
            }
            Some(Counting::FixedWindow { start, .. }) => self.window = Some(start),
            Some(Counting::SlidingWindow { .. } | Counting::Calendar(_)) | None => {}
        }
    }
}

impl Counting {
    /// The most units that are ever there at once.
    pub fn most(&self) -> u32 {
        match self {
            Self::TokenBucket { rate, burst: _ } if rate.count() == 0 => 0,
            Self::TokenBucket { rate, burst } => burst.map_or(rate.count(), NonZeroU32::get),
            Self::FixedWindow { rate, .. } | Self::SlidingWindow { rate } => rate.count(),
            Self::Calendar(quota) => quota.count,
        }
    }

    /// Its name in state.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TokenBucket { .. } => "token-bucket",
            Self::FixedWindow { .. } => "fixed-window",
            Self::SlidingWindow { .. } => "sliding-window",
            Self::Calendar(_) => "calendar",
        }
    }
}

impl OnStoreFailure {
    /// Its name in state and in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Share => "share",
            Self::Open => "open",
        }
    }
}

impl Serialize for CalendarQuota {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CalendarQuota {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_read_and_print_as_people_write_them() {
        for (text, shown) in [
            ("50000/month", "50000/month"),
            ("1000 / day", "1000/day"),
            ("60/h", "60/hour"),
            ("5/min", "5/minute"),
            ("0/day", "0/day"),
        ] {
            assert_eq!(text.parse::<CalendarQuota>().unwrap().to_string(), shown);
        }
        for text in
            ["", "100", "100/s", "100/year", "100/2days", "-1/day", "+1/day", "1e3/day", "99999999999/day"]
        {
            assert!(text.parse::<CalendarQuota>().is_err(), "{text}");
        }
    }
}
