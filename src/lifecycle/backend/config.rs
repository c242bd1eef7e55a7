//! How a store is opened.

use std::path::PathBuf;

use serde::Deserialize;

use crate::lifecycle::tables::prune::Limits;
use crate::postgres;
use crate::sqlite::Network;

const DAY_MS: i64 = 86_400_000;

/// How a store is opened; as JSON with the member `target`: `sqlite` or `postgres`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "target", rename_all = "camelCase")]
pub enum Config {
    /// In a file, or in memory.
    Sqlite(SqliteConfig),
    /// In a schema of a PostgreSQL database.
    Postgres(Box<PostgresConfig>),
}

/// In a file, or in memory.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SqliteConfig {
    /// The file; its folders are made when they are missing. Missing = in memory of this process.
    pub path: Option<PathBuf>,
    /// `full`: a power cut takes nothing that was answered; `normal`: it may take the last moments. Default `full`.
    pub synchronous: Synchronous,
    /// How long a call waits for another process; default 5000.
    pub busy_timeout_ms: u64,
    /// Most reads at the same time; default 8.
    pub max_readers: usize,
    /// What is done about a file system of a network; default: it is refused.
    pub network_file_system: Network,
    /// What is kept of the change log.
    pub retention: Retention,
    /// Agents besides the built-in ones.
    pub harnesses: Vec<String>,
}

impl Default for SqliteConfig {
    fn default() -> Self {
        Self {
            path: None,
            synchronous: Synchronous::Full,
            busy_timeout_ms: 5000,
            max_readers: 8,
            network_file_system: Network::Refuse,
            retention: Retention::default(),
            harnesses: Vec::new(),
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

/// In a schema of a PostgreSQL database.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostgresConfig {
    /// How to connect.
    pub connection: postgres::Config,
    /// The schema of the tables, made when it is missing; default `holdfast_lifecycle`.
    #[serde(default = "schema")]
    pub schema: String,
    /// How long a call waits for a lock that somebody else holds; default 5000.
    #[serde(default = "busy_timeout_ms")]
    pub busy_timeout_ms: u64,
    /// What is kept of the change log.
    #[serde(default)]
    pub retention: Retention,
    /// Agents besides the built-in ones.
    #[serde(default)]
    pub harnesses: Vec<String>,
}

fn busy_timeout_ms() -> u64 {
    5000
}

fn schema() -> String {
    "holdfast_lifecycle".to_owned()
}

/// What is kept of the change log. As JSON: an object, whose missing members have their defaults (7 days, 100 000 rows; of
/// resolved notifications 30 days); `false`
/// keeps everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(from = "Given")]
pub struct Retention(pub Option<Limits>);

impl Default for Retention {
    fn default() -> Self {
        Self(Some(Limits {
            max_age_ms: Some(7 * DAY_MS),
            max_rows: Some(100_000),
            hard: false,
            notifications_max_age_ms: Some(30 * DAY_MS),
        }))
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Given {
    Switch(bool),
    Limits(Limits),
}

impl From<Given> for Retention {
    fn from(given: Given) -> Self {
        let Retention(default) = Self::default();
        match given {
            Given::Switch(true) => Self(default),
            Given::Switch(false) => Self(None),
            Given::Limits(limits) => Self(default.map(|default| Limits {
                max_age_ms: limits.max_age_ms.or(default.max_age_ms),
                max_rows: limits.max_rows.or(default.max_rows),
                hard: limits.hard,
                notifications_max_age_ms: limits.notifications_max_age_ms.or(default.notifications_max_age_ms),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_json_of_the_facade() {
        let text = r#"{"target":"sqlite","path":"/x/s.db","synchronous":"normal","retention":{"maxRows":5},"harnesses":["h"]}"#;
        let Config::Sqlite(config) = serde_json::from_str(text).unwrap() else { panic!() };
        assert_eq!(config.path, Some(PathBuf::from("/x/s.db")));
        assert_eq!((config.synchronous, config.busy_timeout_ms, config.max_readers), (Synchronous::Normal, 5000, 8));
        assert_eq!(config.retention.0.unwrap().max_rows, Some(5));
        assert_eq!(config.retention.0.unwrap().max_age_ms, Some(7 * DAY_MS));
        let text = r#"{"target":"postgres","connection":{"host":"h"},"retention":false}"#;
        let Config::Postgres(config) = serde_json::from_str(text).unwrap() else { panic!() };
        assert_eq!((config.schema.as_str(), config.retention.0), ("holdfast_lifecycle", None));
        let Config::Sqlite(config) = serde_json::from_str(r#"{"target":"sqlite"}"#).unwrap() else { panic!() };
        assert_eq!(config.retention.0.unwrap().max_rows, Some(100_000));
    }
}
