//! What a caller says about a server: plain data, nothing is read or connected here.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Gives the password for one new connection.
pub type PasswordSource = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<String>> + Send>> + Send + Sync>;

/// How to reach a server. What the connection string says beats the single fields, these beat the `PG*` environment
/// variables, and those beat the defaults (`localhost`, 5432, the user of the process, a database named like the user).
///
/// As JSON: camelCase, times as whole milliseconds (`idleTimeoutMs`, `connectTimeoutMs` …), unknown fields ignored.
/// `Debug` shows neither password nor connection string.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// `postgres://user:password@host:port/database?sslmode=…`, several hosts with commas, `host=… dbname=…` pairs, or
    /// node-postgres' `/socket/folder database` and `socket:/folder?db=…`. [`Ssl`] lists the parameters for TLS; unknown ones are ignored.
    pub connection_string: Option<String>,
    /// Host name, address, or (starting with `/`) the folder of a Unix socket.
    pub host: Option<String>,
    /// TCP port, or the number in the socket's name.
    pub port: Option<u16>,
    /// Role to log in as.
    pub user: Option<String>,
    /// Its password. Without one, `PGPASSWORD` and then the password file (`~/.pgpass`) are looked at.
    pub password: Option<String>,
    /// Asked before each new connection; beats every other password.
    #[serde(skip)]
    pub password_source: Option<PasswordSource>,
    /// Database to connect to.
    pub database: Option<String>,
    /// Startup options of the session, such as `-c TimeZone=UTC`.
    pub options: Option<String>,
    /// Name shown in `pg_stat_activity`; default `holdfast`.
    pub application_name: Option<String>,
    /// Most connections of the pool, listeners not counted; default 4, at least 1.
    pub pool_size: usize,
    /// An idle connection is closed after this time; default 10 s, zero keeps it.
    #[serde(rename = "idleTimeoutMs", deserialize_with = "milliseconds")]
    pub idle_timeout: Option<Duration>,
    /// Bound of everything that a new connection takes: names, TCP, TLS, login; default 10 s.
    #[serde(rename = "connectTimeoutMs", deserialize_with = "milliseconds")]
    pub connect_timeout: Option<Duration>,
    /// Longest wait for a free connection of the pool; default 30 s.
    #[serde(rename = "acquireTimeoutMs", deserialize_with = "milliseconds")]
    pub acquire_timeout: Option<Duration>,
    /// How long `close` waits for running work before it cuts it off; default 30 s.
    #[serde(rename = "closeTimeoutMs", deserialize_with = "milliseconds")]
    pub close_timeout: Option<Duration>,
    /// TLS.
    pub ssl: Ssl,
    /// Whether statements are prepared by name once per connection. `false` suits poolers that switch servers between
    /// transactions (PgBouncer); `pgbouncer=true` in the URL says the same.
    pub statement_cache: bool,
    /// SQL without parameters with which each session of the pool begins, such as `SET jit = off`; not where `statement_cache` is
    /// off. A server that refuses it is used without.
    #[serde(skip)]
    pub session: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connection_string: None,
            host: None,
            port: None,
            user: None,
            password: None,
            password_source: None,
            database: None,
            options: None,
            application_name: None,
            pool_size: 4,
            idle_timeout: None,
            connect_timeout: None,
            acquire_timeout: None,
            close_timeout: None,
            ssl: Ssl::FromUrl,
            statement_cache: true,
            session: None,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("database", &self.database)
            .field("pool_size", &self.pool_size)
            .field("ssl", &self.ssl)
            .finish_non_exhaustive()
    }
}

