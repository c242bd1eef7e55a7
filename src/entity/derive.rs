//! Derives everything that a change of an entity leaves behind from the texts of its states: which fields changed, the
//! rows of the transition log, and the event's parts, with the secrets of the run masked.
//!
//! One pure function, [`derive()`]. It works on raw JSON texts: members that are written alike are equal, and only the
//! others are looked into. The comparison is made in the clear and masked afterwards, so that a field that goes from one
//! secret to another is a change.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::field_text::{ValueKey, canonical, compare_names, field_text, key_of_canonical, value_key};
use super::mask::{SecretSet, TOKEN};
use super::rewrite::{Names, identity, rewrite};
use crate::error::{Code, HfError, Result};
use crate::json::{self, Member, Object};

/// A change of an entity, before and after.
///
/// The states are JSON objects as `JSON.stringify` writes them: the names in one are all different.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    /// The entity's kind; for errors.
    pub kind: &'a str,
    /// The entity's id; for errors.
    pub id: &'a str,
    /// The state before; `None` when the entity did not exist.
    pub prev: Option<&'a str>,
    /// The state after; `None` when the entity was removed.
    pub next: Option<&'a str>,
    /// The fields that the schema can return. A field of `prev` that is neither among them nor in `next` is not compared;
    /// the event still shows it. `None` when the schema lets unknown fields through.
    pub known: Option<&'a HashSet<String>>,
    /// The secrets of the run that made the change; `None` without a run.
    pub secrets: Option<&'a SecretSet>,
    /// Set when the run's secrets are lost, and with them the knowledge of what to mask. Every string in the value of a
    /// changed field is then masked, names of members included; so is the name of a changed field that the schema does
    /// not know and that `prev` does not have.
    pub mask_all_changed: bool,
}

/// A row of the transition log: the change of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The field's name.
    pub field: String,
    /// The text of the value before; `None` when the entity did not exist, `"null"` when it lacked the field.
    pub from_value: Option<String>,
    /// The text of the value after; `"null"` when the field is gone.
    pub to_value: String,
    /// The key of the value after, see [`value_key`].
    pub to_key: ValueKey,
    /// The key of the value before; `None` when the entity did not exist.
    pub from_key: Option<ValueKey>,
    /// Whether something in the value after was masked.
    pub masked: bool,
}

/// What a change leaves behind, masked. Lone surrogates are U+FFFD in strings and as they came in JSON texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// The names of the changed fields, sorted by UTF-16 code unit.
    pub changed_fields: Vec<String>,
    /// The same as a JSON array.
    pub changed_fields_json: String,
    /// One row for each changed field, in that order; none when the entity was removed.
    pub rows: Vec<Row>,
    /// The JSON text of the state before, with all its fields; the very text that came in when nothing was masked.
    pub prev: Option<String>,
    /// The JSON text of the state after, likewise.
    pub next: Option<String>,
    /// The JSON text of the changed fields with their values after, `null` for those that are gone. Fields of `prev`
    /// come first, in its order, then the new ones. `{}` when the entity was removed.
    pub delta: String,
}

impl Derived {
    /// The same change without the fields that `known` says true of, by their places; `None` if nothing is left.
    ///
    /// # Errors
    /// Where `delta` is no JSON object.
    pub fn without(&self, known: &[bool]) -> Result<Option<Self>> {
        let left = |index: usize| !known.get(index).copied().unwrap_or(false);
        let kept = |index: &usize| left(*index);
        if self.rows.is_empty() || !(0..self.rows.len()).any(left) {
            return Ok(None);
        }
        let places: Vec<usize> = (0..self.changed_fields.len()).filter(kept).collect();
        let changed_fields: Vec<String> =
            places.iter().filter_map(|index| self.changed_fields.get(*index).cloned()).collect();
        let quoted: Vec<String> = changed_fields.iter().map(|name| json::quote(name)).collect();
        let delta = super::event::state(&self.delta)?;
        let members = delta.members().iter().filter(|member| changed_fields.iter().any(|name| member.key == *name));
        Ok(Some(Self {
            changed_fields_json: format!("[{}]", quoted.join(",")),
            rows: places.iter().filter_map(|index| self.rows.get(*index).cloned()).collect(),
            delta: object_text(members.map(|member| (member.raw_key, member.raw))),
            changed_fields,
            prev: self.prev.clone(),
            next: self.next.clone(),
        }))
    }
}

