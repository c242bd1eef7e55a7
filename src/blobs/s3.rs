//! Blobs in a bucket of S3, or of a service that speaks its protocol.

mod failure;
mod options;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use object_store::aws::AmazonS3;
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::path::Path;
use object_store::{Error, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

pub use self::options::{DEFAULT_PREFIX, S3Options};

use self::failure::Failure;
use super::{BlobStore, Done, closed, key};
use crate::error::{Code, HfError, Result};
use crate::network;

/// Longest key of S3.
const KEY_MAX: usize = 1024;
/// Largest room that is made for a blob because the service says that it is so long.
const READ_AHEAD: usize = 64 << 20;
/// How long a service may keep silent in the middle of its answer.
const SILENCE: Duration = Duration::from_secs(30);
/// What an upload must achieve: 128 KiB/s, after the time that every request has.
const UPLOAD_PER_SECOND: usize = 128 << 10;
/// How long a put goes on where others put the same key at the same time, or an answer was lost.
const PUT_AGAIN: Duration = Duration::from_secs(10);
const PUT_WAIT: Duration = Duration::from_millis(100);

/// Blobs as objects `<prefix><hex of the key>` of one bucket, which must exist.
///
/// A put asks whether the object is there, then creates it on the condition that it is not (`If-None-Match: *`). A service
/// that refuses the condition gets a plain PUT, from then on; one that ignores it gets the same without our knowing. There, of
/// two that put one key in the same moment the last wins, whole.
///
/// `has` cannot tell a missing bucket from a missing blob; `get`, `put` and `list` can. Objects whose names under the prefix
/// are no hex are not listed; but one with an empty part, `.` or `..` in its name makes `list` fail, and say so.
pub struct S3Blobs(Arc<Inner>);

struct Inner {
    /// For requests without a large body: they answer soon, or never.
    quick: AmazonS3,
    bulk: AmazonS3,
    runtime: Handle,
    prefix: String,
    /// `bucket at endpoint`, for messages.
    place: String,
    /// The service refused conditional writes.
    unconditional: AtomicBool,
    /// Turns true once; calls that wait for the service end then.
    closed: watch::Sender<bool>,
}

impl S3Blobs {
    /// Checks `options`; connects to nothing yet.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] names what is wrong, [`Code::Io`] where threads cannot be started.
    pub fn new(options: &S3Options) -> Result<Self> {
        let (quick, bulk) = options.clients()?;
        Ok(Self(Arc::new(Inner {
            quick,
            bulk,
            runtime: network::handle()?,
            prefix: options.checked_prefix()?,
            place: options.place(),
            unconditional: AtomicBool::new(false),
            closed: watch::Sender::new(false),
        })))
    }

    /// Runs `work` on the threads for the network.
    fn run<T: Send + 'static, F: Future<Output = Result<T>> + Send>(
        &self,
        done: Done<T>,
        work: impl FnOnce(Arc<Inner>) -> F + Send + 'static,
    ) {
        let inner = Arc::clone(&self.0);
        let mut end = inner.closed.subscribe();
        self.0.runtime.spawn(async move {
            let outcome = tokio::select! {
                biased;
                _ = end.wait_for(|closed| *closed) => Err(closed(&inner.place)),
                outcome = work(Arc::clone(&inner)) => outcome,
            };
            done(outcome);
        });
    }
}

impl Inner {
    /// The object of a key; `None` where its name is longer than S3 allows.
    fn object(&self, integrity: &str) -> Result<Option<Path>> {
        key::check(integrity)?;
        let name = format!("{}{}", self.prefix, key::to_hex(integrity));
        // The prefix was checked, and hex is always fine.
        Ok((name.len() <= KEY_MAX).then(|| Path::from(name)))
    }

    fn failed(&self, doing: &str, error: &Error) -> HfError {
        Failure::of(error).told(doing, &self.place)
    }

    fn silent(&self, doing: &str, waited: Duration) -> HfError {
        let text = format!(
            "{doing} in {} failed: the service did not answer within {} s; is it running and reachable?",
            self.place,
            waited.as_secs()
        );
        HfError::new(Code::Unavailable, text)
    }

