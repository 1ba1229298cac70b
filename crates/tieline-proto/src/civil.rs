//! Unix milliseconds as UTC text, for the two forms the wires use.
//!
//! The calendar is Howard Hinnant's `civil_from_days` ("chrono-Compatible Low-Level Date Algorithms",
//! <https://howardhinnant.github.io/date_algorithms.html>): days since 1970-01-01 to year, month, day in the
//! proleptic Gregorian calendar, by counting years from March so that the leap day is the last of its year.

/// The last millisecond that has a year of four digits: 9999-12-31T23:59:59.999Z. Later times are written as
/// this one.
const LAST_MS: u64 = 253_402_300_799_999;

const MS_PER_DAY: u64 = 86_400_000;

/// A time, taken apart.
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    ms: u64,
}

impl Civil {
    fn from_unix_ms(unix_ms: u64) -> Civil {
        let unix_ms = unix_ms.min(LAST_MS);
        let (days, ms) = (unix_ms / MS_PER_DAY, unix_ms % MS_PER_DAY);
        // Days since 0000-03-01; an era is 400 years. Times before 1970 cannot be written in an unsigned
        // number, so the era is never negative.
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        Civil {
            year,
            month,
            day,
            hour: ms / 3_600_000,
            minute: ms / 60_000 % 60,
            second: ms / 1_000 % 60,
            ms: ms % 1_000,
        }
    }
}

/// Writes the last `digits.len()` digits of a number.
fn put(digits: &mut [u8], mut number: u64) {
    for place in digits.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Appends RFC 3339 in UTC with milliseconds: `2026-01-31T12:00:00.000Z`.
pub fn push_rfc3339(out: &mut Vec<u8>, unix_ms: u64) {
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let civil = Civil::from_unix_ms(unix_ms);
    put_seconds(&mut text, &civil);
    put(&mut text[20..23], civil.ms);
    out.extend_from_slice(&text);
}

/// Appends `yyyy-MM-dd HH:mm:ss` in UTC.
pub(crate) fn push_plain(out: &mut Vec<u8>, unix_ms: u64) {
    let mut text = *b"0000-00-00 00:00:00";
    put_seconds(&mut text, &Civil::from_unix_ms(unix_ms));
    out.extend_from_slice(&text);
}

/// Fills in what both forms share.
fn put_seconds(text: &mut [u8], civil: &Civil) {
    put(&mut text[0..4], civil.year);
    put(&mut text[5..7], civil.month);
    put(&mut text[8..10], civil.day);
    put(&mut text[11..13], civil.hour);
    put(&mut text[14..16], civil.minute);
    put(&mut text[17..19], civil.second);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rfc3339(unix_ms: u64) -> String {
        let mut out = Vec::new();
        push_rfc3339(&mut out, unix_ms);
        String::from_utf8(out).unwrap()
    }

    /// Values from `date -u -d @SECONDS`.
    #[test]
    fn known_days() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(rfc3339(1_769_860_800_000), "2026-01-31T12:00:00.000Z");
        assert_eq!(rfc3339(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn the_plain_form() {
        let mut out = Vec::new();
        push_plain(&mut out, 1_769_860_800_987);
        assert_eq!(out, b"2026-01-31 12:00:00");
    }

    /// Days in a month, counted the slow way.
    fn length(year: u64, month: u64) -> u64 {
        match month {
            2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..400 * 366 {
            let civil = Civil::from_unix_ms(days * MS_PER_DAY);
            assert_eq!((civil.year, civil.month, civil.day), (year, month, day));
            day += 1;
            if day > length(year, month) {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }

    proptest! {
        #[test]
        fn text_sorts_as_time_does(a in 0..=LAST_MS, b in 0..=LAST_MS) {
            prop_assert_eq!(a.cmp(&b), rfc3339(a).cmp(&rfc3339(b)));
        }
    }
}
