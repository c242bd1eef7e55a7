//! Parameters that are kept until they are sent.

use std::borrow::Cow;

use super::super::Value;
use crate::postgres::Param;
use crate::postgres::types::{ToSql, Type};

/// A parameter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Kept {
    Int(Option<i64>),
    Text(Option<String>),
    Bytes(Vec<u8>),
    Texts(Option<Vec<String>>),
    Ints(Vec<i64>),
}

impl Kept {
    pub(super) fn of(value: &Value<'_>) -> Self {
        match *value {
            Value::Int(number) => Self::Int(Some(number)),
            Value::OptInt(number) => Self::Int(number),
            Value::Text(text) => Self::Text(Some(storable(text).into_owned())),
            Value::OptText(text) => Self::Text(text.map(|text| storable(text).into_owned())),
            Value::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
        }
    }

    /// As the driver wants it.
    pub(super) fn param(&self) -> Param<'_> {
        match self {
            Self::Int(number) => (number as &(dyn ToSql + Sync), Type::INT8),
            Self::Text(text) => (text as &(dyn ToSql + Sync), Type::TEXT),
            Self::Bytes(bytes) => (bytes as &(dyn ToSql + Sync), Type::BYTEA),
            Self::Texts(texts) => (texts as &(dyn ToSql + Sync), Type::TEXT_ARRAY),
            Self::Ints(ints) => (ints as &(dyn ToSql + Sync), Type::INT8_ARRAY),
        }
    }
}

/// What PostgreSQL can hold of a text: everything but U+0000, which becomes U+FFFD. No id has one, and JSON has it escaped.
fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}
