//! `LISTEN` on a connection of its own, which comes back when it breaks.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{interval_at, sleep, timeout};
use tokio_postgres::AsyncMessage;

use super::failure::pg_error;
use super::pool::Pool;
use super::quote_ident;
use crate::error::{Code, HfError, Result};

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// An idle connection is asked for a sign of life, because a proxy may hold a dead one open.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// PostgreSQL cuts longer names off, and refuses to notify them.
const CHANNEL_BYTES_MAX: usize = 63;

/// What a [`Listener`] tells.
#[derive(Debug, Clone)]
pub enum Notice {
    /// Somebody notified the channel, with this payload.
    Message(String),
    /// Listening is in force, for the first time or again: what was sent before may have been missed, so look.
    Reconnected,
    /// The connection broke, or could not be made. Told once until [`Notice::Reconnected`]; attempts go on, every 50 ms at
    /// first and every 5 s at last. `HF_INVALID_ARGUMENT` (a channel name that is empty, longer than 63 bytes, or holds a
    /// NUL) ends the listener.
    Lost(HfError),
}

/// Ends the listening when it is dropped; a call of `on` may then still be running, no other follows.
#[must_use = "dropping it ends the listening"]
pub struct Listener {
    _stop: watch::Sender<()>,
}

type On = Arc<dyn Fn(Notice) + Send + Sync>;

/// Starts listening on `channel`.
pub(super) fn start(pool: &Arc<Pool>, channel: &str, on: impl Fn(Notice) + Send + Sync + 'static) -> Listener {
    let (stop, stopped) = watch::channel(());
    let on: On = Arc::new(on);
    let task = Task { pool: Arc::downgrade(pool), channel: channel.to_owned(), on };
    let cut = pool.cut.subscribe();
    pool.runtime.spawn(async move {
        let (mut stopped, mut cut) = (stopped, cut);
        tokio::select! {
            () = task.run() => {}
            // The sender sends nothing: this is its end.
            _ = stopped.changed() => {}
            _ = cut.wait_for(|cut| *cut) => {}
        }
    });
    Listener { _stop: stop }
}

struct Task {
    pool: Weak<Pool>,
    channel: String,
    on: On,
}

impl Task {
    fn tell(&self, notice: Notice) {
        // A panic of the callback must not end the listening in silence.
        let _ = catch_unwind(AssertUnwindSafe(|| (self.on)(notice)));
    }

    async fn run(&self) {
        if self.channel.is_empty() || self.channel.len() > CHANNEL_BYTES_MAX || self.channel.contains('\0') {
            let text = format!("a channel's name must have 1 to {CHANNEL_BYTES_MAX} bytes and no NUL");
            return self.tell(Notice::Lost(HfError::new(Code::InvalidArgument, text)));
        }
        let mut wait = FIRST_WAIT;
        let mut told = false;
        loop {
            let mut listening = false;
            let Err(error) = self.listen(&mut listening).await else { return };
            if listening {
                wait = FIRST_WAIT;
                told = false;
            }
            if !told {
                self.tell(Notice::Lost(error));
                told = true;
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Listens until the connection breaks, or the pool is gone.
    async fn listen(&self, listening: &mut bool) -> Result<()> {
        let Some(pool) = self.pool.upgrade() else { return Ok(()) };
        let (client, mut connection) = pool.server.open().await?;
        drop(pool);
        let doing = "listening for notifications";
        let messages = async {
            while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                match message {
                    Ok(AsyncMessage::Notification(note)) if note.channel() == self.channel => {
                        self.tell(Notice::Message(note.payload().to_owned()));
                    }
                    Ok(_) => {}
                    Err(error) => return pg_error(doing, &error),
                }
            }
            HfError::new(Code::Unavailable, format!("{doing} failed: the server closed the connection"))
        };
        let asking = async {
            let listen = format!("LISTEN {}", quote_ident(&self.channel));
            client.batch_execute(&listen).await.map_err(|error| pg_error(doing, &error))?;
            *listening = true;
            self.tell(Notice::Reconnected);
            let mut ticks = interval_at(tokio::time::Instant::now() + PING_EVERY, PING_EVERY);
            loop {
                ticks.tick().await;
                match timeout(PING_TIMEOUT, client.check_connection()).await {
                    Ok(result) => result.map_err(|error| pg_error(doing, &error))?,
                    Err(_) => {
                        let text = format!("{doing} failed: the server gave no sign of life");
                        return Err(HfError::new(Code::Unavailable, text));
                    }
                }
            }
        };
        tokio::select! {
            // The connection's own error says more than the "closed" that it leaves to the other side.
            biased;
            error = messages => Err(error),
            error = asking => error,
        }
    }
}