/// TLS towards the server.
///
/// With `FromUrl` the connection string decides (or `PGSSLMODE`): `disable`; `prefer` (the default: encrypted where the
/// server offers it, nothing verified); `require`, `verify-full` (chain and host name are verified, as node-postgres
/// does); `verify-ca` (chain only); `no-verify` (encrypted, nothing verified). `uselibpqcompat=true` gives `require` its
/// weaker libpq meaning. `sslrootcert`, `sslcert` and `sslkey` name PEM files, `ssl=true|false` is understood. Unix sockets
/// are never encrypted.
///
/// As JSON: absent or null is `FromUrl`, `false` is `Disable`, `true` is `Verify`, an object is `Custom` with node's names
/// (`ca`, `cert`, `key`, `rejectUnauthorized`, `servername`).
#[derive(Clone, Default)]
pub enum Ssl {
    /// What the connection string says.
    #[default]
    FromUrl,
    /// No TLS.
    Disable,
    /// TLS; chain (roots of the system) and host name are verified.
    Verify,
    /// TLS with own certificates.
    Custom {
        /// Trusted roots, PEM; without them those of the system.
        ca: Option<Vec<String>>,
        /// Certificate chain of the client, PEM.
        cert: Option<String>,
        /// Its private key, PEM, not encrypted.
        key: Option<String>,
        /// `false` accepts any certificate.
        reject_unauthorized: bool,
        /// Name to verify instead of the host's.
        servername: Option<String>,
    },
}

impl fmt::Debug for Ssl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ssl::FromUrl => "FromUrl",
            Ssl::Disable => "Disable",
            Ssl::Verify => "Verify",
            Ssl::Custom { .. } => "Custom",
        })
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CustomSsl {
    ca: Option<OneOrMany>,
    cert: Option<String>,
    key: Option<String>,
    reject_unauthorized: Option<bool>,
    servername: Option<String>,
}

impl<'de> Deserialize<'de> for Ssl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        match value {
            serde_json::Value::Null => Ok(Ssl::FromUrl),
            serde_json::Value::Bool(false) => Ok(Ssl::Disable),
            serde_json::Value::Bool(true) => Ok(Ssl::Verify),
            serde_json::Value::Object(_) => {
                // The underlying message could quote a key.
                let custom: CustomSsl = serde_json::from_value(value).map_err(|_| {
                    D::Error::custom("`ssl` has a field of the wrong type (ca, cert, key are PEM texts)")
                })?;
                Ok(Ssl::Custom {
                    ca: custom.ca.map(|ca| match ca {
                        OneOrMany::One(text) => vec![text],
                        OneOrMany::Many(texts) => texts,
                    }),
                    cert: custom.cert,
                    key: custom.key,
                    reject_unauthorized: custom.reject_unauthorized.unwrap_or(true),
                    servername: custom.servername,
                })
            }
            _ => Err(D::Error::custom("`ssl` must be true, false or an object")),
        }
    }
}

fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Duration>, D::Error> {
    let value = Option::<f64>::deserialize(deserializer)?;
    value
        .map(|ms| Duration::try_from_secs_f64(ms / 1000.0))
        .transpose()
        .map_err(|_| D::Error::custom("a time must be a number of milliseconds, zero or more"))
}

/// What the pool is doing, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Connections that are open, used or idle.
    pub connections: usize,
    /// Those that nobody uses.
    pub idle: usize,
    /// Callers that wait for one.
    pub waiting: usize,
    /// Connections opened since the start.
    pub opened: u64,
    /// Tasks of [`spawn`](super::Postgres::spawn) that run.
    pub running: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_json_of_the_facade() {
        let text = r#"{"connectionString":"postgres://u:p@h/d","poolSize":2,"idleTimeoutMs":1500,
            "ssl":{"ca":"PEM","rejectUnauthorized":false,"servername":"db"},"statementCache":false,"other":1}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(config.pool_size, 2);
        assert_eq!(config.idle_timeout, Some(Duration::from_millis(1500)));
        assert!(!config.statement_cache);
        assert!(matches!(&config.ssl, Ssl::Custom { ca: Some(ca), reject_unauthorized: false, .. } if ca == &["PEM"]));
        assert!(matches!(serde_json::from_str::<Config>("{}").unwrap().ssl, Ssl::FromUrl));
        assert!(matches!(serde_json::from_str::<Config>(r#"{"ssl":true}"#).unwrap().ssl, Ssl::Verify));
        assert!(serde_json::from_str::<Config>(r#"{"idleTimeoutMs":-1}"#).is_err());
    }

    #[test]
    fn debug_and_errors_keep_secrets() {
        let config: Config =
            serde_json::from_str(r#"{"connectionString":"postgres://u:hunter2@h/d","password":"hunter2"}"#).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        let error = serde_json::from_str::<Config>(r#"{"ssl":{"key":7,"cert":"hunter2"}}"#).unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }
}
