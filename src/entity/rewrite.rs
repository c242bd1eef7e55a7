//! Replaces strings and member names of a JSON text, keeping every other byte and the names of an object apart.

use std::borrow::Cow;
use std::collections::HashMap;

use super::units::string_end;
use crate::json;

/// Copies `text`, a valid JSON text, with `replace` applied to each string and each name, quotes included; `None` when
/// nothing was replaced. Names of one object that meet get a suffix, see [`Names`].
///
/// Does not recurse; on text that is not JSON the answer means nothing.
pub(super) fn rewrite(text: &str, replace: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let mut copied = 0;
    let mut open: Vec<Frame> = Vec::new();
    // The names so far of all open objects, for the day that one of them is replaced.
    let mut names: Vec<&str> = Vec::new();
    let mut name_next = false;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let mut end = at + 1;
        match byte {
            b'"' => {
                end = string_end(bytes, at);
                let raw = text.get(at..end).unwrap_or_default();
                let mut replaced = replace(raw);
                if let (true, Some(frame)) = (name_next, open.last_mut()) {
                    replaced = frame.name(raw, replaced, &mut names);
                    name_next = false;
                }
                if let Some(new) = replaced {
                    out.push_str(text.get(copied..at).unwrap_or_default());
                    out.push_str(&new);
                    copied = end;
                }
            }
            b'{' | b'[' => {
                name_next = *byte == b'{';
                open.push(Frame { object: name_next, first_name: names.len(), claimed: None });
            }
            b'}' | b']' => {
                name_next = false;
                names.truncate(open.pop().map_or(0, |frame| frame.first_name));
            }
            b',' => name_next = open.last().is_some_and(|frame| frame.object),
            _ => {}
        }
        at = end;
    }
    if copied == 0 {
        return None;
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    Some(out)
}

/// An open array or object.
struct Frame {
    object: bool,
    /// Where its names begin in the list of all.
    first_name: usize,
    /// Its names, once one of them was replaced.
    claimed: Option<Names>,
}

impl Frame {
    /// What the name `raw` becomes, given what it was `replaced` by; `None` when it stays.
    fn name<'a>(&mut self, raw: &'a str, replaced: Option<String>, names: &mut Vec<&'a str>) -> Option<String> {
        if replaced.is_none() && self.claimed.is_none() {
            names.push(raw);
            return None;
        }
        let claimed = self.claimed.get_or_insert_with(|| {
            let mut before = Names::default();
            for name in names.get(self.first_name..).unwrap_or_default() {
                before.claim(name);
            }
            before
        });
        claimed.claim(replaced.as_deref().unwrap_or(raw)).or(replaced)
    }
}

/// Keeps the names of an object apart: the second `****` becomes `****#2`, the third `****#3`.
#[derive(Default)]
pub(super) struct Names {
    /// Each name taken, and the number to try first when it is wanted again.
    taken: HashMap<String, usize>,
}

impl Names {
    /// Takes the name `wanted`, a JSON string; when it is taken already, another that is given back.
    pub(super) fn claim(&mut self, wanted: &str) -> Option<String> {
        let wanted = identity(wanted);
        let Some(first) = self.taken.get(&*wanted).copied() else {
            self.taken.insert(wanted.into_owned(), 2);
            return None;
        };
        let stem = wanted.get(..wanted.len() - 1).unwrap_or_default();
        let mut number = first;
        let name = loop {
            let name = format!("{stem}#{number}\"");
            number += 1;
            if !self.taken.contains_key(&name) {
                break name;
            }
        };
        self.taken.insert(wanted.into_owned(), number);
        self.taken.insert(name.clone(), 2);
        Some(name)
    }
}

/// The one way to write the name `raw`, a JSON string.
pub(super) fn identity(raw: &str) -> Cow<'_, str> {
    if raw.contains('\\') { json::canonical(raw).map_or(Cow::Borrowed(raw), Cow::Owned) } else { Cow::Borrowed(raw) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_strings_and_keeps_the_rest() {
        let shout = |raw: &str| raw.contains('a').then(|| raw.to_uppercase());
        for (text, expected) in [
            (
                r#" {"a" : [ "ab", "b", {"b":"a"} ] ,"c":null} "#,
                Some(r#" {"A" : [ "AB", "b", {"b":"A"} ] ,"c":null} "#),
            ),
            (r#""a""#, Some(r#""A""#)),
            (r#"{"b":[1,2.50,"\"b"],"c":{}}"#, None),
            ("1", None),
        ] {
            assert_eq!(rewrite(text, &shout).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn names_stay_apart() {
        let one = |raw: &str| raw.contains('s').then(|| "\"n\"".to_owned());
        for (text, expected) in [
            (r#"{"s":1,"s2":2,"s3":3}"#, r##"{"n":1,"n#2":2,"n#3":3}"##),
            (r#"{"n":0,"s":1,"o":[{"s":"s"}],"s2":2}"#, r##"{"n":0,"n#2":1,"o":[{"n":"n"}],"n#3":2}"##),
            (r#"{"o":{"n":1},"a":[{"n":1}],"s":2}"#, r#"{"o":{"n":1},"a":[{"n":1}],"n":2}"#),
            (r##"{"s":1,"n#2":2,"s2":3,"n":4}"##, r##"{"n":1,"n#2":2,"n#3":3,"n#4":4}"##),
            (r#"{"s":1,"\u006e":2}"#, r##"{"n":1,"n#2":2}"##),
            (r#"{"s":1,"\u0062":2}"#, r#"{"n":1,"\u0062":2}"#),
        ] {
            assert_eq!(rewrite(text, &one).as_deref(), Some(expected), "{text}");
        }
    }

    /// As many names as one likes may meet: the numbers go on, none is tried twice.
    #[test]
    fn many_equal_names_take_linear_time() {
        let members: Vec<String> = (0..50_000).map(|i| format!("\"s{i}\":{i}")).collect();
        let text = format!("{{{}}}", members.join(","));
        let renamed = rewrite(&text, &|_| Some("\"n\"".to_owned())).unwrap();
        assert!(renamed.starts_with(r##"{"n":0,"n#2":1,"##));
        assert!(renamed.ends_with(r##","n#50000":49999}"##));
    }

    #[test]
    fn deep_texts_take_no_stack() {
        let depth = 50_000;
        let text = format!("{}\"s\"{}", "{\"s\":[".repeat(depth), "]}".repeat(depth));
        let expected = text.replace('s', "t");
        assert_eq!(rewrite(&text, &|_| Some("\"t\"".to_owned())), Some(expected));
    }
}
