//! Parts of a payload: which of it becomes the output of a process, or the input of a wake.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::error::{no_match, too_long};
use crate::error::Result;
use crate::json::{self, Kind, Object};

/// Deepest nesting of templates.
const DEPTH_MAX: usize = 32;

/// How much longer than the payload a text may be that a template makes, in bytes.
const GROWTH_MAX: usize = 1 << 20;

/// A way to a value inside a value (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pointer {
    text: String,
    names: Vec<String>,
}

impl Pointer {
    fn parse(text: &str) -> Option<Self> {
        let names = match text.strip_prefix('/') {
            Some(rest) => rest.split('/').map(|name| name.replace("~1", "/").replace("~0", "~")).collect(),
            None if text.is_empty() => Vec::new(),
            None => return None,
        };
        Some(Self { text: text.to_owned(), names })
    }

    /// The text of the value that it leads to.
    fn find<'a>(&self, payload: &'a str) -> Option<&'a str> {
        self.names.iter().try_fold(payload, |value, name| match json::kind(value) {
            Kind::Object => Object::parse(value).ok()?.get(name),
            // No leading zeros and no signs.
            Kind::Array if name == "0" || name.starts_with(|c: char| ('1'..='9').contains(&c)) => {
                json::array(value).ok()?.get(name.parse::<usize>().ok()?).copied()
            }
            _ => None,
        })
    }
}

/// What is taken from a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selector {
    Payload,
    Pointer(Pointer),
    /// JSON.
    Const(String),
    Present(Pointer),
    Template(String, Vec<(String, Selector)>),
}

impl Selector {
    /// Reads a selector; says what is wrong with it.
    pub(super) fn parse(raw: &str) -> std::result::Result<Self, String> {
        Self::parse_at(raw, 0)
    }

    fn parse_at(raw: &str, depth: usize) -> std::result::Result<Self, String> {
        let wrong = || {
            "a selector must be 'payload', or an object with one of pointer, const and present, or with template and fields"
                .to_owned()
        };
        if depth > DEPTH_MAX {
            return Err(format!("a template may be nested {DEPTH_MAX} deep"));
        }
        if json::kind(raw) == Kind::String {
            return if json::string(raw).as_deref() == Some("payload") { Ok(Self::Payload) } else { Err(wrong()) };
        }
        let object = Object::parse(raw).map_err(|_| wrong())?;
        let text = |value: &str| json::string(value).ok_or_else(wrong);
        let pointer = |value: &str| {
            let text = text(value)?;
            Pointer::parse(&text)
                .ok_or_else(|| format!("`{text}` is no JSON pointer: it must be empty or begin with /"))
        };
        match object.members() {
            [member] => match &*member.key {
                "pointer" => pointer(member.raw).map(Self::Pointer),
                "present" => pointer(member.raw).map(Self::Present),
                "const" => Ok(Self::Const(member.raw.to_owned())),
                _ => Err(wrong()),
            },
            [_, _] => {
                let (Some(template), Some(fields)) = (object.get("template"), object.get("fields")) else {
                    return Err(wrong());
                };
                let fields = Object::parse(fields).map_err(|_| wrong())?;
                let field = |member: &json::Member<'_>| {
                    Ok((member.key.clone().into_owned(), Self::parse_at(member.raw, depth + 1)?))
                };
                let fields = fields.members().iter().map(field).collect::<std::result::Result<_, String>>()?;
                Ok(Self::Template(text(template)?, fields))
            }
            _ => Err(wrong()),
        }
    }

    /// Takes it from a payload, as JSON.
    pub(super) fn select<'a>(&'a self, payload: &'a str) -> Result<Cow<'a, str>> {
        Ok(match self {
            Self::Payload => payload.into(),
            Self::Pointer(pointer) => pointer.find(payload).ok_or_else(|| no_match(&pointer.text))?.into(),
            Self::Const(raw) => raw.into(),
            Self::Present(pointer) => if pointer.find(payload).is_some() { "true" } else { "false" }.into(),
            Self::Template(template, fields) => json::quote(&filled(template, fields, payload)?).into(),
        })
    }

    /// Takes it from a payload, as text: strings as they are, all else as JSON.
    pub(super) fn text(&self, payload: &str) -> Result<String> {
        self.select(payload).map(|raw| text_of(&raw))
    }

    /// Whether it is something: not null, false, or empty.
    pub(super) fn is_truthy(&self, payload: &str) -> Result<bool> {
        self.select(payload).map(|raw| !matches!(&*json::compact(&raw), "null" | "false" | "\"\"" | "[]" | "{}"))
    }
}

/// A string as it is, all else as JSON.
pub(super) fn text_of(raw: &str) -> String {
    json::string(raw).unwrap_or_else(|| raw.to_owned())
}

