//! Durations, sizes and rates as people write them.

use std::{fmt, ops::Deref, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A duration written as `250ms`, `5s`, `10m`, `8h` or a sum of them, like `1m30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

/// A number of bytes written as `512B`, `64KiB`, `10MiB`, `1GiB`, or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const DURATION_UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1000),
    ("us", 1),
];
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// The longest duration of a configuration.
pub(super) const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Why a text is no duration.
pub(super) const NOT_A_DURATION: &str =
    "not a duration; write a whole number and a unit, like 250ms, 5s, 10m, 8h or 1m30s";
/// Why a text is no size.
pub(super) const NOT_A_SIZE: &str =
    "not a size; write a whole number and a unit, like 512B, 64KiB, 10MiB or 1GiB";

impl FromStr for HumanDuration {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut rest = text;
        let mut micros: u64 = 0;
        let mut below = u64::MAX;
        while !rest.is_empty() {
            let unit_at = rest.find(|c: char| !c.is_ascii_digit()).ok_or(NOT_A_DURATION)?;
            let (count, tail) = rest.split_at(unit_at);
            let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            let (_, size) = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or(NOT_A_DURATION)?;
            if *size >= below {
                return Err(NOT_A_DURATION);
            }
            below = *size;
            let count: u64 = count.parse().map_err(|_| NOT_A_DURATION)?;
            micros =
                count.checked_mul(*size).and_then(|part| micros.checked_add(part)).ok_or(NOT_A_DURATION)?;
            rest = tail;
        }
        if text.is_empty() { Err(NOT_A_DURATION) } else { Ok(Self(Duration::from_micros(micros))) }
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut micros = self.0.as_micros() as u64;
        if micros == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in DURATION_UNITS {
            if micros >= size {
                write!(f, "{}{unit}", micros / size)?;
                micros %= size;
            }
        }
        Ok(())
    }
}

impl FromStr for ByteSize {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (count, unit) = text.split_at(unit_at);
        let unit = if unit.is_empty() { "B" } else { unit };
        let (_, size) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or(NOT_A_SIZE)?;
        count.parse::<u64>().ok().and_then(|count| count.checked_mul(*size)).map(Self).ok_or(NOT_A_SIZE)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, size) = SIZE_UNITS
            .iter()
            .find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size))
            .unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / size)
    }
}

impl Deref for HumanDuration {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

macro_rules! as_text {
    ($type:ty, $name:literal, $types:expr, $format:literal, $example:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": $types, "format": $format, "examples": [$example] })
            }
        }
    };
}

as_text!(HumanDuration, "Duration", "string", "tidegate-duration", "5s");
as_text!(ByteSize, "Size", ["string", "integer"], "tidegate-size", "64KiB");

/// Rates that may be missing, in serde.
pub(super) mod rate {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};
    use tidegate_core::Rate;

    /// Writes a rate as text.
    ///
    /// # Errors
    /// What the serializer meets.
    #[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
    pub(crate) fn serialize<S: Serializer>(rate: &Option<Rate>, serializer: S) -> Result<S::Ok, S::Error> {
        match rate {
            Some(rate) => serializer.collect_str(rate),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a rate from text.
    ///
    /// # Errors
    /// When the text is no rate.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Rate>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_people_write_them() {
        for (text, millis) in
            [("250ms", 250), ("5s", 5000), ("10m", 600_000), ("1m30s", 90_000), ("0s", 0), ("1d", 86_400_000)]
        {
            let duration: HumanDuration = text.parse().unwrap();
            assert_eq!(duration.as_millis(), millis, "{text}");
            assert_eq!(duration.to_string(), text);
        }
        for text in ["", "5", "s", "5 s", "-5s", "1.5s", "1s1m", "1s1s", "99999999999999999999s", "5sec"] {
            assert!(text.parse::<HumanDuration>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read_and_print_as_people_write_them() {
        for (text, bytes) in
            [("512B", 512), ("64KiB", 65_536), ("10MiB", 10 << 20), ("1GiB", 1 << 30), ("0B", 0)]
        {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, text));
        }
        assert_eq!("100".parse(), Ok(ByteSize(100)));
        for text in ["", "KiB", "1kb", "-1B", "1.5MiB", "99999999999GiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }
}
