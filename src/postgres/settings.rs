//! Turns a [`Config`] into what the driver needs: one place for what beats what.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::{ChannelBinding, Host, LoadBalanceHosts, TargetSessionAttrs};

use super::address::{self, Pairs};
use super::config::{Config, PasswordSource, Ssl};
use super::passfile::{self, Target};
use super::tls::{self, Level, Pem, TlsPlan, Use};
use crate::error::{Code, HfError, Result};

const IDLE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(10);
const ACQUIRE: Duration = Duration::from_secs(30);
const CLOSE: Duration = Duration::from_secs(30);
/// A vanished server is noticed after about a minute on an idle connection, after half of one on a busy one.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Environment variables, and the parameters that they stand in for.
const VARIABLES: &[(&str, &str)] = &[
    ("PGHOST", "host"),
    ("PGPORT", "port"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGDATABASE", "dbname"),
    ("PGOPTIONS", "options"),
    ("PGAPPNAME", "application_name"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
];

/// Everything about a server that is known before the first connection.
pub(super) struct Settings {
    /// Without a password that the password file would give.
    pub(super) driver: tokio_postgres::Config,
    pub(super) tls: TlsPlan,
    pub(super) password_source: Option<PasswordSource>,
    pub(super) passfile: Option<(PathBuf, Target)>,
    /// `host:port`, for messages.
    pub(super) shown: String,
    pub(super) pool_size: usize,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) connect_timeout: Duration,
    pub(super) acquire_timeout: Duration,
    pub(super) close_timeout: Duration,
    pub(super) statement_cache: bool,
    pub(super) session: Option<String>,
}

fn invalid(key: &str, expected: &str) -> HfError {
    HfError::new(Code::InvalidArgument, format!("PostgreSQL: `{key}` must be {expected}"))
        .with_field("argument", key)
        .with_field("expected", expected)
}

/// Resolves `config` with `variable` as the environment. Reads no file and opens nothing.
pub(super) fn resolve(config: Config, variable: impl Fn(&str) -> Option<String>) -> Result<Settings> {
    if config.pool_size == 0 || config.pool_size > 1000 {
        return Err(invalid("poolSize", "a whole number from 1 to 1000"));
    }
    let mut pairs = match config.connection_string.as_deref() {
        Some(text) => address::parse(text)?,
        None => Pairs::new(),
    };
    let fields = [
        ("host", config.host.clone()),
        ("port", config.port.map(|port| port.to_string())),
        ("user", config.user.clone()),
        ("password", config.password.clone()),
        ("dbname", config.database.clone()),
        ("options", config.options.clone()),
        ("application_name", config.application_name.clone()),
    ];
    for (key, value) in fields {
        if let Some(value) = value {
            pairs.entry(key.to_owned()).or_insert(value);
        }
    }
    for (name, key) in VARIABLES {
        if let Some(value) = variable(name).filter(|value| !value.is_empty()) {
            pairs.entry((*key).to_owned()).or_insert(value);
        }
    }
    if !pairs.contains_key("user")
        && let Some(user) = variable("USER").or_else(|| variable("USERNAME")).filter(|user| !user.is_empty())
    {
        pairs.insert("user".into(), user);
    }
    let tls = tls_plan(&config.ssl, &pairs)?;
    let mut driver = driver(&pairs)?;
    let unix = driver.get_hosts().iter().all(|host| !matches!(host, Host::Tcp(_)));
    let tls = if unix { TlsPlan::off() } else { tls };
    driver.ssl_mode(tls.driver_mode());
    let connect_timeout = match (config.connect_timeout, pairs.get("connect_timeout")) {
        (Some(timeout), _) => timeout,
        (None, Some(text)) => Duration::from_secs(text.parse().map_err(|_| invalid("connect_timeout", "seconds"))?),
        (None, None) => CONNECT,
    };
    let connect_timeout = if connect_timeout.is_zero() { CONNECT } else { connect_timeout };
    // A first address that swallows everything must leave time for the others.
    driver.connect_timeout(connect_timeout / u32::try_from(driver.get_hosts().len()).unwrap_or(u32::MAX).max(2));
    let target = target(&driver);
    Ok(Settings {
        shown: format!("{}:{}", target.host, target.port),
        passfile: match driver.get_password() {
            None => passfile::path(&variable).map(|path| (path, target)),
            Some(_) => None,
        },
        driver,
        tls,
        password_source: config.password_source,
        pool_size: config.pool_size,
        idle_timeout: Some(config.idle_timeout.unwrap_or(IDLE)).filter(|timeout| !timeout.is_zero()),
        connect_timeout,
        acquire_timeout: config.acquire_timeout.unwrap_or(ACQUIRE),
        close_timeout: config.close_timeout.unwrap_or(CLOSE),
        statement_cache: config.statement_cache && pairs.get("pgbouncer").is_none_or(|value| value != "true"),
        session: config.session,
    })
}

/// The environment of this process.
pub(super) fn environment(name: &str) -> Option<String> {
    env::var(name).ok()
}

fn target(driver: &tokio_postgres::Config) -> Target {
    let host = match driver.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        #[cfg(unix)]
        Some(Host::Unix(path)) => path.display().to_string(),
        None => String::new(),
    };
    let user = driver.get_user().unwrap_or_default().to_owned();
    Target {
        host,
        port: driver.get_ports().first().copied().unwrap_or(5432),
        database: driver.get_dbname().unwrap_or(&user).to_owned(),
        user,
    }
}