/// Replaces each `{name}` that is a field by its text, in one go: what the texts hold is not looked at. Each field is taken once, and
/// nothing is added beyond the limit: templates that hold each other twice would double the work, and the text, with each level.
fn filled(template: &str, fields: &[(String, Selector)], payload: &str) -> Result<String> {
    let limit = payload.len() + GROWTH_MAX;
    let add = |out: &mut String, text: &str| {
        if out.len() + text.len() > limit {
            return Err(too_long(limit));
        }
        out.push_str(text);
        Ok(())
    };
    let mut texts: HashMap<&str, String> = HashMap::new();
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        add(&mut out, before)?;
        let field = after
            .split_once('}')
            .and_then(|(name, behind)| Some((fields.iter().find(|(field, _)| field == name)?, behind)));
        match field {
            Some(((name, selector), behind)) => {
                let text = match texts.entry(name) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(place) => place.insert(selector.text(payload)?),
                };
                add(&mut out, text)?;
                rest = behind;
            }
            None => {
                add(&mut out, "{")?;
                rest = after;
            }
        }
    }
    add(&mut out, rest)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(selector: &str, payload: &str) -> String {
        Selector::parse(selector).unwrap().select(payload).map_or_else(|e| e.message().to_owned(), Cow::into_owned)
    }

    #[test]
    fn takes_what_is_asked_for() {
        let payload = r#"{"a":[{"b/c":1.0},"x"],"":null,"a~b":{"k":"é\n"}}"#;
        for (selector, wanted) in [
            (r#""payload""#, payload),
            (r#"{"pointer":""}"#, payload),
            (r#"{"pointer":"/a/0/b~1c"}"#, "1.0"),
            (r#"{"pointer":"/a/1"}"#, "\"x\""),
            (r#"{"pointer":"/"}"#, "null"),
            (r#"{"pointer":"/a~0b/k"}"#, r#""é\n""#),
            (r#"{"const":[1, 2]}"#, "[1, 2]"),
            (r#"{"present":"/a/1"}"#, "true"),
            (r#"{"present":"/a/2"}"#, "false"),
        ] {
            assert_eq!(take(selector, payload), wanted, "{selector}");
        }
        for pointer in ["/a/01", "/a/-", "/a/+1", "/a/2", "/b", "/a/1/x", "/a/18446744073709551616"] {
            let wanted = format!("payload pointer `{pointer}` did not match");
            assert_eq!(take(&format!(r#"{{"pointer":"{pointer}"}}"#), payload), wanted);
        }
    }

    #[test]
    fn templates_are_filled_once() {
        let selector =
            r#"{"template":"{a}, {b}{c} {{a}} {","fields":{"a":{"pointer":"/x"},"b":"payload","c":{"const":""}}}"#;
        assert_eq!(take(selector, r#"{"x":"{b}"}"#), r#""{b}, {\"x\":\"{b}\"} {{b}} {""#);
        let nested = r#"{"template":"<{a}>","fields":{"a":{"template":"{b}!","fields":{"b":{"pointer":"/x"}}}}}"#;
        assert_eq!(take(nested, r#"{"x":2}"#), r#""<2!>""#);
        let missing = r#"{"template":"{a}","fields":{"a":{"pointer":"/y"}}}"#;
        assert_eq!(take(missing, "{}"), "payload pointer `/y` did not match");
    }

    #[test]
    fn templates_that_double_each_other_make_little() {
        let doubled = |levels: usize| {
            (0..levels).fold("\"payload\"".to_owned(), |inner, _| {
                format!(r#"{{"template":"{{a}}{{a}}","fields":{{"a":{inner}}}}}"#)
            })
        };
        assert_eq!(take(&doubled(17), "\"12345678\"").len(), (8 << 17) + 2);
        let refusal = "a template makes more than 1048586 bytes of the payload of a process event: take less of it, or \
                       make the template shorter";
        assert_eq!(take(&doubled(18), "\"12345678\""), refusal);
        // 4,294,967,296 times nothing.
        assert_eq!(take(&doubled(32), "\"\""), "\"\"");
        // What is large already may stay so.
        let large = format!("\"{}\"", "x".repeat(2 * GROWTH_MAX));
        assert_eq!(take(r#"{"template":"<{a}>","fields":{"a":"payload"}}"#, &large).len(), large.len() + 2);
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        let deep = (0..40)
            .fold("\"payload\"".to_owned(), |inner, _| format!(r#"{{"template":"{{a}}","fields":{{"a":{inner}}}}}"#));
        for selector in [
            "null",
            "\"body\"",
            "{}",
            "[]",
            r#"{"pointer":"a"}"#,
            r#"{"pointer":1}"#,
            r#"{"pointer":"","const":1}"#,
            r#"{"template":"x"}"#,
            r#"{"template":"x","fields":[]}"#,
            r#"{"template":1,"fields":{}}"#,
            r#"{"select":"/a"}"#,
            &deep,
        ] {
            assert!(Selector::parse(selector).is_err(), "{selector}");
        }
    }

    #[test]
    fn nothing_is_null_false_and_empty() {
        let truthy = |payload: &str| Selector::Payload.is_truthy(payload).unwrap();
        for payload in ["null", "false", "\"\"", "[ ]", "{ }"] {
            assert!(!truthy(payload), "{payload}");
        }
        for payload in ["0", "true", "\" \"", "[null]", "{\"a\":null}"] {
            assert!(truthy(payload), "{payload}");
        }
    }
}