/// Derives the traces of `change`; `None` when nothing changed.
///
/// A field changed when the canonical texts of its two values differ; a field that is not there counts as `null`. To
/// come into being or to cease is a change even when no field changed.
///
/// # Errors
/// `HF_INVALID_ARGUMENT` when a state is not a JSON object. The message names kind, id and place, no part of the state.
pub fn derive(change: &Change) -> Result<Option<Derived>> {
    let prev = change.prev.map(|text| parse(change, "previous", text)).transpose()?;
    let next = change.next.map(|text| parse(change, "next", text)).transpose()?;
    let mut fields = Fields::pair(members(prev.as_ref()), members(next.as_ref()));
    let changed_any = fields.compare(change.known);
    if !changed_any && prev.is_some() == next.is_some() {
        return Ok(None);
    }
    let masked = fields.mask(change);
    let mut changed: Vec<&Field> = fields.list.iter().filter(|field| field.changed).collect();
    let delta = match next {
        Some(_) => object_text(changed.iter().map(|field| (&*field.name, text_of(field.next.as_ref())))),
        None => "{}".to_owned(),
    };
    changed.sort_by(|a, b| compare_names(&a.name, &b.name));
    let names: Vec<&str> = changed.iter().map(|field| &*field.name).collect();
    Ok(Some(Derived {
        changed_fields: names.iter().map(|name| field_text(name)).collect(),
        changed_fields_json: format!("[{}]", names.join(",")),
        rows: match next {
            Some(_) => changed.iter().map(|field| field.row(prev.is_some())).collect(),
            None => Vec::new(),
        },
        prev: change.prev.map(|text| if masked { fields.prev_text() } else { text.to_owned() }),
        next: change.next.map(|text| if masked { fields.next_text() } else { text.to_owned() }),
        delta,
    }))
}

fn parse<'a>(change: &Change, which: &str, text: &'a str) -> Result<Object<'a>> {
    Object::parse(text).map_err(|error| {
        let (kind, id) = (change.kind, change.id);
        HfError::new(
            Code::InvalidArgument,
            format!("The {which} state of {kind}:{id} is not a JSON object: {error}; states must be plain objects"),
        )
        .with_field("kind", kind)
        .with_field("id", id)
    })
}

fn members<'b, 'a>(state: Option<&'b Object<'a>>) -> &'b [Member<'a>] {
    state.map(Object::members).unwrap_or_default()
}

/// The fields of both states.
struct Fields<'b> {
    /// Those of the state before in its order, then the new ones.
    list: Vec<Field<'b>>,
    /// The fields of the state after in its order, as places in the list.
    next_order: Vec<usize>,
}

struct Field<'b> {
    /// The name, decoded.
    key: &'b str,
    /// The name as a JSON string; masked later.
    name: Cow<'b, str>,
    prev: Option<Value<'b>>,
    next: Option<Value<'b>>,
    changed: bool,
}

struct Value<'b> {
    raw: &'b str,
    /// The text that stands for the value once masked, when that is another.
    masked: Option<String>,
    /// The canonical text, of a value that was looked into.
    canonical: Option<Cow<'b, str>>,
}

