//! JSON texts as data: one text for each value, and equality.

use super::layout::compact;
use super::number::canonical_into;
use super::scan::validate;
use super::text::Text;
use super::token::{skip_space, token_end};
use super::{JsonError, Kind, kind};

/// Whether two JSON texts hold the same data.
///
/// The order of members does not matter, that of elements does; of members with the same name the last counts. Numbers
/// are compared as doubles (`1`, `1.0` and `1e0` are equal, so are `-0` and `0`), strings as their UTF-16 code units.
/// Cheap when the texts differ in whitespace only.
///
/// # Errors
/// When either text is not valid JSON, as [`validate`] has it; `a` is checked first.
pub fn equal(a: &str, b: &str) -> Result<bool, JsonError> {
    validate(a.as_bytes())?;
    validate(b.as_bytes())?;
    if kind(a) != kind(b) {
        return Ok(false);
    }
    let (a, b) = (compact(a), compact(b));
    Ok(a == b || Tape::read(&a).print() == Tape::read(&b).print())
}

/// The one text of the data in `text`: no whitespace, names sorted by their UTF-16 code units and each there once (the
/// last one counts), strings as [`quote`](super::quote) prints them and numbers as [`number_text`](super::number_text).
///
/// Numbers beyond the doubles print as `1e999` and `-1e999`, so that they stay numbers. Two texts have the same
/// canonical text exactly when they are [`equal`].
///
/// # Errors
/// When `text` is not valid JSON, as [`validate`] has it.
pub fn canonical(text: &str) -> Result<String, JsonError> {
    validate(text.as_bytes())?;
    Ok(Tape::read(text).print())
}

/// The values of a text, outer before inner, in its order. A list and not a tree, so that neither reading nor printing
/// nor dropping it recurses.
struct Tape<'a> {
    nodes: Vec<Node<'a>>,
    length: usize,
}

struct Node<'a> {
    /// The member's name, when the value is a member.
    key: Option<Text<'a>>,
    kind: Kind,
    /// The text of a value that is neither array nor object.
    raw: &'a str,
    /// The first node that is not inside this one.
    next: usize,
}

enum Step {
    /// Print this node, after a comma unless it is the first.
    Value {
        node: usize,
        first: bool,
    },
    Close(char),
}

impl<'a> Tape<'a> {
    /// Reads a text known to be valid.
    fn read(text: &'a str) -> Self {
        let bytes = text.as_bytes();
        let mut nodes: Vec<Node<'a>> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        let mut in_object = false;
        let mut key = None;
        let mut at = skip_space(bytes, 0);
        while let Some(byte) = bytes.get(at) {
            let end = token_end(bytes, at);
            let raw = text.get(at..end).unwrap_or_default();
            match byte {
                b',' | b':' => {}
                b'}' | b']' => {
                    let next = nodes.len();
                    if let Some(node) = open.pop().and_then(|closed| nodes.get_mut(closed)) {
                        node.next = next;
                    }
                    in_object = open.last().and_then(|node| nodes.get(*node)).is_some_and(|n| n.kind == Kind::Object);
                }
                b'"' if in_object && key.is_none() => key = Some(Text::decode(raw)),
                _ => {
                    let kind = kind(raw);
                    if let Kind::Array | Kind::Object = kind {
                        open.push(nodes.len());
                        in_object = kind == Kind::Object;
                    }
                    nodes.push(Node { key: key.take(), kind, raw, next: nodes.len() + 1 });
                }
            }
            at = skip_space(bytes, end);
        }
        Self { nodes, length: text.len() }
    }

    fn print(&self) -> String {
        let mut out = String::with_capacity(self.length);
        let mut steps = vec![Step::Value { node: 0, first: true }];
        while let Some(step) = steps.pop() {
            match step {
                Step::Close(bracket) => out.push(bracket),
                Step::Value { node, first } => {
                    if !first {
                        out.push(',');
                    }
                    self.print_node(node, &mut steps, &mut out);
                }
            }
        }
        out
    }

    /// Prints a scalar, or the opening of an array or object, leaving the rest of it to `steps`.
    fn print_node(&self, index: usize, steps: &mut Vec<Step>, out: &mut String) {
        let Some(node) = self.nodes.get(index) else { return };
        if let Some(key) = &node.key {
            key.quote_into(out);
            out.push(':');
        }
        match node.kind {
            Kind::Null | Kind::Bool => out.push_str(node.raw),
            Kind::Number => canonical_into(node.raw, out),
            Kind::String if node.raw.contains('\\') => Text::decode(node.raw).quote_into(out),
            // Without escapes there is one way to write it.
            Kind::String => out.push_str(node.raw),
            Kind::Array => {
                out.push('[');
                steps.push(Step::Close(']'));
                schedule(&self.children(index, node.next), steps);
            }
            Kind::Object => {
                out.push('{');
                steps.push(Step::Close('}'));
                let mut children = self.children(index, node.next);
                children.sort_by(|a, b| self.compare_keys(*a, *b));
                // The sort is stable, so of equal names the later member comes later, and stays.
                children.dedup_by(|later, kept| {
                    let same = self.compare_keys(*later, *kept).is_eq();
                    if same {
                        *kept = *later;
                    }
                    same
                });
                schedule(&children, steps);
            }
        }
    }

