//! Changes the whitespace of a JSON text and nothing else.

use super::token::{skip_space, token_end};

/// A line break and indentation enough for most texts.
const LINE: &str = "\n                                                                                ";

/// Appends `raw`, a valid JSON text, laid out as `JSON.stringify(value, null, 2)` does: two spaces a level, one member
/// or element a line, `{}` and `[]` when empty. Numbers and strings are copied as they stand, and so is the order of
/// members.
///
/// The first line gets no indentation; the others get that of a value standing `indent_level` levels deep. So
/// `"key": ` and then `pretty(raw, 1, out)` makes a member of an object at the top level.
///
/// Indentation makes the answer grow with the nesting: a text of n brackets, all nested, takes n²/2 bytes. On text that
/// is not JSON the answer means nothing.
pub fn pretty(raw: &str, indent_level: usize, out: &mut String) {
    let text = raw.as_bytes();
    let mut level = indent_level;
    out.reserve(raw.len() + raw.len() / 2);
    let mut at = skip_space(text, 0);
    while let Some(byte) = text.get(at) {
        let mut end = token_end(text, at);
        match byte {
            b'{' | b'[' => {
                let inside = skip_space(text, end);
                if let Some(b'}' | b']') = text.get(inside) {
                    out.push_str(if *byte == b'{' { "{}" } else { "[]" });
                    end = inside + 1;
                } else {
                    out.push(char::from(*byte));
                    level += 1;
                    break_line(level, out);
                }
            }
            b'}' | b']' => {
                level = level.saturating_sub(1);
                break_line(level, out);
                out.push(char::from(*byte));
            }
            b',' => {
                out.push(',');
                break_line(level, out);
            }
            b':' => out.push_str(": "),
            _ => out.push_str(raw.get(at..end).unwrap_or_default()),
        }
        at = skip_space(text, end);
    }
}

#[inline(always)]
fn break_line(level: usize, out: &mut String) {
    match LINE.get(..level.saturating_mul(2).saturating_add(1)) {
        Some(line) => out.push_str(line),
        None => {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", level));
        }
    }
}

/// `raw`, a valid JSON text, without the whitespace between its tokens. Numbers, strings and the order of members stay
/// as they are.
///
/// On text that is not JSON the answer means nothing.
pub fn compact(raw: &str) -> String {
    let text = raw.as_bytes();
    let mut out = String::with_capacity(raw.len());
    let mut at = skip_space(text, 0);
    let mut run = at;
    while at < text.len() {
        let end = token_end(text, at);
        at = skip_space(text, end);
        if at > end {
            out.push_str(raw.get(run..end).unwrap_or_default());
            run = at;
        }
    }
    out.push_str(raw.get(run..).unwrap_or_default());
    out
}
