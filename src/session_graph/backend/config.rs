//! How a store is opened.

use std::path::PathBuf;

use serde::Deserialize;

use crate::postgres;
use crate::session_graph::blob::Profile;

/// How a store is opened; the JSON of the facade.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// The file; its folder must exist. Missing = in memory of this process.
    pub path: Option<PathBuf>,
    /// Whether the file is only looked at.
    pub read_only: bool,
    /// Whether it is looked at without leaving anything beside it, for a moment.
    pub peeks: bool,
    /// `full`: a power cut takes nothing that was answered; `normal`: it may take the last moments. Default `full`.
    pub synchronous: Synchronous,
    /// How long a call waits for another process; default 15 000.
    pub busy_timeout_ms: u64,
    /// Most reads at the same time; default 4.
    pub max_readers: usize,
    /// Whether a file may be made or brought up to date; default yes.
    pub migrates: bool,
    /// Which blobs are compressed; default `balanced`.
    pub blob_profile: Profile,
    /// What is collected by itself; default nothing.
    pub gc: GcPolicy,
    /// Not a file but a schema of a PostgreSQL database.
    pub postgres: Option<Box<PostgresConfig>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: None,
            read_only: false,
            peeks: false,
            synchronous: Synchronous::Full,
            busy_timeout_ms: 15_000,
            max_readers: 4,
            migrates: true,
            blob_profile: Profile::Balanced,
            gc: GcPolicy::default(),
            postgres: None,
        }
    }
}

/// What a power cut may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Synchronous {
    /// Nothing.
    Full,
    /// The last moments.
    Normal,
}

/// When blobs that nobody can reach are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GcPolicy {
    /// After every so many commits of this handle; `None` = only when asked.
    pub every_commits: Option<u64>,
    /// How old a blob must be.
    pub min_blob_age_ms: i64,
}

/// A store in a schema of a PostgreSQL database.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostgresConfig {
    /// How to connect.
    pub connection: postgres::Config,
    /// Tells connections apart: stores with the same one share them.
    pub connection_key: String,
    /// The schema of the tables, made when it is missing.
    pub schema: String,
    /// Which store of the schema.
    pub key: String,
}
