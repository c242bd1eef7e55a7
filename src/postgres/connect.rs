//! Opening one connection, within a time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OnceCell, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Socket, Statement};

use super::failure::pg_error;
use super::passfile;
use super::settings::Settings;
use super::tls::{self, Connector, Use};
use crate::error::{Code, HfError, Result};

/// Most statements prepared by name on one connection; beyond it they are prepared per use.
pub(super) const STATEMENTS_MAX: usize = 256;
/// How long a goodbye may take before the socket is just closed.
const GOODBYE: Duration = Duration::from_secs(1);

type Stream = <Connector as MakeTlsConnect<Socket>>::Stream;
/// A client, and what moves its bytes.
pub(super) type Raw = (tokio_postgres::Client, tokio_postgres::Connection<Socket, Stream>);

/// A server and how to log in there.
pub(super) struct Server {
    pub(super) settings: Settings,
    connector: OnceCell<Connector>,
}

impl Server {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, connector: OnceCell::new() }
    }

    /// The TLS side, once a connection was opened.
    pub(super) fn connector(&self) -> Option<Connector> {
        self.connector.get().cloned()
    }

    /// Opens a connection, within `connect_timeout` for all of it.
    pub(super) async fn open(&self) -> Result<Raw> {
        let limit = self.settings.connect_timeout;
        let doing = format!("connecting to PostgreSQL at {}", self.settings.shown);
        match timeout(limit, self.open_unbounded(&doing)).await {
            Ok(result) => result,
            Err(_) => Err(HfError::new(
                Code::Unavailable,
                format!("{doing} failed: no answer within {} ms", limit.as_millis()),
            )),
        }
    }

    async fn open_unbounded(&self, doing: &str) -> Result<Raw> {
        let settings = &self.settings;
        let connector = self
            .connector
            .get_or_try_init(async || {
                let plan = settings.tls.clone();
                blocking(move || tls::connector(&plan)).await?
            })
            .await?;
        let mut driver = settings.driver.clone();
        if let Some(source) = &settings.password_source {
            driver.password(source().await?);
        } else if let Some((path, target)) = settings.passfile.clone()
            && let Some(password) = blocking(move || passfile::look_up(&path, &target)).await?
        {
            driver.password(password);
        }
        let first = driver.connect(connector.clone()).await;
        let result = match first {
            // "If offered" also means: without, where it cannot be agreed on.
            Err(error)
                if settings.tls.usage == Use::IfOffered && error.to_string() == "error performing TLS handshake" =>
            {
                driver.ssl_mode(tokio_postgres::config::SslMode::Disable).connect(connector.clone()).await
            }
            other => other,
        };
        result.map_err(|error| pg_error(doing, &error))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.map_err(|_| HfError::new(Code::Panic, "preparing a connection to PostgreSQL panicked"))
}

/// A connection of the pool.
pub(super) struct Connection {
    pub(super) client: tokio_postgres::Client,
    pub(super) statements: Mutex<HashMap<String, Statement>>,
    driver: Mutex<Option<JoinHandle<()>>>,
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    /// Lets the connection's bytes move until its client is dropped, it breaks, or `cut` says so.
    pub(super) fn start(raw: Raw, runtime: &Handle, mut cut: watch::Receiver<bool>, live: &Arc<AtomicUsize>) -> Self {
        let (client, connection) = raw;
        live.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(live));
        let driver = runtime.spawn(async move {
            let _counted = counted;
            tokio::select! {
                // Whoever waits for an answer is told of the error; an idle connection has nobody to tell.
                _ = connection => {}
                _ = cut.wait_for(|cut| *cut) => {}
            }
        });
        Self { client, statements: Mutex::default(), driver: Mutex::new(Some(driver)) }
    }

    /// Ends an idle connection and waits until its socket is closed.
    pub(super) async fn end(self: Arc<Self>) {
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(self);
        if let Some(driver) = driver {
            let abort = driver.abort_handle();
            if timeout(GOODBYE, driver).await.is_err() {
                abort.abort();
            }
        }
    }
}