    /// The nodes directly inside the one at `index`, which ends before `end`.
    fn children(&self, index: usize, end: usize) -> Vec<usize> {
        let after = |child: usize| self.nodes.get(child).map(|node| node.next);
        std::iter::successors(Some(index + 1), |child| after(*child)).take_while(|child| *child < end).collect()
    }

    fn compare_keys(&self, a: usize, b: usize) -> std::cmp::Ordering {
        let key = |node: usize| self.nodes.get(node).and_then(|node| node.key.as_ref());
        match (key(a), key(b)) {
            (Some(a), Some(b)) => a.compare(b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        }
    }
}

/// Steps are taken last first.
fn schedule(children: &[usize], steps: &mut Vec<Step>) {
    steps.extend(children.iter().enumerate().rev().map(|(i, node)| Step::Value { node: *node, first: i == 0 }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{DEPTH_MAX, JsonFault};

    #[test]
    fn canonical_texts() {
        for (text, expected) in [
            (" [ ] ", "[]"),
            ("{ }", "{}"),
            (r#"{"b":1,"a":[{"d":null,"c":true}],"":{}}"#, r#"{"":{},"a":[{"c":true,"d":null}],"b":1}"#),
            (r#"{"a":1,"b":2,"\u0061":3}"#, r#"{"a":3,"b":2}"#),
            (r#"{"10":1,"9":2}"#, r#"{"10":1,"9":2}"#),
            (r#"{"ﬀ":1,"😀":2}"#, r#"{"😀":2,"ﬀ":1}"#),
            ("[1.0,1e0,-0,-0.0,1E21,123456789012345678,0.1e1]", "[1,1,0,0,1e+21,123456789012345680,1]"),
            ("[1e400,-1e400,1e-400]", "[1e999,-1e999,0]"),
            (r#""\u0041\/\u00e9\u001F\n\ud83d\ude00""#, r#""A/é\u001f\n😀""#),
            (r#""\uD800\n\uDC00""#, r#""\ud800\n\udc00""#),
            (r#"{"\uDC00":1,"\uD800":2}"#, r#"{"\ud800":2,"\udc00":1}"#),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(expected), "{text}");
            assert_eq!(canonical(expected).as_deref(), Ok(expected), "{text}");
            assert_eq!(equal(text, expected), Ok(true), "{text}");
        }
    }

    #[test]
    fn equality() {
        for (a, b, expected) in [
            (r#"{"a":1,"b":[1,2]}"#, r#" {"b" : [1.0,2e0], "a":1}"#, true),
            ("[1,2]", "[2,1]", false),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#, true),
            (r#"{"a":2,"a":1}"#, r#"{"a":2}"#, false),
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#, false),
            ("-0", "0", true),
            ("9007199254740993", "9007199254740992", true),
            ("1e400", "2e500", true),
            ("1e400", "-1e400", false),
            ("1e400", "null", false),
            ("1", "\"1\"", false),
            ("[]", "{}", false),
            (r#""\u00e9""#, r#""é""#, true),
            (r#""\u00e9""#, r#""e\u0301""#, false),
            (r#""\ud83d\ude00""#, r#""😀""#, true),
            (r#""\ud800""#, r#""\uD800""#, true),
            (r#""\ud800""#, r#""\ud801""#, false),
            (r#""\ud800""#, r#""\ufffd""#, false),
            (r#""\\ud800""#, r#""\ud800""#, false),
        ] {
            assert_eq!(equal(a, b), Ok(expected), "{a} {b}");
            assert_eq!(equal(b, a), Ok(expected), "{b} {a}");
        }
        let fault = JsonError { offset: 1, what: JsonFault::UnexpectedEnd };
        assert_eq!(equal("[", "1"), Err(fault));
        assert_eq!(equal("1", "["), Err(fault));
    }

    /// Deep and out of order at every level: linear, and no stack is used up.
    #[test]
    fn deep_texts() {
        let depth = DEPTH_MAX - 1;
        let nest = |open: &str, close: &str| format!("{}[]{}", open.repeat(depth), close.repeat(depth));
        let unsorted = nest("{\"b\":", ",\"a\":0}");
        let sorted = nest("{\"a\":0,\"b\":", "}");
        assert_eq!(equal(&unsorted, &sorted), Ok(true));
        assert_eq!(canonical(&unsorted).as_deref(), Ok(&*sorted));
    }
}
