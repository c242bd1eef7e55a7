//! Reads that are asked for together, before the code that needs their answers runs.

use super::{Row, Sql, Value};
use crate::error::Result;

/// A parameter that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kept {
    Int(Option<i64>),
    Text(Option<String>),
}

impl Kept {
    pub fn of(value: &Value<'_>) -> Self {
        match *value {
            Value::Int(number) => Self::Int(Some(number)),
            Value::OptInt(number) => Self::Int(number),
            Value::Text(text) => Self::Text(Some(text.to_owned())),
            Value::OptText(text) => Self::Text(text.map(str::to_owned)),
        }
    }

    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Int(number) => Value::OptInt(*number),
            Self::Text(text) => Value::OptText(text.as_deref()),
        }
    }
}

/// A statement and its parameters.
pub type Asked = (&'static str, Vec<Kept>);

/// Takes down what is asked, and answers with nothing.
#[derive(Default)]
pub struct Recorder {
    pub asked: Vec<Asked>,
    pub sessions: Vec<String>,
    pub prs: Vec<String>,
}

impl Sql for Recorder {
    fn run(&mut self, _doing: &'static str, _sql: &'static str, _params: &[Value<'_>]) -> Result<u64> {
        Ok(0)
    }

    fn rows(
        &mut self,
        _doing: &'static str,
        sql: &'static str,
        params: &[Value<'_>],
        _each: &mut dyn FnMut(&dyn Row) -> Result<()>,
    ) -> Result<()> {
        self.asked.push((sql, params.iter().map(Kept::of).collect()));
        Ok(())
    }

    fn lock_session(&mut self, id: &str) -> Result<()> {
        self.sessions.push(id.to_owned());
        Ok(())
    }

    fn lock_pr(&mut self, url: &str) -> Result<()> {
        self.prs.push(url.to_owned());
        Ok(())
    }

    fn lock_retention(&mut self) -> Result<()> {
        Ok(())
    }
}
