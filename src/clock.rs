//! Wall-clock readings. Durations and deadlines use [`std::time::Instant`] instead.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns milliseconds since the Unix epoch; 0 if the clock stands before it.
#[must_use]
pub fn epoch_ms() -> u64 {
    millis_since_epoch(SystemTime::now()) as u64
}

/// Returns milliseconds since the epoch as a double with sub-millisecond digits, the way Node prints `mtimeMs`.
#[must_use]
pub fn millis_since_epoch(time: SystemTime) -> f64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_secs() as f64 * 1000.0 + f64::from(after.subsec_nanos()) / 1e6,
        Err(before) => -(before.duration().as_secs_f64() * 1000.0),
    }
}

/// Returns the time that [`millis_since_epoch`] printed, to the nanosecond that a double can hold.
#[must_use]
pub fn from_millis(ms: f64) -> SystemTime {
    if ms.is_finite() && ms >= 0.0 { UNIX_EPOCH + Duration::from_secs_f64(ms / 1000.0) } else { UNIX_EPOCH }
}

/// Returns the wall-clock time in the form of JavaScript's `Date.prototype.toISOString()`.
#[must_use]
pub fn iso_now() -> String {
    iso(epoch_ms())
}

/// Formats milliseconds since the epoch as an ISO 8601 time in UTC (days to civil date after Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms").
fn iso(ms: u64) -> String {
    let (days, rest) = (ms / 86_400_000, ms % 86_400_000);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second, milli) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Reads a time as [`iso_now`] writes it; `None` for anything else.
#[must_use]
pub fn parse_iso(text: &str) -> Option<i64> {
    let field = |range: std::ops::Range<usize>| {
        text.get(range).filter(|part| part.bytes().all(|b| b.is_ascii_digit()))?.parse::<i64>().ok()
    };
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    if shape != "0000-00-00T00:00:00.000Z" {
        return None;
    }
    let (year, month, day) = (field(0..4)?, field(5..7)?, field(8..10)?);
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (shifted_year.div_euclid(400), shifted_year.rem_euclid(400));
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    Some(((days * 24 + field(11..13)?) * 60 + field(14..16)?) * 60_000 + field(17..19)? * 1000 + field(20..23)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_reads_iso_times() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_776_772_800_000, "2026-04-21T12:00:00.000Z"),
            (1_795_227_945_343, "2026-11-21T02:25:45.343Z"),
        ] {
            assert_eq!(iso(ms), text);
            assert_eq!(parse_iso(text), Some(ms as i64));
        }
        assert_eq!(parse_iso("yesterday"), None);
    }
}
