//! Dates as text, made once a second.

use tidegate_core::Instant;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The texts of the last second seen.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    second: Option<u64>,
    common: String,
    rfc3339: String,
}

impl Stamps {
    /// `21/Nov/2026:02:30:56 +0000`.
    pub(super) fn common(&mut self, at: Instant) -> &str {
        self.at(at);
        &self.common
    }

    /// `2026-11-21T02:30:56`, for a fraction and `Z` to follow.
    pub(super) fn rfc3339(&mut self, at: Instant) -> &str {
        self.at(at);
        &self.rfc3339
    }

    fn at(&mut self, at: Instant) {
        let second = at.as_nanos() / 1_000_000_000;
        if self.second == Some(second) {
            return;
        }
        self.second = Some(second);
        let (year, month, day) = civil(second / 86_400);
        let (hour, minute, second) = (second / 3600 % 24, second / 60 % 60, second % 60);
        let name = MONTHS[month as usize - 1];
        self.common = format!("{day:02}/{name}/{year}:{hour:02}:{minute:02}:{second:02} +0000");
        self.rfc3339 = format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    }
}

/// The date of a day counted from 1970-01-01 (Howard Hinnant, `civil_from_days`, for days not before it).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (second, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_709_251_199, "2024-02-29T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (1_795_228_256, "2026-11-21T02:30:56"),
        ] {
            let mut stamps = Stamps::default();
            assert_eq!(stamps.rfc3339(Instant::from_nanos(second * 1_000_000_000)), text);
        }
        let mut stamps = Stamps::default();
        let at = Instant::from_nanos(1_795_228_256_999_999_999);
        assert_eq!(stamps.common(at), "21/Nov/2026:02:30:56 +0000");
        assert_eq!(
            stamps.common(Instant::from_nanos(1_795_228_257_000_000_000)),
            "21/Nov/2026:02:30:57 +0000"
        );
    }
}
