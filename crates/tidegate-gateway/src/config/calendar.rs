//! Quotas by the calendar, as people write them: `50000/month`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

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
