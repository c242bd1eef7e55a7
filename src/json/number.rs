//! JSON numbers: JavaScript's doubles and their text.

use super::text::trim;
use super::token::skip_number;

/// The double that JavaScript makes of `raw`, the text of one JSON number; whitespace around it is fine.
///
/// Correctly rounded; beyond the doubles it is an infinity, as in JavaScript. `None` when the text is no JSON number.
pub fn number(raw: &str) -> Option<f64> {
    let raw = trim(raw);
    let end = skip_number(raw.as_bytes(), 0).ok()?;
    // The grammar of JSON numbers is part of the grammar of `f64::from_str`.
    if end == raw.len() { raw.parse().ok() } else { None }
}

/// As [`number`], for what `Number.isInteger` holds true of: `1`, `1.0` and `1e3`, not `1.5` nor `1e400`.
///
/// The integer can be too large for a double to tell it from its neighbours; compare with 2^53 - 1 where that matters.
pub fn integer(raw: &str) -> Option<f64> {
    number(raw).filter(|value| value.is_finite() && value.fract() == 0.0)
}

/// Prints a number as `JSON.stringify` does: the shortest text that reads back as the same double, `0` for -0, and
/// `null` for what JSON cannot hold (NaN and the infinities).
pub fn number_text(value: f64) -> String {
    if value.is_finite() { ryu_js::Buffer::new().format_finite(value).to_owned() } else { "null".to_owned() }
}

/// Appends the number `raw`, known to be valid, the way [`canonical`](super::canonical()) prints it.
pub(super) fn canonical_into(raw: &str, out: &mut String) {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    // Up to fifteen digits print as they are read: most numbers, and no conversion for them.
    if digits.len() <= 15 && raw != "-0" && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        out.push_str(raw);
        return;
    }
    match number(raw) {
        Some(f64::INFINITY) => out.push_str("1e999"),
        Some(f64::NEG_INFINITY) => out.push_str("-1e999"),
        Some(value) => out.push_str(ryu_js::Buffer::new().format_finite(value)),
        None => out.push_str(raw),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads() {
        for (raw, expected) in [
            ("0", Some(0.0)),
            (" -12.5e-1\n", Some(-1.25)),
            ("9007199254740993", Some(9_007_199_254_740_992.0)),
            ("1e400", Some(f64::INFINITY)),
            ("-1e400", Some(f64::NEG_INFINITY)),
            ("1e-400", Some(0.0)),
            ("5e-324", Some(5e-324)),
            ("1E+2", Some(100.0)),
            ("0e99999999999999999999", Some(0.0)),
            ("1e99999999999999999999", Some(f64::INFINITY)),
            ("01", None),
            ("+1", None),
            (".5", None),
            ("1.", None),
            ("1e", None),
            ("-", None),
            ("", None),
            ("NaN", None),
            ("Infinity", None),
            ("inf", None),
            ("1 2", None),
            ("\"1\"", None),
        ] {
            assert_eq!(number(raw), expected, "{raw}");
        }
        assert!(number("-0").is_some_and(|zero| zero.is_sign_negative()));
    }

    #[test]
    fn tells_integers() {
        for (raw, expected) in
            [("1", Some(1.0)), ("1.0", Some(1.0)), ("12e2", Some(1200.0)), ("1.5", None), ("1e400", None), ("x", None)]
        {
            assert_eq!(integer(raw), expected, "{raw}");
        }
    }

    /// The texts are what Node prints.
    #[test]
    fn prints_like_json_stringify() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (123_456_789_012_345_680_000.0, "123456789012345680000"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (1.5e-10, "1.5e-10"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (9_007_199_254_740_993.0, "9007199254740992"),
            (f64::NAN, "null"),
            (f64::INFINITY, "null"),
            (f64::NEG_INFINITY, "null"),
        ] {
            assert_eq!(number_text(value), expected);
        }
    }
}
