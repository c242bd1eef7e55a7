//! The part of JSON Schema that payloads are checked with: type, required, properties, items, enum, const, additionalProperties.
//! Other keywords are ignored.

use crate::json::{self, Kind, Object};

/// Deepest nesting of a schema that is followed.
const DEPTH_MAX: usize = 128;

/// Checks a value; says what does not fit. Says no values: they may be secrets.
pub(super) fn check(schema: &str, value: &str) -> Result<(), String> {
    check_at(schema, value, "", 0)
}

fn check_at(schema: &str, value: &str, at: &str, depth: usize) -> Result<(), String> {
    let place = if at.is_empty() { "the payload".to_owned() } else { format!("`{at}`") };
    if depth > DEPTH_MAX {
        return Err(format!("the schema of {place} is nested more than {DEPTH_MAX} deep"));
    }
    let rules = match json::kind(schema) {
        Kind::Bool if schema.trim() == "true" => return Ok(()),
        Kind::Bool => return Err(format!("{place} is not allowed")),
        Kind::Object => Object::parse(schema).map_err(|_| format!("the schema of {place} cannot be read"))?,
        _ => return Err(format!("the schema of {place} is neither an object nor a boolean")),
    };
    if let Some(types) = rules.get("type") {
        let types = names(types);
        if !types.iter().any(|name| is_of(name, value)) {
            return Err(format!("{place} must be of type {}", types.join(" or ")));
        }
    }
    let equals = |allowed: &str| json::equal(allowed, value).unwrap_or(false);
    if rules.get("const").is_some_and(|allowed| !equals(allowed)) {
        return Err(format!("{place} is not what `const` says"));
    }
    if let Some(allowed) = rules.get("enum")
        && !json::array(allowed).is_ok_and(|allowed| allowed.into_iter().any(equals))
    {
        return Err(format!("{place} is none of `enum`"));
    }
    match json::kind(value) {
        Kind::Object => check_members(&rules, value, at, &place, depth),
        Kind::Array => {
            let Some(items) = rules.get("items").filter(|items| matches!(json::kind(items), Kind::Object | Kind::Bool))
            else {
                return Ok(());
            };
            let elements = json::array(value).unwrap_or_default();
            let mut numbered = elements.into_iter().enumerate();
            numbered.try_for_each(|(index, element)| check_at(items, element, &format!("{at}/{index}"), depth + 1))
        }
        _ => Ok(()),
    }
}

fn check_members(rules: &Object<'_>, value: &str, at: &str, place: &str, depth: usize) -> Result<(), String> {
    let Ok(members) = Object::parse(value) else { return Ok(()) };
    for name in rules.get("required").map(names).unwrap_or_default() {
        if members.get(&name).is_none() {
            return Err(format!("{place} must have `{name}`"));
        }
    }
    let properties = rules.get("properties").and_then(|properties| Object::parse(properties).ok());
    let others = rules.get("additionalProperties");
    for member in members.members() {
        let declared = properties.as_ref().filter(|_| member.key_exact).and_then(|known| known.get(&member.key));
        let inner = format!("{at}/{}", member.key.replace('~', "~0").replace('/', "~1"));
        match (declared, others) {
            (Some(schema), _) | (None, Some(schema)) => check_at(schema, member.raw, &inner, depth + 1)?,
            (None, None) => {}
        }
    }
    Ok(())
}

/// A string, or the strings of an array.
fn names(raw: &str) -> Vec<String> {
    match json::array(raw) {
        Ok(elements) => elements.into_iter().filter_map(json::string).collect(),
        Err(_) => json::string(raw).into_iter().collect(),
    }
}

fn is_of(name: &str, value: &str) -> bool {
    match (json::kind(value), name) {
        (Kind::Null, "null")
        | (Kind::Bool, "boolean")
        | (Kind::Number, "number")
        | (Kind::String, "string")
        | (Kind::Array, "array")
        | (Kind::Object, "object") => true,
        (Kind::Number, "integer") => json::integer(value).is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_passes_and_what_does_not_is_named() {
        let schema = r#"{"type":"object","required":["id","tags"],"additionalProperties":false,"minProperties":9,
            "properties":{"id":{"type":"integer"},"tags":{"type":"array","items":{"enum":["a",{"b":1}]}},
            "x/y":{"type":["string","null"]},"k":{"const":[1.0]}}}"#;
        for (value, wanted) in [
            (r#"{"id":1,"tags":[]}"#, None),
            (r#"{"id":1.0,"tags":["a",{"b":1.0}],"x/y":null,"k":[1]}"#, None),
            ("[]", Some("the payload must be of type object")),
            (r#"{"id":1}"#, Some("the payload must have `tags`")),
            (r#"{"id":1.5,"tags":[]}"#, Some("`/id` must be of type integer")),
            (r#"{"id":"1","tags":[]}"#, Some("`/id` must be of type integer")),
            (r#"{"id":1,"tags":["a","c"]}"#, Some("`/tags/1` is none of `enum`")),
            (r#"{"id":1,"tags":[],"x/y":1}"#, Some("`/x~1y` must be of type string or null")),
            (r#"{"id":1,"tags":[],"k":[2]}"#, Some("`/k` is not what `const` says")),
            (r#"{"id":1,"tags":[],"z":1}"#, Some("`/z` is not allowed")),
        ] {
            assert_eq!(check(schema, value).err().as_deref(), wanted, "{value}");
        }
        assert_eq!(
            check(r#"{"additionalProperties":{"type":"boolean"}}"#, r#"{"a":1}"#).err().as_deref(),
            Some("`/a` must be of type boolean")
        );
        assert_eq!(check("true", "1"), Ok(()));
        assert!(
            check("false", "1").is_err() && check("1", "1").is_err() && check("{\"type\":\"text\"}", "\"\"").is_err()
        );
        assert_eq!(check(r#"{"required":["a"],"items":{"type":"null"},"properties":{"a":false}}"#, "\"\""), Ok(()));
    }

    #[test]
    fn depth_is_bounded() {
        let nested =
            |depth: usize, open: &str, inner: &str, close: &str| open.repeat(depth) + inner + &close.repeat(depth);
        let schema = |depth| nested(depth, "{\"items\":", "{\"type\":\"null\"}", "}");
        let value = |depth| nested(depth, "[", "1", "]");
        assert!(check(&schema(100), &value(100)).unwrap_err().ends_with("must be of type null"));
        assert!(check(&schema(2_000), &value(2_000)).unwrap_err().ends_with("nested more than 128 deep"));
    }
}
