//! Who is alive: whether the store that began an operation can still finish it.

use super::sql::Sql;
use crate::error::Result;

/// What is known of the stores that share a database.
pub trait Owners {
    /// This store's name, as it stands in the database.
    fn me(&self) -> &str;

    /// Whether the store called `owner` is gone for good. "No" where that is not certain yet.
    ///
    /// # Errors
    /// What the database or the file system says.
    fn is_dead(&self, sql: &mut dyn Sql, owner: &str) -> Result<bool>;
}

/// A private database: whoever wrote to it before is gone.
#[derive(Debug, Clone)]
pub struct Alone(pub String);

impl Owners for Alone {
    fn me(&self) -> &str {
        &self.0
    }

    fn is_dead(&self, _sql: &mut dyn Sql, owner: &str) -> Result<bool> {
        Ok(owner != self.0)
    }
}

/// What a test says.
#[cfg(test)]
#[derive(Debug, Clone)]
pub struct Fixed {
    me: String,
    dead: Vec<String>,
}

#[cfg(test)]
impl Fixed {
    /// Makes a store called `me` beside which those of `dead` have ended.
    #[must_use]
    pub fn new(me: &str, dead: &[&str]) -> Self {
        Self { me: me.to_owned(), dead: dead.iter().map(|name| (*name).to_owned()).collect() }
    }
}

#[cfg(test)]
impl Owners for Fixed {
    fn me(&self) -> &str {
        &self.me
    }

    fn is_dead(&self, _sql: &mut dyn Sql, owner: &str) -> Result<bool> {
        Ok(self.dead.iter().any(|name| name == owner))
    }
}