impl<'b> Fields<'b> {
    /// Brings together the members of the same name. Mostly both states have them in the same order; a table of names is
    /// made when they do not.
    fn pair(prev: &'b [Member<'_>], next: &'b [Member<'_>]) -> Self {
        let mut list: Vec<Field<'b>> = Vec::with_capacity(prev.len().max(next.len()));
        let mut places = vec![None; next.len()];
        let mut by_name: Option<HashMap<Cow<str>, usize>> = None;
        let mut expected = 0;
        for member in prev {
            let index = match next.get(expected) {
                Some(candidate) if candidate.raw_key == member.raw_key => Some(expected),
                _ => by_name
                    .get_or_insert_with(|| next.iter().enumerate().map(|(i, m)| (identity(m.raw_key), i)).collect())
                    .get(&identity(member.raw_key))
                    .copied(),
            };
            let mut field = Field::named(member);
            field.prev = Some(Value::new(member));
            if let (Some(index), Some(place)) = (index, index.and_then(|index| places.get_mut(index))) {
                *place = Some(list.len());
                field.next = next.get(index).map(Value::new);
                expected = index + 1;
            }
            list.push(field);
        }
        let mut next_order = Vec::with_capacity(next.len());
        for (member, place) in next.iter().zip(places) {
            next_order.push(place.unwrap_or(list.len()));
            if place.is_none() {
                list.push(Field { next: Some(Value::new(member)), ..Field::named(member) });
            }
        }
        Self { list, next_order }
    }

    /// Marks the fields that changed; whether there are any.
    fn compare(&mut self, known: Option<&HashSet<String>>) -> bool {
        let mut any = false;
        for field in &mut self.list {
            if field.next.is_none() && known.is_some_and(|known| !known.contains(field.key)) {
                continue;
            }
            let (before, after) = (field.prev.as_mut(), field.next.as_mut());
            field.changed = raw_of(before.as_deref()) != raw_of(after.as_deref())
                && Value::look_into(before) != Value::look_into(after);
            any |= field.changed;
        }
        any
    }

    /// Masks names and values; `false` when there was nothing to mask.
    fn mask(&mut self, change: &Change) -> bool {
        let secrets = change
            .secrets
            .filter(|secrets| [change.prev, change.next].into_iter().flatten().any(|state| secrets.may_be_in(state)));
        if secrets.is_none() && !change.mask_all_changed {
            return false;
        }
        let mut names = Names::default();
        let mut any = false;
        for field in &mut self.list {
            let lost = change.mask_all_changed && field.changed;
            // A name from the schema or from an earlier state is no secret of this run.
            let name_lost = lost && field.prev.is_none() && change.known.is_none_or(|known| !known.contains(field.key));
            let name = if name_lost { Some(token()) } else { secrets.and_then(|s| s.masked_string(&field.name)) };
            if let Some(name) = names.claim(name.as_deref().unwrap_or(&field.name)).or(name) {
                field.name = Cow::Owned(name);
                any = true;
            }
            for value in [&mut field.prev, &mut field.next].into_iter().flatten() {
                value.masked = match secrets {
                    _ if lost => rewrite(value.raw, &|raw| Some(token()).filter(|token| token != raw)),
                    Some(secrets) => secrets.masked(value.raw),
                    None => None,
                };
                any |= value.masked.is_some();
            }
        }
        any
    }

    fn prev_text(&self) -> String {
        object_text(self.list.iter().filter_map(|field| Some((&*field.name, field.prev.as_ref()?.text()))))
    }

    fn next_text(&self) -> String {
        let fields = self.next_order.iter().filter_map(|place| self.list.get(*place));
        object_text(fields.filter_map(|field| Some((&*field.name, field.next.as_ref()?.text()))))
    }
}

impl<'b> Field<'b> {
    fn named(member: &'b Member<'_>) -> Self {
        let name = Cow::Borrowed(member.raw_key);
        Self { key: &member.key, name, prev: None, next: None, changed: false }
    }

    fn row(&self, existed: bool) -> Row {
        let (from, to) = (self.prev.as_ref(), self.next.as_ref());
        Row {
            field: field_text(&self.name),
            from_value: existed.then(|| field_text(text_of(from))),
            to_value: field_text(text_of(to)),
            to_key: key_of(to),
            from_key: existed.then(|| key_of(from)),
            masked: to.is_some_and(|value| value.masked.is_some()),
        }
    }
}

impl<'b> Value<'b> {
    fn new(member: &'b Member<'_>) -> Self {
        Self { raw: member.raw, masked: None, canonical: None }
    }

    fn look_into(value: Option<&mut Self>) -> &str {
        value.map_or("null", |value| value.canonical.insert(canonical(value.raw)))
    }

    fn text(&self) -> &str {
        self.masked.as_deref().unwrap_or(self.raw)
    }
}

fn raw_of<'b>(value: Option<&Value<'b>>) -> &'b str {
    value.map_or("null", |value| value.raw)
}

fn text_of<'c>(value: Option<&'c Value<'_>>) -> &'c str {
    value.map_or("null", Value::text)
}

fn key_of(value: Option<&Value<'_>>) -> ValueKey {
    match value {
        Some(Value { masked: None, canonical: Some(canonical), .. }) => key_of_canonical(canonical),
        value => value_key(text_of(value)),
    }
}

fn token() -> String {
    json::quote(TOKEN)
}

/// The JSON text of an object, from names and values that are JSON texts.
pub(super) fn object_text<'c>(members: impl Iterator<Item = (&'c str, &'c str)>) -> String {
    let mut out = String::from("{");
    for (name, value) in members {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(name);
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
    out
}