    async fn there(&self, object: &Path) -> std::result::Result<bool, Error> {
        match self.quick.head(object).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn put(&self, integrity: &str, bytes: Vec<u8>) -> Result<()> {
        const DOING: &str = "storing a blob";
        let Some(object) = self.object(integrity)? else {
            let text = format!(
                "the blob {} cannot be stored in {}: the name of its object would be longer than the {KEY_MAX} bytes that S3 \
                 allows; use a shorter prefix, or another blob store",
                key::shown(integrity),
                self.place
            );
            return Err(HfError::new(Code::InvalidArgument, text));
        };
        let payload = PutPayload::from(bytes);
        let (mut since, mut again) = (None::<Instant>, false);
        loop {
            if self.there(&object).await.map_err(|error| self.failed(DOING, &error))? {
                return Ok(());
            }
            if again {
                tokio::time::sleep(PUT_WAIT).await;
            }
            let conditional = !self.unconditional.load(Ordering::Relaxed);
            let mode = if conditional { PutMode::Create } else { PutMode::Overwrite };
            let patience = SILENCE + Duration::from_secs((payload.content_length() / UPLOAD_PER_SECOND) as u64);
            let sent = timeout(patience, self.bulk.put_opts(&object, payload.clone(), PutOptions::from(mode))).await;
            let Err(error) = sent.map_err(|_| self.silent(DOING, patience))? else { return Ok(()) };
            let failure = Failure::of(&error);
            if conditional && failure.refuses_condition() {
                self.unconditional.store(true, Ordering::Relaxed);
            } else if !(failure.is_conflict() || failure.answer_was_lost())
                || since.get_or_insert_with(Instant::now).elapsed() > PUT_AGAIN
            {
                return Err(failure.told(DOING, &self.place));
            }
            // Somebody else did it, or is at it, or we did it and were not told: the next look says.
            again = true;
        }
    }

    async fn get(&self, integrity: &str) -> Result<Option<Vec<u8>>> {
        const DOING: &str = "reading a blob";
        let Some(object) = self.object(integrity)? else { return Ok(None) };
        let silent = |_| self.silent(DOING, SILENCE);
        let answer = match timeout(SILENCE, self.bulk.get(&object)).await.map_err(silent)? {
            Ok(answer) => answer,
            Err(error @ Error::NotFound { .. }) if !Failure::of(&error).is_missing_bucket() => return Ok(None),
            Err(error) => return Err(self.failed(DOING, &error)),
        };
        let mut bytes = Vec::with_capacity(usize::try_from(answer.meta.size).unwrap_or_default().min(READ_AHEAD));
        // Of a body that breaks off the client asks for the rest, of the same object; what is shorter in the end is an error.
        let mut body = answer.into_stream();
        while let Some(part) = timeout(SILENCE, body.next()).await.map_err(silent)? {
            bytes.extend_from_slice(&part.map_err(|error| self.failed(DOING, &error))?);
        }
        Ok(Some(bytes))
    }

    async fn list(&self) -> Result<Vec<String>> {
        let prefix = Some(self.prefix.as_str()).filter(|prefix| !prefix.is_empty());
        let (mut keys, mut page_token) = (Vec::new(), None);
        loop {
            // What lies deeper is not ours; the service sums it up.
            let options =
                PaginatedListOptions { delimiter: Some("/".into()), page_token, ..PaginatedListOptions::default() };
            let page = self.quick.list_paginated(prefix, options).await;
            let page = page.map_err(|error| self.failed("listing the blobs", &error))?;
            let names =
                page.result.objects.iter().filter_map(|object| object.location.as_ref().strip_prefix(&self.prefix));
            keys.extend(names.filter_map(key::from_hex));
            page_token = page.page_token;
            if page_token.is_none() {
                break;
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }

    async fn delete(&self, integrity: &str) -> Result<()> {
        let Some(object) = self.object(integrity)? else { return Ok(()) };
        match self.quick.delete(&object).await {
            Ok(()) => Ok(()),
            Err(error @ Error::NotFound { .. }) if !Failure::of(&error).is_missing_bucket() => Ok(()),
            Err(error) => Err(self.failed("deleting a blob", &error)),
        }
    }
}

impl BlobStore for S3Blobs {
    fn put(&self, integrity: String, bytes: Vec<u8>, done: Done<()>) {
        self.run(done, |inner| async move { inner.put(&integrity, bytes).await });
    }

    fn get(&self, integrity: String, done: Done<Option<Vec<u8>>>) {
        self.run(done, |inner| async move { inner.get(&integrity).await });
    }

    fn has(&self, integrity: String, done: Done<bool>) {
        self.run(done, |inner| async move {
            let Some(object) = inner.object(&integrity)? else { return Ok(false) };
            inner.there(&object).await.map_err(|error| inner.failed("looking for a blob", &error))
        });
    }

    fn delete(&self, integrity: String, done: Done<()>) {
        self.run(done, |inner| async move { inner.delete(&integrity).await });
    }

    fn list(&self, done: Done<Vec<String>>) {
        self.run(done, |inner| async move { inner.list().await });
    }

    fn place(&self) -> String {
        self.0.place.clone()
    }

    fn close(&self, done: Done<()>) {
        self.0.closed.send_replace(true);
        done(Ok(()));
    }
}