fn driver(pairs: &Pairs) -> Result<tokio_postgres::Config> {
    let mut driver = tokio_postgres::Config::new();
    for host in pairs.get("host").map_or("localhost", String::as_str).split(',') {
        driver.host(if host.is_empty() { "localhost" } else { host });
    }
    for port in pairs.get("port").map_or("5432", String::as_str).split(',') {
        let port = if port.is_empty() { Ok(5432) } else { port.trim().parse() };
        driver.port(port.map_err(|_| invalid("port", "a whole number from 1 to 65535"))?);
    }
    if driver.get_ports().len() > 1 && driver.get_ports().len() != driver.get_hosts().len() {
        return Err(invalid("port", "one number, or as many as there are hosts"));
    }
    for address in pairs.get("hostaddr").map_or("", String::as_str).split(',').filter(|text| !text.is_empty()) {
        driver.hostaddr(address.parse().map_err(|_| invalid("hostaddr", "an IP address"))?);
    }
    if let Some(user) = pairs.get("user") {
        driver.user(user);
    }
    if let Some(password) = pairs.get("password") {
        driver.password(password);
    }
    if let Some(database) = pairs.get("dbname") {
        driver.dbname(database);
    }
    let mut options = pairs.get("options").cloned().unwrap_or_default();
    for name in ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"] {
        if let Some(value) = pairs.get(name) {
            let ms: u64 = value.parse().map_err(|_| invalid(name, "a whole number of milliseconds"))?;
            options.push_str(&format!(" -c {name}={ms}"));
        }
    }
    if !options.is_empty() {
        driver.options(options.trim_start());
    }
    driver.application_name(
        pairs
            .get("application_name")
            .or_else(|| pairs.get("fallback_application_name"))
            .map_or("holdfast", String::as_str),
    );
    if let Some(value) = pairs.get("target_session_attrs") {
        driver.target_session_attrs(match value.as_str() {
            "any" => TargetSessionAttrs::Any,
            "read-write" | "primary" => TargetSessionAttrs::ReadWrite,
            "read-only" | "standby" => TargetSessionAttrs::ReadOnly,
            _ => return Err(invalid("target_session_attrs", "any, read-write or read-only")),
        });
    }
    if let Some(value) = pairs.get("channel_binding") {
        driver.channel_binding(match value.as_str() {
            "disable" => ChannelBinding::Disable,
            "prefer" => ChannelBinding::Prefer,
            "require" => ChannelBinding::Require,
            _ => return Err(invalid("channel_binding", "disable, prefer or require")),
        });
    }
    if pairs.get("load_balance_hosts").is_some_and(|value| value == "random") {
        driver.load_balance_hosts(LoadBalanceHosts::Random);
    }
    driver
        .keepalives(pairs.get("keepalives").is_none_or(|value| value != "0"))
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .tcp_user_timeout(UNACKNOWLEDGED);
    Ok(driver)
}

