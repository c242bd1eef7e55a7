//! Leases: who runs which process. Times decide who may claim; the token decides who may renew.

use serde::Deserialize;

use super::error::{lease_lost, leased, unknown};
use super::record::Process;
use crate::error::Result;
use crate::ids;
use crate::json;
use crate::session_graph::command::arguments;
use crate::session_graph::error::record_version;
use crate::session_graph::sql::{Sql, Value, first};

/// The version of leases that are handed out.
const VERSION: i64 = 1;
/// Times beyond it are no safe integers of JavaScript.
const TIME_MAX: i64 = (1 << 53) - 1;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claim {
    id: String,
    owner_id: String,
    lease_ttl_ms: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Renewal {
    schema_version: i64,
    process_id: String,
    lease_token: String,
    lease_ttl_ms: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Release {
    process_id: String,
    lease_token: String,
}

struct Lease {
    owner: Option<String>,
    token: Option<String>,
    fencing: i64,
    claimed: i64,
    expires: i64,
}

fn find(sql: &mut dyn Sql, id: &str) -> Result<Option<Lease>> {
    first(
        sql,
        "look for a lease",
        "SELECT owner_id, lease_token, fencing_token, claimed_at_ms, expires_at_ms FROM process_leases WHERE process_id = ?1",
        &[Value::Text(id)],
        |row| {
            Ok(Lease {
                owner: row.opt_string(0)?,
                token: row.opt_string(1)?,
                fencing: row.int(2)?,
                claimed: row.int(3)?,
                expires: row.int(4)?,
            })
        },
    )
}

fn text(id: &str, owner: &str, token: &str, fencing: i64, claimed: i64, expires: i64) -> String {
    format!(
        "{{\"schemaVersion\":{VERSION},\"processId\":{},\"ownerId\":{},\"leaseToken\":{},\"fencingToken\":{fencing},\
         \"claimedAtEpochMs\":{claimed},\"expiresAtEpochMs\":{expires}}}",
        json::quote(id),
        json::quote(owner),
        json::quote(token)
    )
}

/// Claims a process for an owner: a free one, one whose lease has lapsed, or his own.
pub(super) fn claim(sql: &mut dyn Sql, command: &str) -> Result<String> {
    let Claim { id, owner_id, lease_ttl_ms } = arguments(command, "claimLease")?;
    let now = sql.now()?;
    let held = find(sql, &id)?;
    if let Some(Lease { owner: Some(owner), token: Some(_), expires, .. }) = &held
        && *owner != owner_id
        && *expires > now
    {
        return Err(leased(&id, owner, *expires));
    }
    if held.is_none() && Process::find(sql, &id)?.is_none() {
        return Err(unknown(&id));
    }
    let fencing = held.map_or(0, |held| held.fencing) + 1;
    let token = ids::uuid().replace('-', "");
    let expires = now.saturating_add(lease_ttl_ms).min(TIME_MAX);
    sql.run(
        "claim a process",
        "INSERT INTO process_leases (process_id, owner_id, lease_token, fencing_token, claimed_at_ms, expires_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (process_id) DO UPDATE SET owner_id = excluded.owner_id,
         lease_token = excluded.lease_token, fencing_token = excluded.fencing_token, claimed_at_ms = excluded.claimed_at_ms,
         expires_at_ms = excluded.expires_at_ms",
        &[
            Value::Text(&id),
            Value::Text(&owner_id),
            Value::Text(&token),
            Value::Int(fencing),
            Value::Int(now),
            Value::Int(expires),
        ],
    )?;
    Ok(text(&id, &owner_id, &token, fencing, now, expires))
}

/// Lets a lease that has not lapsed end so long from now; returns it.
pub(super) fn renew(sql: &mut dyn Sql, command: &str) -> Result<String> {
    let Renewal { schema_version, process_id: id, lease_token, lease_ttl_ms } = arguments(command, "renewLease")?;
    if schema_version != VERSION {
        return Err(record_version("process lease", schema_version, VERSION));
    }
    let now = sql.now()?;
    let held = find(sql, &id)?;
    let Some(Lease { owner: Some(owner), fencing, claimed, .. }) =
        held.filter(|held| held.token.as_ref() == Some(&lease_token) && held.expires > now)
    else {
        return Err(lease_lost(&id));
    };
    let expires = now.saturating_add(lease_ttl_ms).min(TIME_MAX);
    sql.run(
        "renew a lease",
        "UPDATE process_leases SET expires_at_ms = ?2 WHERE process_id = ?1",
        &[Value::Text(&id), Value::Int(expires)],
    )?;
    Ok(text(&id, &owner, &lease_token, fencing, claimed, expires))
}

/// Gives a lease back, if it is still the one; the fencing token stays.
pub(super) fn release(sql: &mut dyn Sql, command: &str) -> Result<String> {
    let Release { process_id, lease_token } = arguments(command, "releaseLease")?;
    sql.run(
        "give a lease back",
        "UPDATE process_leases SET owner_id = NULL, lease_token = NULL, expires_at_ms = 0
         WHERE process_id = ?1 AND lease_token = ?2",
        &[Value::Text(&process_id), Value::Text(&lease_token)],
    )?;
    Ok("null".to_owned())
}
