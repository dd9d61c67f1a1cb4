//! How many per how long, as people write it: `100/s`, `2500/min`, `10000/h`, `1/500ms`.

use std::{fmt, str::FromStr, time::Duration};

/// A number of units per period.
///
/// Parses from and prints as `100/s`, `2500/min`, `10000/h`, `50000/d`, `1/500ms`, `20/10s`. A rate of `0/s` admits nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    count: u32,
    period: Duration,
}

/// The longest period of a rate.
pub const MAX_PERIOD: Duration = Duration::from_secs(366 * 24 * 60 * 60);

impl Rate {
    /// Makes a rate of `count` per `period`.
    ///
    /// # Errors
    /// [`InvalidRate`] when the period is shorter than 1 ms or longer than [`MAX_PERIOD`].
    pub fn new(count: u32, period: Duration) -> Result<Self, InvalidRate> {
        if period < Duration::from_millis(1) || period > MAX_PERIOD {
            return Err(InvalidRate::Period);
        }
        Ok(Self { count, period })
    }

    /// Units per period.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// The period, 1 ms to 366 days.
    pub const fn period(self) -> Duration {
        self.period
    }
}

/// What is wrong with a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidRate {
    /// Not `COUNT/PERIOD`.
    Shape,
    /// The count is not a whole number of at most 4294967295.
    Count,
    /// The unit of the period is unknown.
    Unit,
    /// The period is shorter than 1 ms or longer than 366 days.
    Period,
}

impl fmt::Display for InvalidRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shape => {
                "not a rate; write a number, a slash and a period, like 100/s, 2500/min or 1/500ms"
            }
            Self::Count => {
                "the count of a rate is a whole number from 0 to 4294967295, like the 100 in 100/s"
            }
            Self::Unit => "the period of a rate is in ms, s, min, h or d, like 100/s or 1/500ms",
            Self::Period => "the period of a rate is between 1ms and 366d",
        })
    }
}

impl std::error::Error for InvalidRate {}

const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1)];

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let (count, period) = text.split_once('/').ok_or(InvalidRate::Shape)?;
        let count = digits(count.trim()).and_then(|count| count.parse().ok()).ok_or(InvalidRate::Count)?;
        let period = period.trim();
        let unit_at = period.find(|c: char| !c.is_ascii_digit()).ok_or(InvalidRate::Unit)?;
        let (times, unit) = period.split_at(unit_at);
        let times: u64 = if times.is_empty() { 1 } else { times.parse().map_err(|_| InvalidRate::Period)? };
        let (_, millis) = UNITS
            .iter()
            .find(|(name, _)| *name == unit || (unit == "m" && *name == "min"))
            .ok_or(InvalidRate::Unit)?;
        let millis = times.checked_mul(*millis).ok_or(InvalidRate::Period)?;
        Self::new(count, Duration::from_millis(millis))
    }
}

fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then_some(text)
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.period.as_millis() as u64;
        let (unit, size) = UNITS
            .iter()
            .find(|(_, size)| millis.is_multiple_of(*size))
            .expect("a period is a whole number of milliseconds, or prints rounded to them");
        match millis / size {
            1 => write!(f, "{}/{unit}", self.count),
            times => write!(f, "{}/{times}{unit}", self.count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_as_people_write_them() {
        for (text, count, millis) in [
            ("100/s", 100, 1000),
            ("2500/min", 2500, 60_000),
            ("2500/m", 2500, 60_000),
            ("10000/h", 10_000, 3_600_000),
            ("1/500ms", 1, 500),
            ("0/s", 0, 1000),
            ("20/10s", 20, 10_000),
            ("5 / d", 5, 86_400_000),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.count(), rate.period().as_millis()), (count, millis), "{text}");
            assert_eq!(rate.to_string().parse::<Rate>().unwrap(), rate, "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_says_why() {
        for (text, why) in [
            ("100", InvalidRate::Shape),
            ("", InvalidRate::Shape),
            ("-1/s", InvalidRate::Count),
            ("1.5/s", InvalidRate::Count),
            ("4294967296/s", InvalidRate::Count),
            ("1/", InvalidRate::Unit),
            ("1/week", InvalidRate::Unit),
            ("1/0s", InvalidRate::Period),
            ("1/367d", InvalidRate::Period),
            ("1/99999999999999999999d", InvalidRate::Period),
        ] {
            assert_eq!(text.parse::<Rate>(), Err(why), "{text}");
        }
    }
}
