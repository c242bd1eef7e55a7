//! What was used: every entry, and the sums.

use serde::Deserialize;

use crate::error::{Code, HfError, Result};
use crate::json;
use crate::session_graph::sql::{Row, Sql, Value, all, first};

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Usage {
    pub(crate) source: String,
    pub(crate) model: String,
    pub(crate) usage: Tokens,
}

/// Counts of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tokens {
    pub(crate) input_tokens: i64,
    pub(crate) output_tokens: i64,
    pub(crate) cached_input_tokens: i64,
    pub(crate) reasoning_tokens: i64,
}

impl Usage {
    /// As JSON.
    pub(crate) fn text(&self) -> String {
        let tokens = self.usage;
        format!(
            "{{\"source\":{},\"model\":{},\"usage\":{{\"inputTokens\":{},\"outputTokens\":{},\"cachedInputTokens\":{},\
             \"reasoningTokens\":{}}}}}",
            json::quote(&self.source),
            json::quote(&self.model),
            tokens.input_tokens,
            tokens.output_tokens,
            tokens.cached_input_tokens,
            tokens.reasoning_tokens
        )
    }

    /// Whether nothing was used; what came from a cache does not count.
    fn is_nothing(&self) -> bool {
        self.usage.input_tokens + self.usage.output_tokens + self.usage.reasoning_tokens == 0
    }

    fn read(row: &dyn Row) -> Result<Self> {
        Ok(Self {
            source: row.string(0)?,
            model: row.string(1)?,
            usage: Tokens {
                input_tokens: row.int(2)?,
                output_tokens: row.int(3)?,
                cached_input_tokens: row.int(4)?,
                reasoning_tokens: row.int(5)?,
            },
        })
    }
}

/// A sum would be more than the numbers of JavaScript can tell exactly.
fn too_much(entry: &Usage) -> HfError {
    let Usage { source, model, .. } = entry;
    let message = format!(
        "a sum of the tokens of model `{model}` and source `{source}` would be beyond 9007199254740991, the largest number that is \
         exact; nothing was written: this entry must be a mistake"
    );
    HfError::new(Code::InvalidArgument, message)
        .with_field("argument", "usage")
        .with_field("source", source.as_str())
        .with_field("model", model.as_str())
}

/// SQLSTATE of a row that a table does not take; of these sums, since one is too large.
const CHECK_VIOLATION: &str = "23514";

/// The number of the last entry.
pub(crate) fn last(sql: &mut dyn Sql) -> Result<i64> {
    let statement = "SELECT COALESCE(max(seq), 0) FROM usage_deltas";
    Ok(first(sql, "append usage", statement, &[], |row| row.int(0))?.unwrap_or(0))
}

/// Appends entries, and adds them to the sums.
pub(crate) fn append(sql: &mut dyn Sql, entries: &[Usage]) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let last = last(sql)?;
    for (seq, entry) in (last + 1..).zip(entries) {
        let tokens = entry.usage;
        let values = [
            Value::Int(seq),
            Value::Text(&entry.source),
            Value::Text(&entry.model),
            Value::Int(tokens.input_tokens),
            Value::Int(tokens.output_tokens),
            Value::Int(tokens.cached_input_tokens),
            Value::Int(tokens.reasoning_tokens),
        ];
        sql.post(
            "append usage",
            "INSERT INTO usage_deltas
             (seq, source, model, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            &values,
        )?;
        if entry.is_nothing() {
            continue;
        }
        if !sql.is_embedded() {
            sql.post_or(
                "add usage",
                "WITH added AS (
                   UPDATE usage_totals SET input_tokens = input_tokens + ?4, output_tokens = output_tokens + ?5,
                   cached_input_tokens = cached_input_tokens + ?6, reasoning_tokens = reasoning_tokens + ?7
                   WHERE source = ?2 AND model = ?3 RETURNING 1)
                 INSERT INTO usage_totals
                 (first_seq, source, model, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE NOT EXISTS (SELECT FROM added)",
                &values,
                CHECK_VIOLATION,
                too_much(entry),
            )?;
            continue;
        }
        let [_, sums @ ..] = values;
        let changed = sql.run(
            "add usage",
            "UPDATE usage_totals SET input_tokens = input_tokens + ?3, output_tokens = output_tokens + ?4,
             cached_input_tokens = cached_input_tokens + ?5, reasoning_tokens = reasoning_tokens + ?6
             WHERE source = ?1 AND model = ?2
             AND abs(input_tokens + ?3) <= 9007199254740991 AND abs(output_tokens + ?4) <= 9007199254740991
             AND abs(cached_input_tokens + ?5) <= 9007199254740991 AND abs(reasoning_tokens + ?6) <= 9007199254740991",
            &sums,
        )?;
        if changed > 0 {
            continue;
        }
        let first = sql.run(
            "add usage",
            "INSERT INTO usage_totals
             (first_seq, source, model, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
            &values,
        )?;
        // There is a sum, and it was not changed.
        if first == 0 {
            return Err(too_much(entry));
        }
    }
    Ok(())
}

/// All entries, in the order in which they came, as a JSON array.
pub(crate) fn deltas(sql: &mut dyn Sql) -> Result<String> {
    list(
        sql,
        "SELECT source, model, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens
         FROM usage_deltas ORDER BY seq",
    )
}

/// The sums by source and model, in the order of their first entries, as a JSON array.
pub(crate) fn ledger(sql: &mut dyn Sql) -> Result<String> {
    list(
        sql,
        "SELECT source, model, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens
         FROM usage_totals ORDER BY first_seq",
    )
}

/// The sums as entries.
pub(crate) fn sums(sql: &mut dyn Sql) -> Result<Vec<Usage>> {
    let statement = "SELECT source, model, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens
                     FROM usage_totals ORDER BY first_seq";
    all(sql, "read usage", statement, &[], Usage::read)
}

fn list(sql: &mut dyn Sql, statement: &'static str) -> Result<String> {
    let entries = all(sql, "read usage", statement, &[], |row| Usage::read(row).map(|usage| usage.text()))?;
    Ok(format!("[{}]", entries.join(",")))
}
