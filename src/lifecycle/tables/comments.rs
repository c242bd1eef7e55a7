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
    let mut differs = false;
    for comment in &wanted {
        if known.get(comment.comment_id.as_str()).is_some_and(|stored| *stored == comment) {
            continue;
        }
        differs = true;
        let created = time::text(comment.created_at)?;
        sql.run(
            "store a comment",
            "INSERT INTO pr_comment (pr_url, comment_id, author, file, line, resolved, created_at, body) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (pr_url, comment_id) DO UPDATE SET author = excluded.author, \
             file = excluded.file, line = excluded.line, resolved = excluded.resolved, created_at = excluded.created_at, \
             body = excluded.body",
            &[
                Value::Text(url),
                Value::Text(&comment.comment_id),
                Value::Text(&comment.author),
                Value::Text(&comment.file),
                Value::Int(comment.line),
                Value::Int(comment.resolved.into()),
                Value::Text(&created),
                Value::Text(&comment.body),
            ],
        )?;
    }
    let kept: std::collections::HashSet<&str> = wanted.iter().map(|comment| comment.comment_id.as_str()).collect();
    for gone in stored.iter().filter(|comment| !kept.contains(comment.comment_id.as_str())) {
        differs = true;
        sql.run(
            "remove a comment",
            "DELETE FROM pr_comment WHERE pr_url = ?1 AND comment_id = ?2",
            &[Value::Text(url), Value::Text(&gone.comment_id)],
        )?;
    }
    if differs {
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