fn tls_plan(ssl: &Ssl, pairs: &Pairs) -> Result<TlsPlan> {
    match ssl {
        Ssl::Disable => return Ok(TlsPlan::off()),
        Ssl::Verify => return Ok(TlsPlan { usage: Use::Always, level: Level::Full, ..TlsPlan::off() }),
        Ssl::Custom { ca, cert, key, reject_unauthorized, servername } => {
            let plan = TlsPlan {
                usage: Use::Always,
                level: if *reject_unauthorized { Level::Full } else { Level::Nothing },
                roots: ca.as_ref().map(|texts| texts.iter().cloned().map(Pem::Text).collect()),
                identity: match (cert, key) {
                    (Some(cert), Some(key)) => Some((Pem::Text(cert.clone()), Pem::Text(key.clone()))),
                    (None, None) => None,
                    _ => return Err(invalid("ssl", "given `cert` and `key` together")),
                },
                server_name: servername.clone(),
            };
            // Where all texts are here already, a mistake in them is told now. The system's roots are files: read later.
            if plan.roots.is_some() || plan.level == Level::Nothing {
                tls::client_config(&plan)?;
            }
            return Ok(plan);
        }
        Ssl::FromUrl => {}
    }
    let libpq = pairs.get("uselibpqcompat").is_some_and(|value| value == "true");
    let root = pairs.get("sslrootcert").filter(|path| *path != "system");
    let (usage, level) = match (pairs.get("sslmode").map(String::as_str), pairs.get("ssl").map(String::as_str)) {
        (Some("disable"), _) | (None, Some("false" | "0")) => (Use::Never, Level::Nothing),
        (Some("allow" | "prefer"), _) | (None, None) => (Use::IfOffered, Level::Nothing),
        (Some("require"), _) if libpq && root.is_none() => (Use::Always, Level::Nothing),
        (Some("require"), _) if libpq => (Use::Always, Level::Chain),
        (Some("verify-ca"), _) => (Use::Always, Level::Chain),
        (Some("require" | "verify-full"), _) | (None, Some("true" | "1" | "")) => (Use::Always, Level::Full),
        (Some("no-verify"), _) | (None, Some("no-verify")) => (Use::Always, Level::Nothing),
        (Some(_), _) => {
            return Err(invalid("sslmode", "disable, prefer, require, verify-ca, verify-full or no-verify"));
        }
        (None, Some(_)) => return Err(invalid("ssl", "true or false")),
    };
    let file = |key: &str| pairs.get(key).map(|path| Pem::File(PathBuf::from(path)));
    Ok(TlsPlan {
        usage,
        level,
        roots: root.map(|path| vec![Pem::File(PathBuf::from(path))]),
        identity: match (file("sslcert"), file("sslkey")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(invalid("sslcert", "given together with sslkey")),
        },
        server_name: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    fn url(text: &str) -> Settings {
        resolve(Config { connection_string: Some(text.into()), ..Config::default() }, none).unwrap()
    }

    #[test]
    fn url_beats_fields_beat_environment() {
        let config = Config {
            connection_string: Some("postgres://ann@db/shop?options=-c%20a%3Db".into()),
            host: Some("other".into()),
            port: Some(7777),
            options: Some("-c x=y".into()),
            ..Config::default()
        };
        let settings = resolve(config, |name| match name {
            "PGPORT" => Some("1".into()),
            "PGPASSWORD" => Some("hunter2".into()),
            _ => None,
        })
        .unwrap();
        assert_eq!(settings.shown, "db:7777");
        assert_eq!(settings.driver.get_options(), Some("-c a=b"));
        assert_eq!(settings.driver.get_password(), Some("hunter2".as_bytes()));
        assert!(settings.passfile.is_none());
        let settings = resolve(Config::default(), |name| (name == "USER").then(|| "ann".to_owned())).unwrap();
        assert_eq!(settings.shown, "localhost:5432");
        assert_eq!(settings.driver.get_user(), Some("ann"));
    }

    #[test]
    fn tls_of_urls() {
        let of = |text: &str| {
            let tls = url(text).tls;
            (tls.usage, tls.level)
        };
        assert_eq!(of("postgres://h/"), (Use::IfOffered, Level::Nothing));
        assert_eq!(of("postgres://h/?sslmode=disable"), (Use::Never, Level::Nothing));
        assert_eq!(of("postgres://h/?sslmode=require"), (Use::Always, Level::Full));
        assert_eq!(of("postgres://h/?sslmode=require&uselibpqcompat=true"), (Use::Always, Level::Nothing));
        assert_eq!(of("postgres://h/?sslmode=verify-ca"), (Use::Always, Level::Chain));
        assert_eq!(of("postgres://h/?sslmode=no-verify"), (Use::Always, Level::Nothing));
        assert_eq!(of("postgres://h/?ssl=true"), (Use::Always, Level::Full));
        assert_eq!(of("postgres:///d?host=/run/pg&sslmode=require"), (Use::Never, Level::Nothing));
        assert!(!url("postgres://h/?pgbouncer=true").statement_cache);
    }

    #[test]
    fn says_what_is_wrong() {
        let fails = |config: Config| resolve(config, none).err().map(|error| error.message().to_owned()).unwrap();
        let text = |text: &str| Config { connection_string: Some(text.into()), ..Config::default() };
        assert!(fails(text("postgres://h:x/")).contains("`port`"));
        assert!(fails(text("postgres://h/?sslmode=maybe")).contains("`sslmode`"));
        assert!(fails(Config { pool_size: 0, ..Config::default() }).contains("`poolSize`"));
        let custom = Ssl::Custom {
            ca: Some(vec!["hunter2".into()]),
            cert: None,
            key: None,
            reject_unauthorized: true,
            servername: None,
        };
        let message = fails(Config { ssl: custom, ..Config::default() });
        assert!(message.contains("certificate") && !message.contains("hunter2"), "{message}");
    }
}
