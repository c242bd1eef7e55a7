//! Comments of reviewers.

use super::list;
use crate::error::Result;
use crate::lifecycle::check::{self, CommentInput, constraint};
use crate::lifecycle::model::{Millis, PrComment};
use crate::lifecycle::sql::{Sql, Value};
use crate::lifecycle::{tables::prs, time};

/// Returns the comments of a pull request, by time and id.
///
/// # Errors
/// As [`Sql::rows`].
pub fn of(sql: &mut dyn Sql, url: &str) -> Result<Vec<PrComment>> {
    list(
        sql,
        "list comments",
        "SELECT pr_url, comment_id, author, file, line, body, resolved, created_at FROM pr_comment WHERE pr_url = ?1 \
         ORDER BY created_at, comment_id",
        &[Value::Text(url)],
        |row| {
            Ok(PrComment {
                pr_url: row.text(0)?.to_owned(),
                comment_id: row.text(1)?.to_owned(),
                author: row.text(2)?.to_owned(),
                file: row.text(3)?.to_owned(),
                line: row.int(4)?,
                body: row.text(5)?.to_owned(),
                resolved: row.int(6)? != 0,
                created_at: time::millis(row.text(7)?)?,
            })
        },
    )
}

/// Puts `comments` in place of all comments of a pull request: what is no longer there is removed, what differs is written.
/// One without a time keeps the one that it had, or gets `now`.
///
/// # Errors
/// `HF_LIFECYCLE_CONSTRAINT` (foreign key) without such a pull request. As [`Sql::run`].
pub fn replace(sql: &mut dyn Sql, url: &str, comments: &[CommentInput], now: Millis) -> Result<()> {
    // What is removed is told by what is stored: two who look at the same time would both leave theirs.
    sql.lock_pr(url)?;
    let stored = of(sql, url)?;
    if stored.is_empty() && !comments.is_empty() && prs::get(sql, url)?.is_none() {
        let message = "pr_comment.pr_url: there is no such pull request; store it first, nothing was changed";
        return Err(constraint("pr_comment", "pr_url", "foreign_key", message));
    }
    let wanted = check::comments(url, comments, &stored, now);
    let known: std::collections::HashMap<&str, &PrComment> =
        stored.iter().map(|comment| (comment.comment_id.as_str(), comment)).collect();
    let changed: Vec<&PrComment> = wanted
        .iter()
        .filter(|comment| known.get(comment.comment_id.as_str()).is_none_or(|stored| *stored != *comment))
        .collect();
    let created: Vec<String> = changed.iter().map(|comment| time::text(comment.created_at)).collect::<Result<_>>()?;
    let sets: Vec<Vec<Value<'_>>> = changed
        .iter()
        .zip(&created)
        .map(|(comment, created)| {
            vec![
                Value::Text(url),
                Value::Text(&comment.comment_id),
                Value::Text(&comment.author),
                Value::Text(&comment.file),
                Value::Int(comment.line),
                Value::Int(comment.resolved.into()),
                Value::Text(created),
                Value::Text(&comment.body),
            ]
        })
        .collect();
    sql.run_each(
        "store comments",
        "INSERT INTO pr_comment (pr_url, comment_id, author, file, line, resolved, created_at, body) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (pr_url, comment_id) DO UPDATE SET author = excluded.author, \
         file = excluded.file, line = excluded.line, resolved = excluded.resolved, created_at = excluded.created_at, \
         body = excluded.body",
        &sets,
    )?;
    let kept: std::collections::HashSet<&str> = wanted.iter().map(|comment| comment.comment_id.as_str()).collect();
    let gone: Vec<Vec<Value<'_>>> = stored
        .iter()
        .filter(|comment| !kept.contains(comment.comment_id.as_str()))
        .map(|comment| vec![Value::Text(url), Value::Text(&comment.comment_id)])
        .collect();
    sql.run_each("remove comments", "DELETE FROM pr_comment WHERE pr_url = ?1 AND comment_id = ?2", &gone)?;
    if !changed.is_empty() || !gone.is_empty() {
        // One event per replacement needs one row that changes once.
        let at = time::text(now)?;
        sql.run(
            "count a replacement of comments",
            "UPDATE pr SET comments_revision = comments_revision + 1, comments_at = ?2 WHERE url = ?1",
            &[Value::Text(url), Value::Text(&at)],
        )?;
    }
    Ok(())
}
