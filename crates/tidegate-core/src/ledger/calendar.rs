//! Where months begin in UTC, in integers alone.

use super::Micros;

const DAY: Micros = 86_400_000_000;

/// The start of the month that `at` is in.
///
/// Days are counted from the first of March of a year that four hundred divides, so that a leap day is the last of
/// its year and every length is a division.
pub(super) const fn month_of(at: Micros) -> Micros {
    let days = at / DAY;
    let day_of_era = (days + 719_468) % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let days_before = day_of_year - (153 * month + 2) / 5;
    (days - days_before) * DAY
}

/// The start of the month after the one that begins at `month`.
pub(super) const fn month_after(month: Micros) -> Micros {
    month_of(month + 32 * DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_those_of_the_calendar() {
        let leap =
            |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
        let mut start = 0;
        for year in 1970..2200 {
            for month in 1..=12 {
                let days = match month {
                    2 => 28 + u64::from(leap(year)),
                    4 | 6 | 9 | 11 => 30,
                    _ => 31,
                };
                let end = start + days * DAY;
                assert_eq!(month_of(start), start, "{year}-{month}");
                assert_eq!(month_of(end - 1), start, "{year}-{month}");
                assert_eq!(month_after(start), end, "{year}-{month}");
                start = end;
            }
        }
    }
}
