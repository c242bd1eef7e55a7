//! Times as they are stored: UTC, always 24 characters (`2026-05-31T12:00:00.000Z`), so that their order is that of their texts.

use super::model::Millis;
use crate::error::{Code, HfError, Result};

/// 0000-01-01T00:00:00.000Z
pub const MIN: Millis = -62_167_219_200_000;
/// 9999-12-31T23:59:59.999Z
pub const MAX: Millis = 253_402_300_799_999;

const DAY: i64 = 86_400_000;

/// Returns the text of a time.
///
/// # Errors
/// `HF_INVALID_ARGUMENT` for years that do not have four digits.
pub fn text(ms: Millis) -> Result<String> {
    if !(MIN..=MAX).contains(&ms) {
        return Err(HfError::new(
            Code::InvalidArgument,
            format!("{ms} is no time that can be stored; give milliseconds since 1970, in the years 0000 to 9999"),
        )
        .with_argument("time", "a time in the years 0000 to 9999", &ms.into()));
    }
    let (days, rest) = (ms.div_euclid(DAY), ms.rem_euclid(DAY));
    // Days to civil date after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second, milli) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60, rest % 1000);
    Ok(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"))
}

/// Returns the text of a time, or none of none.
///
/// # Errors
/// As [`text`].
pub fn opt_text(ms: Option<Millis>) -> Result<Option<String>> {
    ms.map(text).transpose()
}

/// Reads a stored time.
///
/// # Errors
/// `HF_CORRUPT` for anything that [`text`] does not write.
pub fn millis(text: &str) -> Result<Millis> {
    read(text.as_bytes()).ok_or_else(|| {
        HfError::new(Code::Corrupt, "a stored time is not of the form 2026-05-31T12:00:00.000Z; restore a backup")
    })
}

/// Reads a stored time, or NULL.
///
/// # Errors
/// As [`millis`].
pub fn opt_millis(text: Option<&str>) -> Result<Option<Millis>> {
    text.map(millis).transpose()
}

/// Without allocating: the change log is read by the hundred thousand.
fn read(text: &[u8]) -> Option<Millis> {
    const SHAPE: &[u8; 24] = b"0000-00-00T00:00:00.000Z";
    if text.len() != SHAPE.len()
        || !text
            .iter()
            .zip(SHAPE)
            .all(|(byte, shape)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape })
    {
        return None;
    }
    let number = |from: usize, to: usize| {
        text.get(from..to).map(|digits| digits.iter().fold(0_i64, |sum, digit| sum * 10 + i64::from(digit - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (shifted_year.div_euclid(400), shifted_year.rem_euclid(400));
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + number(20, 23)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_over_their_whole_range() {
        for (ms, expected) in [
            (MIN, "0000-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_227_945_343, "2026-11-21T02:25:45.343Z"),
            (MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(text(ms).unwrap(), expected);
            assert_eq!(millis(expected).unwrap(), ms);
        }
        let mut ms = MIN;
        let mut last = String::new();
        while ms < MAX - 400_000_000_000 {
            let written = text(ms).unwrap();
            assert!(written > last, "{written} after {last}");
            assert_eq!(millis(&written).unwrap(), ms);
            last = written;
            ms += 399_999_999_877;
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for ms in [MIN - 1, MAX + 1, i64::MIN, i64::MAX] {
            assert_eq!(text(ms).unwrap_err().code(), Code::InvalidArgument);
        }
        for wrong in [
            "",
            "2026-05-31T12:00:00Z",
            "2026-13-31T12:00:00.000Z",
            "2026-05-31 12:00:00.000Z",
            "２026-05-31T12:00:00.00Z",
        ] {
            assert_eq!(millis(wrong).unwrap_err().code(), Code::Corrupt, "{wrong}");
        }
    }
}
